//! Bytes as the script has them.

use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Server;
use crate::conform::bytes::{exact, shown};
use crate::conform::connection::Stream;
use crate::conform::file::Act;

/// Serves one connection, and tells what came and how it ended.
pub(super) async fn serve(
    mut stream: impl Stream,
    socket: socket2::Socket,
    server: &Server,
) -> Result<()> {
    let mut received = Vec::new();
    // Without a script it takes what comes, to the end.
    let script = if server.script.is_empty() {
        &[Act::End][..]
    } else {
        &server.script
    };
    let result = play(&mut stream, &socket, server, script, &mut received).await;
    let mut lines = vec![format!(" received: {}", shown(&received))];
    match result {
        Ok(true) => lines.push(" end: of the peer".to_owned()),
        Ok(false) => {}
        Err(error) if is_reset(&error) => lines.push(" end: reset".to_owned()),
        Err(error) => lines.push(format!(" end: {error}")),
    }
    server.saw(lines);
    Ok(())
}

fn is_reset(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

/// Whether the peer ended its direction.
async fn play(
    stream: &mut impl Stream,
    socket: &socket2::Socket,
    server: &Server,
    script: &[Act],
    received: &mut Vec<u8>,
) -> Result<bool> {
    let mut ended = false;
    for act in script {
        match act {
            Act::Say(text) => {
                stream.write_all(&exact(&server.names.fill(text)?)?).await?;
                stream.flush().await?;
            }
            Act::Read(length) => {
                let mut buffer = vec![0; *length];
                let mut filled = 0;
                while filled < *length {
                    let count = stream.read(&mut buffer[filled..]).await?;
                    if count == 0 {
                        ended = true;
                        break;
                    }
                    received.extend_from_slice(&buffer[filled..filled + count]);
                    filled += count;
                }
            }
            Act::End => {
                stream.read_to_end(received).await?;
                ended = true;
            }
            Act::Echo => {
                let mut buffer = vec![0; 16 << 10];
                loop {
                    let count = stream.read(&mut buffer).await?;
                    if count == 0 {
                        ended = true;
                        break;
                    }
                    received.extend_from_slice(&buffer[..count]);
                    stream.write_all(&buffer[..count]).await?;
                    stream.flush().await?;
                }
            }
            Act::Half => stream.shutdown().await?,
            Act::Close => return Ok(ended),
            Act::Reset => {
                socket.set_linger(Some(Duration::ZERO))?;
                return Ok(ended);
            }
            Act::Wait(gate) => server.gates.wait(gate).await,
        }
    }
    Ok(ended)
}
