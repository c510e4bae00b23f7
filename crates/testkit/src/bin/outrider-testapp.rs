//! A plain program that knows nothing of the mesh: the app of the demo and of the tests.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use nix::sys::signal::{SigSet, Signal};
use outrider_testkit::clients::{grpc, http1, http2};
use outrider_testkit::load::{Load, Options, Url};
use outrider_testkit::mesh::Agent;
use outrider_testkit::servers;

/// A plain client and server that knows nothing of the mesh.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serves until it is ended.
    Serve {
        /// The address and port to listen on.
        #[arg(long)]
        listen: SocketAddr,
        /// The name that its answers carry.
        #[arg(long)]
        name: String,
        /// What it speaks.
        #[arg(long, value_enum, default_value = "http1")]
        protocol: Protocol,
        /// Calls this server, `http://HOST[:PORT]`, for each request and tells what it answered.
        #[arg(long, value_name = "URL", conflicts_with = "protocol")]
        calls: Option<String>,
        /// How long it goes on after it is told to end, in seconds: until everybody knows that it
        /// is going.
        #[arg(long, default_value_t = 0.0)]
        linger: f64,
    },
    /// Does nothing until it is ended: what holds a pod that requests are made from.
    Pause,
    /// Sends one GET and prints the answer; fails unless its status is 2xx.
    Get {
        /// The URL, `http://HOST[:PORT]/PATH`.
        url: String,
        /// A header line to add, `Name: value`.
        #[arg(long)]
        header: Vec<String>,
        /// Speaks HTTP/2 with prior knowledge.
        #[arg(long)]
        h2: bool,
        /// Prints the whole answer as JSON, and takes any status for an answer.
        #[arg(long, conflicts_with = "h2")]
        json: bool,
    },
    /// Sends requests for a time and prints the count, with every failure, as JSON; fails if any
    /// failed.
    Load {
        /// The URL, `http://HOST[:PORT]/PATH`.
        url: String,
        /// How many connections are used at once.
        #[arg(long, default_value_t = 1)]
        connections: usize,
        /// How long, in seconds.
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
        /// At least this many requests, however long they take.
        #[arg(long, default_value_t = 0)]
        requests: u64,
        /// Until its standard input ends: for as long as whoever started it wants.
        #[arg(long)]
        until_eof: bool,
        /// The pause of each connection after a request, in milliseconds.
        #[arg(long, default_value_t = 0)]
        pause: u64,
        /// A connection for each request.
        #[arg(long)]
        close: bool,
    },
    /// Sends a text over plain TCP, ends its direction and prints what comes.
    Tcp {
        /// The host and port.
        address: String,
        /// What to send.
        #[arg(long, default_value = "")]
        send: String,
    },
    /// Gets a workload's certificates from the mesh's authority and serves them to a proxy that
    /// cannot do so itself.
    Agent(AgentArguments),
    /// Calls the unary method of the gRPC echo and prints the answer.
    Grpc {
        /// The URL, `http://HOST:PORT`.
        url: String,
        /// What to send.
        #[arg(long, default_value = "hello")]
        text: String,
    },
}

