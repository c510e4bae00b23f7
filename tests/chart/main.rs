//! The chart as the real Helm renders it. Nothing here needs a cluster; what one makes of it is
//! tested in `kube`.
#![allow(clippy::unwrap_used)] // All of it is tests.

mod helm;
mod objects;
mod values;
mod webhooks;
