//! Resources from YAML, for tests.

use envoy_types::pb::envoy::config::route::v3 as route;
use prost::{Message, Name};

use crate::config::error::{ConfigError, Result};
use crate::config::route::RouteTable;

/// The message that a YAML text describes. Its fields are checked as those of a resource are.
pub fn message<M: Message + Name + Default>(yaml: &str) -> M {
    let value = outrider_xds::transcode::yaml_to_value(yaml).unwrap();
    let bytes = outrider_xds::transcode::json_to_proto(&M::full_name(), &value).unwrap();
    M::decode(&*bytes).unwrap()
}

/// A route table that must be valid.
pub fn route_table(yaml: &str) -> RouteTable {
    super::route::build(&message::<route::RouteConfiguration>(yaml), 0).unwrap()
}

/// Asserts that an error begins so.
pub fn assert_error<T>(result: Result<T>, expect: &str) {
    let error: ConfigError = match result {
        Ok(_) => panic!("no error, expected {expect}"),
        Err(error) => error,
    };
    let error = error.to_string();
    assert!(error.starts_with(expect), "{error}\n expected {expect}");
}
