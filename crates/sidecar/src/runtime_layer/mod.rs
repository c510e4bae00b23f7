//! Envoy's runtime: values that operators change while the process runs, by keys that resources name
//! beside a default.
//!
//! Layers (a static one of the bootstrap, a directory, RTDS, the admin API) lie one over the other; the
//! topmost that has a key gives its value. Who builds a resource asks for a value by its key once
//! and gets a reader: the default and, where a key is named, a [`Cell`](cell::Cell) that the layers
//! fill. On the data path a read is a load and a comparison.

pub mod cell;
pub mod disk;
pub mod layers;
pub mod store;
pub mod value;

use std::sync::LazyLock;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::r#type::v3 as proto;
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;

use crate::config::build::Within as _;
use crate::config::build::fields::{enumeration, named, required};
use crate::config::error::Result;
pub use cell::{Double, Flag, Fraction, Number};
pub use store::Runtime;

/// The runtime of this process. A key means the same wherever it is named, so there is one.
pub fn of_process() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(Runtime::default);
    &RUNTIME
}

/// `RuntimeFractionalPercent`.
///
/// # Errors
/// There is no default, or it is not valid.
pub fn fraction(proto: &core::RuntimeFractionalPercent) -> Result<Fraction> {
    let percent = required(&proto.default_value, "default_value")?;
    let (numerator, denominator) = fractional_percent(percent).within("default_value")?;
    Ok(fraction_at(&proto.runtime_key, numerator, denominator))
}

/// A fraction of the key, with a default of so many of so many; an empty key is none.
pub fn fraction_at(key: &str, numerator: u32, denominator: u32) -> Fraction {
    Fraction::new(numerator, denominator, of_process().cell(key))
}

/// `FractionalPercent`: so many of so many.
///
/// # Errors
/// The denominator is none of the enumeration.
pub fn fractional_percent(proto: &proto::FractionalPercent) -> Result<(u32, u32)> {
    let denominator: DenominatorType = enumeration(proto.denominator, "denominator")?;
    let denominator = match denominator {
        DenominatorType::Hundred => 100,
        DenominatorType::TenThousand => 10_000,
        DenominatorType::Million => 1_000_000,
    };
    Ok((proto.numerator, denominator))
}

/// `RuntimeFeatureFlag`.
///
/// # Errors
/// There is no default, or no key.
pub fn flag(proto: &core::RuntimeFeatureFlag) -> Result<Flag> {
    let default = required(&proto.default_value, "default_value")?.value;
    Ok(flag_at(named(&proto.runtime_key, "runtime_key")?, default))
}

/// A flag of the key; an empty key is none.
pub fn flag_at(key: &str, default: bool) -> Flag {
    Flag::new(default, of_process().cell(key))
}

/// `RuntimeUInt32`.
///
/// # Errors
/// There is no key.
pub fn number(proto: &core::RuntimeUInt32) -> Result<Number> {
    let key = named(&proto.runtime_key, "runtime_key")?;
    Ok(number_at(key, proto.default_value))
}

/// A number of the key; an empty key is none.
pub fn number_at(key: &str, default: u32) -> Number {
    Number::new(default, of_process().cell(key))
}

/// `RuntimeDouble`.
///
/// # Errors
/// There is no key.
pub fn double(proto: &core::RuntimeDouble) -> Result<Double> {
    let key = named(&proto.runtime_key, "runtime_key")?;
    Ok(Double::new(proto.default_value, of_process().cell(key)))
}
