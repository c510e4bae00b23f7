//! CONNECT that ends here, and POST where a route allows it (`connect_config`): what the client sends
//! goes to the endpoint as bytes, and what comes back likewise.

use std::rc::Rc;

use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use super::failure;
use super::header_changes::Levels;
use super::relay::{Deadlines, OnHead as _, RelayError};
use super::response::ResponseRules;
use super::{Far, Forwarded, Stream, destination, dynamic_host, unless_gone};
use crate::config::route::{Forward, RawTunnel};
use crate::http::message::{BodyLength, Version};
use crate::tls::overrides::Overrides;
use crate::upstream::proxy_protocol;
use crate::upstream::{Client, Cluster, ConnectRequest, UpstreamError};

/// What is to end here of a request, if it is one that does.
pub fn of<'f>(stream: &Stream<'_, '_>, forward: &'f Forward) -> Option<&'f RawTunnel> {
    let raw = forward.raw.as_deref()?;
    let request = &stream.request;
    let connect = request.method == b"CONNECT" && request.protocol.is_none();
    let post = raw.allow_post && request.method == b"POST" && stream.upgrade.is_none();
    (connect || post).then_some(raw)
}

/// Connects to an endpoint, and tells the client that it is through.
pub async fn open(
    stream: &mut Stream<'_, '_>,
    cluster: &Rc<Cluster>,
    raw: &RawTunnel,
    levels: Levels<'_>,
    deadlines: Deadlines,
) -> Forwarded {
    stream.info.attempts += 1;
    let client = Client::from(&*stream.context.connection);
    let name = dynamic_host(stream, cluster);
    let want = ConnectRequest {
        original_destination: destination(stream, cluster),
        name: name.as_deref(),
        overrides: Overrides::NONE,
        client: &client,
    };
    let header = raw.proxy_protocol.as_ref();
    let header = header.map(|config| proxy_protocol::header(config, &client));
    let connected = async {
        let mut tcp = cluster.connect(want, &mut stream.info.endpoint).await?;
        if let Some(header) = header {
            let written = tcp.stream.write_all(&header).await;
            written.map_err(|error| UpstreamError::Connect {
                refused: false,
                reason: error.to_string().into(),
            })?;
        }
        Ok(tcp)
    };
    let ends = (None, deadlines.stream);
    let connected = unless_gone(stream.downstream, stream.timer, ends, connected).await;
    let tcp = match connected {
        Ok(Ok(tcp)) => tcp,
        Ok(Err(error)) => return failure::no_exchange(stream, cluster, &error),
        Err(error) => return failure::reply(stream, cluster, error, None),
    };
    stream.info.upstream_local = tcp.stream.local_addr();
    stream.info.upstream_tls = tcp.stream.handshake().cloned();
    for stats in stream.counted.iter() {
        stats.total.increment(1);
    }
    let response = &mut *stream.response;
    response.version = Version::Http11;
    response.status = 200;
    response.reason.clear();
    response.headers.clear();
    response.body = BodyLength::Streamed;
    let mut rules = ResponseRules::new(
        stream.context,
        stream.info,
        levels,
        stream.settings,
        &stream.counted,
        stream.upgrade.is_some(),
    );
    rules.final_head(Instant::now(), 0, stream.request, response);
    if stream.context.is_draining() {
        stream.downstream.end_connection();
    }
    let sent = match stream.downstream.send_head(response, false) {
        Ok(()) => std::future::poll_fn(|cx| stream.downstream.poll_flush(cx)).await,
        Err(error) => Err(error),
    };
    if let Err(error) = sent {
        let state = failure::State {
            started: true,
            ..failure::State::default()
        };
        let error = RelayError::Downstream(error);
        return failure::reply(stream, cluster, error, Some(state));
    }
    Forwarded::Upgraded {
        far: Far::Raw(Box::new(tcp)),
        idle: deadlines.idle,
    }
}
