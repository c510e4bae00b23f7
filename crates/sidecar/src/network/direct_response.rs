//! direct_response: says the same to everybody, and ends the connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::tls::stream::Stream;

/// How long a client may take to end its side: closed with bytes of it unread, the system would send
/// a reset, which takes from the client what it has not read yet.
const LINGER: Duration = Duration::from_secs(1);
/// How much of a client's bytes is read meanwhile.
const MOST_READ: usize = 1 << 20;

/// Writes the response and closes.
pub async fn serve(response: &Arc<[u8]>, mut stream: Stream) {
    let said = async {
        stream.write_all(response).await?;
        stream.flush().await
    };
    match said.await {
        Ok(()) => end(stream).await,
        Err(error) => tracing::debug!(%error, "direct response not sent"),
    }
}

/// Ends a connection so that the client sees the end of it.
pub async fn end(mut stream: Stream) {
    if let Err(error) = stream.shutdown().await {
        tracing::debug!(%error, "end not sent");
        return;
    }
    let lingering = async {
        let mut bytes = [0; 1024];
        let mut read = 0;
        while read < MOST_READ {
            match stream.read(&mut bytes).await {
                Ok(length) if length > 0 => read += length,
                _ => return,
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, lingering).await;
}
