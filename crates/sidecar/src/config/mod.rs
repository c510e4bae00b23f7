//! Configuration as the proxy uses it: validated, immutable, plain Rust.
//!
//! Each file here holds the types of one kind of resource; `build/` has a file of the same name with
//! what turns the proto into them. Nothing outside of this folder reads a proto. A build validates
//! the whole resource and its errors carry the path of the field.

pub mod access_log;
pub mod address;
pub mod build;
pub mod cluster;
pub mod dns;
pub mod dynamic_forward_proxy;
pub mod endpoint;
pub mod error;
pub mod filter_state_matcher;
pub mod http_connection_manager;
pub mod http_filter;
pub mod http_protocol;
pub mod listener;
pub mod listener_filter;
pub mod local_reply;
pub mod matcher;
pub mod metadata_matcher;
pub mod network;
pub mod route;
pub mod secret;
pub mod socket_option;
pub mod source;
pub mod tcp_proxy;
pub mod tls;
pub mod udp;
