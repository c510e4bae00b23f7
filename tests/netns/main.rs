//! The built programs in pods: network namespaces with the real redirects.
#![allow(clippy::unwrap_used)] // All of it is tests.

mod bootstrap;
mod mesh;
mod traffic;
