//! Datagrams as the script has them: it is played for each one.

use std::sync::Arc;

use tokio::net::UdpSocket;

use super::Server;
use crate::conform::bytes::{exact, shown};
use crate::conform::file::Act;

pub(super) async fn serve(socket: UdpSocket, server: Arc<Server>) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        // A client that went away is told with the next receive.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let datagram = &buffer[..length];
        let told = match length {
            0..=200 => shown(datagram),
            _ => format!("{length} bytes"),
        };
        let from = match client.ip() {
            ip if ip == std::net::Ipv4Addr::LOCALHOST => String::new(),
            ip => format!(" from {ip}"),
        };
        server.saw(vec![format!(" datagram{from}: {told}")]);
        for act in &server.script {
            let _ = match act {
                Act::Say(text) => match server.names.fill(text).and_then(|text| exact(&text)) {
                    Ok(bytes) => socket.send_to(&bytes, client).await,
                    Err(_) => continue,
                },
                Act::Echo => socket.send_to(datagram, client).await,
                Act::Wait(gate) => {
                    server.gates.wait(gate).await;
                    continue;
                }
                _ => continue,
            };
        }
    }
}
