//! The data plane of the Outrider service mesh. `main.rs` is its only user; the folders are the
//! stages of a connection, in the order in which a newcomer should read them.

// Until the stages are wired together.
#![allow(dead_code)]

mod bootstrap;
mod config;
mod discovery;
mod http;
mod listener;
mod network;
mod runtime;
mod telemetry;
mod tls;
mod upstream;
