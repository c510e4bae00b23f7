//! Builders: a resource's proto in, its validated plain value out.
//!
//! One file for each kind of resource. Every error carries the path of the field from the resource
//! on, such as `filter_chains[2].filters[0].typed_config.stat_prefix`. [`resource`] is the way in
//! for bytes that came from somewhere: it also finds set fields that nobody acts on. What is refused
//! in the other files are *values* of fields that are otherwise supported.

// Envoy's older fields still mean what they meant, and configurations in the field use them.
#![allow(deprecated)]

pub mod access_log;
mod access_log_filter;
mod cel;
mod certificate;
pub mod cluster;
mod cluster_specifier;
pub mod connection_options;
pub mod context;
mod data_source;
pub mod dns;
mod dynamic_forward_proxy;
mod endpoint;
pub mod extension;
pub mod fields;
mod filter_chain;
mod filter_state_matcher;
mod header_changes;
mod http_connection_manager;
mod http_protocol;
mod internal_redirect;
pub mod listener;
mod listener_address;
mod listener_filter;
mod load_balancing;
pub mod matcher;
mod matching;
mod metadata_matcher;
mod mirror;
mod network;
mod path_rewrite;
mod per_filter;
mod rbac;
mod regex;
pub mod resource;
pub mod route;
mod route_action;
mod route_answer;
mod route_cluster;
mod route_match;
mod route_scope;
pub mod secret;
pub mod socket_option;
pub mod source;
mod spiffe_validator;
pub mod struct_value;
mod tls;
mod tls_parameters;
mod transport_socket;
mod udp;
mod upstream_protocol;
mod uri_template;
mod validation_context;

#[cfg(test)]
pub mod testing;

pub use self::fields::{Within, address};