/// Where the agent finds everything.
#[derive(Args)]
struct AgentArguments {
    /// The certificate authority, `HOST:PORT`.
    #[arg(long)]
    authority: String,
    /// The file of the mesh's root certificate.
    #[arg(long)]
    root_file: PathBuf,
    /// The file of the workload's token.
    #[arg(long)]
    token_file: PathBuf,
    /// The Unix socket to serve secrets on.
    #[arg(long)]
    socket: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Protocol {
    /// HTTP/1 that answers what it saw.
    Http1,
    /// HTTP/2 with prior knowledge that answers what it saw.
    Http2,
    /// HTTP/1 over TLS that answers the status that it is asked for.
    Https,
    /// The gRPC echo.
    Grpc,
    /// TCP that sends back what comes.
    Tcp,
    /// TCP that speaks first.
    Banner,
}

fn main() -> Result<()> {
    match Arguments::parse().verb {
        Verb::Serve {
            listen,
            name,
            protocol,
            calls,
            linger,
        } => {
            // Before any thread is there, since threads inherit it.
            let end = End::catch()?;
            serve(listen, &name, protocol, calls.as_deref(), || {
                end.wait()?;
                std::thread::sleep(Duration::from_secs_f64(linger));
                Ok(())
            })
        }
        Verb::Pause => End::catch()?.wait(),
        Verb::Get {
            url,
            header,
            h2: true,
            ..
        } => block_on(get_http2(&url, &header)),
        Verb::Get {
            url, header, json, ..
        } => get_http1(&url, &header, json),
        Verb::Load {
            url,
            connections,
            seconds,
            requests,
            until_eof,
            pause,
            close,
        } => {
            let pause = Duration::from_millis(pause);
            let options = Options {
                close,
                pause,
                ..Options::new(&url, connections)
            };
            let load = Load::start(&options)?;
            std::thread::sleep(Duration::from_secs_f64(seconds));
            if until_eof {
                std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
            }
            while load.requests() < requests {
                std::thread::sleep(Duration::from_millis(10));
            }
            let report = load.stop();
            print(serde_json::to_string(&report)?.as_bytes())?;
            ensure!(report.failed() == 0, "{} requests failed", report.failed());
            Ok(())
        }
        Verb::Agent(arguments) => block_on(
            Agent {
                authority: arguments.authority,
                root_file: arguments.root_file,
                token_file: arguments.token_file,
                socket: arguments.socket,
            }
            .run(),
        ),
        Verb::Tcp { address, send } => {
            let mut client = http1::Client::connect(address.as_str())?;
            client.send(send)?;
            client.close_write()?;
            print(&client.read_to_end()?)
        }
        Verb::Grpc { url, text } => block_on(async {
            let message = servers::grpc::Echo {
                text,
                ..Default::default()
            };
            let answer = grpc::Client::connect(&url).await?.unary(message).await?;
            print(format!("{answer:?}").as_bytes())
        }),
    }
}

/// The end that it is told of by a signal. The first process of a container gets none that it does
/// not wait for: without this, ending a pod would take all of its grace period.
struct End(SigSet);

impl End {
    fn catch() -> Result<Self> {
        let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
        signals.thread_block().context("block the signals")?;
        Ok(Self(signals))
    }

    fn wait(&self) -> Result<()> {
        self.0.wait().context("wait for a signal")?;
        Ok(())
    }
}

/// Serves until `ended` returns.
fn serve(
    listen: SocketAddr,
    name: &str,
    protocol: Protocol,
    calls: Option<&str>,
    ended: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("listen on {listen}"))?;
    let _blocking;
    let _futures;
    match protocol {
        Protocol::Http1 => {
            _blocking = match calls {
                None => servers::http1::echo(listener, name)?,
                Some(url) => servers::http1::calling(listener, name, url)?,
            }
        }
        Protocol::Http2 => _futures = servers::http2::echo(listener, name)?,
        Protocol::Grpc => _futures = servers::grpc::echo(listener, name)?,
        Protocol::Https => _blocking = servers::https::start(listener)?,
        Protocol::Tcp => _blocking = servers::tcp::echo(listener)?,
        Protocol::Banner => {
            _blocking = servers::tcp::banner(listener, format!("hello from {name}\n").as_bytes())?;
        }
    }
    print(format!("{name} listens on {listen}").as_bytes())?;
    ended()
}

fn get_http1(url: &str, headers: &[String], json: bool) -> Result<()> {
    let url = Url::parse(url)?;
    let mut client = http1::Client::connect((url.host.as_str(), url.port))?;
    let mut request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n", url.path, url.authority);
    for header in headers {
        request.push_str(&format!("{header}\r\n"));
    }
    let response = client.exchange(request + "\r\n")?;
    if json {
        let answer = serde_json::json!({
            "status": response.status()?,
            "headers": response.head.headers,
            "body": response.text(),
        });
        return print(answer.to_string().as_bytes());
    }
    print(response.head.start.as_bytes())?;
    print(&response.body)?;
    let status = response.status()?;
    ensure!((200..300).contains(&status), "status {status}");
    Ok(())
}

async fn get_http2(url: &str, headers: &[String]) -> Result<()> {
    let target = Url::parse(url)?;
    let client = http2::Client::connect((target.host.as_str(), target.port)).await?;
    let mut request = http::Request::get(url).version(http::Version::HTTP_2);
    for header in headers {
        let (name, value) = header.split_once(':').context("a header without a colon")?;
        request = request.header(name.trim(), value.trim());
    }
    let response = client
        .exchange(request.body(())?, bytes::Bytes::new(), None)
        .await?;
    print(format!("HTTP/2 {}", response.status()).as_bytes())?;
    print(&response.body().body)?;
    ensure!(
        response.status().is_success(),
        "status {}",
        response.status()
    );
    Ok(())
}

fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

/// Prints a line.
fn print(bytes: &[u8]) -> Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(bytes)?;
    if !bytes.ends_with(b"\n") {
        output.write_all(b"\n")?;
    }
    output.flush().context("write to standard output")
}
