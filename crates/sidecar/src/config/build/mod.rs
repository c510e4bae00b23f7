//! Builders: a resource's proto in, its validated plain value out.
//!
//! One file for each kind of resource. Every error carries the path of the field from the resource
//! on, such as `filter_chains[2].filters[0].typed_config.stat_prefix`. That a field is set which
//! nobody acts on is not found here but by `outrider_xds`'s check over the wire bytes; what is
//! refused here are *values* of fields that are otherwise supported.

mod data_source;
mod fields;
mod header_changes;
mod matcher;
mod regex;
pub mod route;
mod route_action;
mod route_match;

#[cfg(test)]
pub mod testing;
