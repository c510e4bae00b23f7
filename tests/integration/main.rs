//! The built programs on loopback.
#![allow(clippy::unwrap_used)] // All of it is tests.

mod config;
mod secrets;
mod testapp;
