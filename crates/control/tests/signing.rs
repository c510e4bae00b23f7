//! The certificate signing service over TLS.
#![allow(
    clippy::unwrap_used,
    reason = "the exemption for tests does not reach their helpers"
)]

mod common;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::control::{Control, HOUR, bearer, message};
use outrider_identity::authority::{AuthorityMaterial, Lifetimes, Text};
use outrider_identity::certificate::certificates_from_pem;
use outrider_identity::token::AUDIENCE;
use outrider_identity::verify::unix_time;
use outrider_identity::{
    CertificateAuthority, CertificateDetails, PeerRole, SpiffeId, TrustBundle, WorkloadKey,
    verify_chain,
};
use outrider_xds::certificate::{CertificateRequest, create_certificate};
use tonic::metadata::MetadataMap;

fn request(csr: String, validity_duration: i64) -> CertificateRequest {
    CertificateRequest {
        csr,
        validity_duration,
        metadata: None,
    }
}

#[tokio::test]
async fn a_good_token_gets_a_certificate_of_its_account_whatever_the_request_says() {
    let control = Control::start("").await;
    let key = WorkloadKey::generate().unwrap();
    let other: SpiffeId = "spiffe://cluster.local/ns/kube-system/sa/admin"
        .parse()
        .unwrap();
    let csr = key.signing_request(Some(&other)).unwrap();
    let channel = control.channel(None).await.unwrap();
    let token = control.token("shop", "cart");
    let answer = create_certificate(channel, token, request(csr, 600))
        .await
        .unwrap();

    let leaf = certificates_from_pem(answer.cert_chain[0].as_bytes())
        .unwrap()
        .remove(0);
    let details = CertificateDetails::parse(&leaf).unwrap();
    assert_eq!(details.uris, ["spiffe://cluster.local/ns/shop/sa/cart"]);
    let left = details.not_after.duration_since(SystemTime::now()).unwrap();
    assert!(
        left > Duration::from_secs(590) && left <= Duration::from_secs(600),
        "{left:?}"
    );
    let root = answer.cert_chain.last().unwrap();
    assert_eq!(
        *root,
        control.authority.trust_bundle().to_pem(),
        "the root comes last"
    );
    let bundle = TrustBundle::from_pem(root.as_bytes()).unwrap();
    let now = unix_time(SystemTime::now());
    verify_chain(bundle.anchors(), &leaf, &[], PeerRole::Client, now).unwrap();
    control.stop().await;
}

#[tokio::test]
async fn who_has_no_good_token_gets_nothing_and_learns_why() {
    let control = Control::start("").await;
    let stranger = Control::start("").await;
    let csr = WorkloadKey::generate()
        .unwrap()
        .signing_request(None)
        .unwrap();
    let now = SystemTime::now();
    let cases: [(MetadataMap, &str); 7] = [
        (MetadataMap::new(), "Unauthenticated: no credentials"),
        (
            bearer("Basic YTpi"),
            "Unauthenticated: the authorization header",
        ),
        (
            bearer("Bearer"),
            "Unauthenticated: the authorization header",
        ),
        (bearer("Bearer x.y.z"), "Unauthenticated: malformed token"),
        (
            control.token_for("shop", "cart", AUDIENCE, now - 2 * HOUR),
            "expired",
        ),
        (
            control.token_for("shop", "cart", "vault", now),
            "another audience than \"outrider\"",
        ),
        (stranger.token("shop", "cart"), "signature does not verify"),
    ];
    for (token, reason) in cases {
        let channel = control.channel(None).await.unwrap();
        let refused = create_certificate(channel, token.clone(), request(csr.clone(), 0)).await;
        let text = message(&refused.unwrap_err());
        assert!(
            text.starts_with("Unauthenticated") && text.contains(reason),
            "{text}"
        );
        if let Some(header) = token.get("authorization") {
            let secret = header.to_str().unwrap().rsplit([' ', '.']).next().unwrap();
            assert!(secret.len() < 8 || !text.contains(secret), "{text}");
        }
    }
    // A certificate is not enough to get another one.
    let channel = control
        .channel(Some(control.certificate("shop", "cart")))
        .await
        .unwrap();
    let refused = create_certificate(channel, MetadataMap::new(), request(csr, 0)).await;
    assert!(message(&refused.unwrap_err()).contains("no credentials"));
    // A good token does not make a bad request good.
    let channel = control.channel(None).await.unwrap();
    let token = control.token("shop", "cart");
    let refused = create_certificate(channel, token, request("x".to_owned(), 0)).await;
    assert!(message(&refused.unwrap_err()).starts_with("InvalidArgument"));
    control.stop().await;
    stranger.stop().await;
}

