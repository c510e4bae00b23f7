//! The HTTP connection manager: takes a downstream connection, speaks its version of HTTP, and sees
//! each request through.

mod client_certificate;
pub mod context;
pub mod decide;
mod forwarded;
mod h1;
mod h2;
pub mod hop_by_hop;
pub mod local_reply;
mod local_reply_config;
mod path;
pub mod request;
pub mod response_head;
pub mod stream_tasks;
mod tunnel;

use std::rc::Rc;
use std::sync::Arc;

use tokio::io::AsyncReadExt;

use crate::config::http_connection_manager::{CodecType, HttpConnectionManager};
use crate::listener::connection::Connection;
use crate::runtime::worker::Worker;
use crate::tls::stream::Stream;

use context::Context;

/// What an HTTP/2 client sends first (RFC 9113, section 3.4); no HTTP/1 request begins so.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a downstream connection until it ends.
pub async fn serve(
    worker: &Rc<Worker>,
    connection: Rc<Connection>,
    manager: Arc<HttpConnectionManager>,
    mut stream: Stream,
) {
    let context = Context::new(worker, connection, manager);
    let _counted = Counted::begin(&context);
    match codec(&context, &mut stream).await {
        Ok(Codec::Http1) => h1::serve(&context, stream).await,
        Ok(Codec::Http2) => h2::serve(&context, stream).await,
        // Gone, or silent for too long, before the first request.
        Err(error) => {
            if error.kind() == std::io::ErrorKind::TimedOut {
                context.stats.downstream_cx_idle_timeout.increment(1);
                context.ends_here.set(true);
            }
            tracing::debug!(connection = context.connection.id, %error, "no request came");
        }
    }
}

enum Codec {
    Http1,
    Http2,
}

/// Which version the client speaks: configured, agreed by ALPN, or told by its first bytes.
async fn codec(context: &Context, stream: &mut Stream) -> std::io::Result<Codec> {
    match context.manager.codec {
        CodecType::Http1 => return Ok(Codec::Http1),
        CodecType::Http2 => return Ok(Codec::Http2),
        CodecType::Auto => {}
    }
    match context.connection.tls.as_ref().map(|tls| &tls.alpn[..]) {
        Some(b"h2") => return Ok(Codec::Http2),
        Some(b"http/1.1" | b"http/1.0") => return Ok(Codec::Http1),
        _ => {}
    }
    // As much as a first request needs, so that it is read at once.
    let mut seen = Vec::with_capacity(4096);
    let look = async {
        loop {
            let common = seen.len().min(PREFACE.len());
            if seen[..common] != PREFACE[..common] {
                return Ok(Codec::Http1);
            }
            if common == PREFACE.len() {
                return Ok(Codec::Http2);
            }
            if stream.read_buf(&mut seen).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    };
    let codec = match context.manager.idle_timeout {
        Some(idle) => tokio::time::timeout(idle, look).await?,
        None => look.await,
    };
    stream.unread(&seen);
    codec
}

/// Counts a connection from its begin to its end.
struct Counted(Rc<Context>);

impl Counted {
    fn begin(context: &Rc<Context>) -> Self {
        let stats = &context.stats;
        stats.downstream_cx_total.increment(1);
        stats.downstream_cx_active.increment(1.0);
        if context.connection.tls.is_some() {
            stats.downstream_cx_ssl_total.increment(1);
            stats.downstream_cx_ssl_active.increment(1.0);
        }
        Counted(context.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let stats = &self.0.stats;
        stats.downstream_cx_destroy.increment(1);
        if self.0.ends_here.get() {
            stats.downstream_cx_destroy_local.increment(1);
        } else {
            stats.downstream_cx_destroy_remote.increment(1);
        }
        stats.downstream_cx_active.decrement(1.0);
        if self.0.connection.tls.is_some() {
            stats.downstream_cx_ssl_active.decrement(1.0);
        }
        stats
            .downstream_cx_length_ms
            .record(self.0.connection.accepted.elapsed().as_secs_f64() * 1000.0);
    }
}
