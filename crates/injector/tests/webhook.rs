//! The built program over HTTPS, as the API server calls it.

mod support;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use http::StatusCode;
use nix::sys::signal::Signal;
use outrider_testkit::bins;
use outrider_testkit::poll::eventually_async;
use support::{CONFIG, Client, Files, PATIENCE, Running, pod, request, review};

#[tokio::test]
async fn answers_reviews_and_refuses_everything_else() -> Result<()> {
    let files = Files::new()?;
    let running = Running::start(files.command()?)?;
    for protocol in ["h2", "http/1.1"] {
        let mut client = running.client(files.roots(), protocol).await?;
        let injected = client.inject().await?;
        let sidecar = &injected["spec"]["initContainers"][1];
        assert_eq!(sidecar["image"], "example/sidecar:1");
        assert_eq!(injected["spec"]["serviceAccountName"], "web");

        let large = vec![b' '; 3 * 1024 * 1024 + 1];
        for (method, path, content_type, body, status) in [
            (
                "POST",
                "/inject",
                "application/json",
                vec![],
                StatusCode::BAD_REQUEST,
            ),
            (
                "POST",
                "/inject",
                "application/json",
                b"{}".to_vec(),
                StatusCode::BAD_REQUEST,
            ),
            (
                "POST",
                "/inject",
                "application/json; charset=utf-8",
                b"[[".to_vec(),
                StatusCode::BAD_REQUEST,
            ),
            (
                "GET",
                "/inject",
                "application/json",
                vec![],
                StatusCode::METHOD_NOT_ALLOWED,
            ),
            (
                "POST",
                "/inject",
                "application/yaml",
                review(&pod()),
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ),
            (
                "POST",
                "/other",
                "application/json",
                review(&pod()),
                StatusCode::NOT_FOUND,
            ),
            (
                "POST",
                "/inject",
                "application/json",
                large,
                StatusCode::PAYLOAD_TOO_LARGE,
            ),
        ] {
            let mut client = running.client(files.roots(), protocol).await?;
            let request = request(method, path, content_type, body)?;
            let (found, reason) = client.send(request).await?;
            assert_eq!(found, status, "{protocol} {method} {path}");
            assert!(!reason.is_empty());
        }
    }
    assert_eq!(running.monitor("/healthz/live").await?.0, StatusCode::OK);
    assert_eq!(running.monitor("/healthz/ready").await?.0, StatusCode::OK);
    let (_, metrics) = running.monitor("/metrics").await?;
    for line in [
        "outrider_injector_reviews_total{outcome=\"patched\"} 2",
        "outrider_injector_reviews_total{outcome=\"malformed\"} 8",
        "outrider_injector_review_seconds_count 2",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    Ok(())
}

#[tokio::test]
async fn a_new_certificate_serves_the_next_handshake_and_a_bad_one_does_not() -> Result<()> {
    let mut files = Files::new()?;
    let running = Running::start(files.command()?)?;
    let mut old = running.client(files.roots(), "h2").await?;
    old.inject().await?;

    files.write("tls.key", "no key")?;
    eventually_async(PATIENCE, || async {
        let (_, metrics) = running.monitor("/metrics").await?;
        ensure!(
            metrics.contains("certificate_loads_total{result=\"bad\"} 1"),
            "{metrics}"
        );
        Ok(())
    })
    .await?;
    assert_eq!(running.monitor("/healthz/ready").await?.0, StatusCode::OK);
    running.client(files.roots(), "h2").await?.inject().await?;

    files.change_authority()?;
    eventually_async(PATIENCE, || async {
        running.client(files.roots(), "h2").await?.inject().await
    })
    .await?;
    // Connections from before go on.
    old.inject().await?;
    Ok(())
}

#[tokio::test]
async fn a_new_configuration_holds_for_the_next_pod_and_a_bad_one_does_not() -> Result<()> {
    let files = Files::new()?;
    let mut running = Running::start(files.command()?)?;
    let mut client = running.client(files.roots(), "h2").await?;

    files.write("config.yaml", "images: {sidecar: s}\n")?;
    running
        .process
        .wait_for_output("config.yaml: images: missing field `init`", PATIENCE)?;
    let sidecar = |pod: serde_json::Value| pod["spec"]["initContainers"][1]["image"].clone();
    assert_eq!(sidecar(client.inject().await?), "example/sidecar:1");

    files.write("config.yaml", &CONFIG.replace("sidecar:1", "sidecar:2"))?;
    let deadline = Instant::now() + PATIENCE;
    while sidecar(client.inject().await?) != "example/sidecar:2" {
        ensure!(Instant::now() < deadline, "the new version is not in force");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

#[tokio::test]
async fn without_a_certificate_it_is_not_ready_and_with_one_it_is() -> Result<()> {
    let files = Files::new()?;
    let (chain, key) = (files.path("tls.crt"), files.path("tls.key"));
    std::fs::remove_file(chain)?;
    std::fs::remove_file(key)?;
    let running = Running::start(files.command()?)?;
    let (status, reason) = running.monitor("/healthz/ready").await?;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(reason.contains("no serving certificate"), "{reason}");
    assert!(running.client(files.roots(), "h2").await.is_err());
    files.renew()?;
    eventually_async(PATIENCE, || async {
        let (status, reason) = running.monitor("/healthz/ready").await?;
        ensure!(status == StatusCode::OK, "{reason}");
        Ok(())
    })
    .await
}

// The client has to answer while the test waits for the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn told_to_stop_it_is_not_ready_but_answers_until_the_api_server_knows() -> Result<()> {
    let files = Files::new()?;
    let mut command = files.command()?;
    command.arg("--drain-seconds=2");
    let mut running = Running::start(command)?;
    let mut before = running.client(files.roots(), "h2").await?;
    before.inject().await?;
    running.process.signal(Signal::SIGTERM)?;
    running
        .process
        .wait_for_output("not ready from now on", PATIENCE)?;
    let (status, _) = running.monitor("/healthz/ready").await?;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    before.inject().await?;
    running.client(files.roots(), "h2").await?.inject().await?;
    assert!(running.process.wait(PATIENCE)?.success());
    let output = running.process.output();
    assert!(!output.contains("still open"), "{output}");
    assert!(before.inject().await.is_err());
    Ok(())
}

#[test]
fn what_it_cannot_start_with_is_named() -> Result<()> {
    let files = Files::new()?;
    files.write("config.yaml", &format!("{CONFIG}logLevel: loud\n"))?;
    let output = files.command()?.output()?;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr)?;
    assert!(text.contains("config.yaml: logLevel: `loud`"), "{text}");

    std::fs::remove_file(files.path("config.yaml"))?;
    let text = String::from_utf8(files.command()?.output()?.stderr)?;
    assert_eq!(text.matches("No such file").count(), 1, "{text}");

    let mut command = std::process::Command::new(bins::path("outrider-injector")?);
    let output = command.env_clear().output()?;
    let text = String::from_utf8(output.stderr)?;
    assert!(text.contains("--namespace is missing"), "{text}");
    Ok(())
}

/// 200 pods a second for ten seconds, over one connection, as a Deployment scaled up makes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "a measurement, which wants a quiet machine and a quick build"]
async fn answers_200_pods_a_second_within_50_ms() -> Result<()> {
    let files = Files::new()?;
    let running = Running::start(files.command()?)?;
    let Client::Http2(sender) = running.client(files.roots(), "h2").await? else {
        anyhow::bail!("not HTTP/2");
    };
    let body = bytes::Bytes::from(review(&pod()));
    let mut clock = tokio::time::interval(Duration::from_millis(5));
    let mut tasks = Vec::new();
    for _ in 0..2000 {
        clock.tick().await;
        let (mut client, body) = (Client::Http2(sender.clone()), body.clone());
        tasks.push(tokio::spawn(async move {
            let start = Instant::now();
            let (status, _) = client.post(body).await?;
            ensure!(status == StatusCode::OK, "{status}");
            anyhow::Ok(start.elapsed())
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.push(task.await??);
    }
    times.sort_unstable();
    let (half, most) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("p50 {half:?}, p99 {most:?}, longest {:?}", times.last());
    let (_, metrics) = running.monitor("/metrics").await?;
    let own = metrics
        .lines()
        .filter(|line| line.contains("review_seconds"));
    println!("{}", own.collect::<Vec<_>>().join("\n"));
    assert!(most < Duration::from_millis(50));
    Ok(())
}
