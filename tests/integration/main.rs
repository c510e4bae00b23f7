//! The built programs on loopback.
#![allow(clippy::unwrap_used)] // All of it is tests.

mod config;
mod files;
mod handshake;
mod secrets;
mod testapp;
