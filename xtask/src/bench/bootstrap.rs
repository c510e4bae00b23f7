//! The two bootstrap files, which both pairs are given as they are.

use std::net::Ipv4Addr;
use std::path::Path;

/// The app's ports, as the files beside this one have them.
pub(super) const HTTP1_PORT: u16 = 8080;
pub(super) const HTTP2_PORT: u16 = 8081;
pub(super) const BULK_PORT: u16 = 5201;
/// The identities of the two sides, which the files demand of each other.
pub(super) const CLIENT_ID: &str = "spiffe://cluster.local/ns/bench/sa/client";
pub(super) const SERVER_ID: &str = "spiffe://cluster.local/ns/bench/sa/server";

/// The client side's file.
pub(super) fn client(server: Ipv4Addr, files: &Path) -> String {
    fill(include_str!("client.yaml"), server, files)
}

/// The server side's file.
pub(super) fn server(server: Ipv4Addr, files: &Path) -> String {
    fill(include_str!("server.yaml"), server, files)
}

fn fill(template: &str, server: Ipv4Addr, files: &Path) -> String {
    template
        .replace("SERVER", &server.to_string())
        .replace("FILES", &files.display().to_string())
}
