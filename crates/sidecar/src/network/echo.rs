//! echo: sends back what comes.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::tls::stream::Stream;

/// How much is read at once.
const BUFFER: usize = 16 * 1024;

/// Sends back all bytes, and the end of them.
pub async fn serve(mut stream: Stream) {
    let mut buffer = vec![0; BUFFER];
    let echoed = async {
        loop {
            let length = stream.read(&mut buffer).await?;
            if length == 0 {
                return stream.shutdown().await;
            }
            stream.write_all(&buffer[..length]).await?;
            stream.flush().await?;
        }
    };
    if let Err(error) = echoed.await {
        tracing::debug!(%error, "echo ended");
        stream.abort();
    }
}
