//! The built programs in pods: network namespaces with the real redirects.
#![allow(clippy::unwrap_used)] // All of it is tests.

mod bootstrap;
mod common;
mod init_pod;
mod init_rules;
mod init_traffic;
mod listeners;
mod mesh;
mod meshed;
mod pod;
mod traffic;
