//! Network filters: what a connection passes once its filter chain is chosen and TLS is ended.
//!
//! A chain is some filters that let a connection through or end it ([`filters`]), mostly none, and
//! the terminal one that keeps it: tcp_proxy, http_connection_manager, direct_response or echo.
//! What filters know about a connection they leave in its [`state`].

pub mod connection_limit;
pub mod direct_response;
pub mod echo;
pub mod filter_state;
pub mod filters;
pub mod local_ratelimit;
pub mod rbac;
pub mod state;
pub mod stats;
pub mod tcp_proxy;
pub mod token_bucket;