#[tokio::test]
async fn neither_side_talks_to_one_that_another_root_vouches_for() {
    let control = Control::start("").await;
    let stranger = Control::start("").await;
    let roots = stranger.authority.trust_bundle().root_store();
    let error = control.channel_trusting(roots, None).await.unwrap_err();
    assert!(
        error.contains("UnknownIssuer") || error.contains("BadSignature"),
        "{error}"
    );

    let csr = WorkloadKey::generate()
        .unwrap()
        .signing_request(None)
        .unwrap();
    let foreign = stranger.certificate("shop", "cart");
    // With TLS 1.3 the client learns of the refusal when it first reads.
    if let Ok(channel) = control.channel(Some(foreign)).await {
        let token = control.token("shop", "cart");
        assert!(
            create_certificate(channel, token, request(csr, 0))
                .await
                .is_err()
        );
    }
    control.stop().await;
    stranger.stop().await;
}

#[tokio::test]
async fn the_serving_certificate_is_renewed_while_it_serves() {
    let short = Duration::from_secs(3);
    let control = Control::start_with(
        "",
        Lifetimes {
            default: short,
            max: short,
        },
    )
    .await;
    let first = control.serving_certificate().await;
    assert_eq!(first.dns_names, ["localhost"]);
    let renewed = async || {
        let now = control.serving_certificate().await;
        anyhow::ensure!(now.serial != first.serial);
        Ok(now)
    };
    let second = outrider_testkit::eventually_async(4 * short, renewed)
        .await
        .unwrap();
    assert!(second.not_after > first.not_after);
    control.stop().await;
}

#[tokio::test]
async fn another_authority_signs_without_a_restart_and_both_roots_are_known_meanwhile() {
    let control = Control::start("").await;
    let first = control.serving_certificate().await;
    let domain = common::settings().trust_domain;
    let now = SystemTime::now();
    let mut material = AuthorityMaterial::self_signed(&domain, now).unwrap();
    let old = control.authority.trust_bundle().to_pem();
    let new_root = material.certificate.pem.clone();
    let bundle = format!("{old}{new_root}");
    let roots = |pem: String| {
        let origin = "ca.crt".to_owned();
        Some(Text { origin, pem })
    };
    material.roots = roots(bundle.clone());
    let both = CertificateAuthority::new(&material, &domain, now).unwrap();
    control.authorities.send_replace(Arc::new(both));

    // By the old root alone, as a sidecar that has not read the new bundle.
    let sign = async || {
        let channel = control.channel(None).await.unwrap();
        let token = control.token("shop", "cart");
        let csr = WorkloadKey::generate().unwrap().signing_request(None);
        create_certificate(channel, token, request(csr.unwrap(), 0)).await
    };
    let answer = sign().await.unwrap();
    assert_eq!(answer.cert_chain.last(), Some(&bundle));
    let leaf = certificates_from_pem(answer.cert_chain[0].as_bytes()).unwrap();
    let new_root = TrustBundle::from_pem(new_root.as_bytes()).unwrap();
    verify_chain(
        new_root.anchors(),
        &leaf[0],
        &[],
        PeerRole::Client,
        unix_time(SystemTime::now()),
    )
    .unwrap();
    assert_eq!(control.serving_certificate().await.serial, first.serial);

    // The old root goes, and with it what it vouched for.
    material.roots = roots(new_root.to_pem());
    let alone = CertificateAuthority::new(&material, &domain, now).unwrap();
    control.authorities.send_replace(Arc::new(alone));
    let renewed = async || {
        let channel = control.channel_trusting(new_root.root_store(), None).await;
        anyhow::ensure!(channel.is_ok(), "{channel:?}");
        Ok(())
    };
    outrider_testkit::eventually_async(Duration::from_secs(5), renewed)
        .await
        .unwrap();
    assert!(control.channel(None).await.is_err());
    control.stop().await;
}
