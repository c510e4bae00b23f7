//! The mesh on a real Kubernetes, installed by Helm: `cargo xtask test kube`.
//!
//! Each test has namespaces of its own, so they run side by side. Those that trouble the control
//! plane itself are in [`operations`]; the last of all, which removes the mesh, is ignored unless
//! it is asked for by name.
#![allow(clippy::unwrap_used)] // All of it is tests.

mod bad_input;
mod command;
mod connections;
mod control_client;
mod harness;
mod identity;
mod injection;
mod jobs;
mod network_policy;
mod operations;
mod policy;
mod probes;
mod revisions;
mod routes;
mod stateful;
mod uninstall;
