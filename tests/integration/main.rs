//! The built programs on loopback.
//!
//! What Envoy does with the same file and the same bytes is the measure wherever it makes sense:
//! [`harness::Pair`] runs both, and a test says why where ours is meant to differ.
#![allow(clippy::unwrap_used, clippy::expect_used)] // All of it is tests.

mod harness;

mod access_log;
mod admin;
mod config;
mod dns;
mod drain;
mod failures;
mod files;
mod forwarded;
mod h2spec;
mod handshake;
mod http1;
mod http2;
mod malformed;
mod mirror;
mod parity;
mod private_keys;
mod retry;
mod routes;
mod secrets;
mod sessions;
mod stat_names;
mod testapp;
mod tls;
mod upgrades;
