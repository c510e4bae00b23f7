//! `google.protobuf.Struct` as JSON values.

use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};

/// The properties of a struct, sorted by name: a proto map has no order.
pub fn object(value: &Struct) -> serde_json::Map<String, serde_json::Value> {
    let mut names: Vec<_> = value.fields.keys().collect();
    names.sort();
    names
        .into_iter()
        .filter_map(|name| Some((name.clone(), json(value.fields.get(name)?))))
        .collect()
}

/// One value. Whole numbers become integers, so that equal values compare equal.
pub fn json(value: &Value) -> serde_json::Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(flag)) => (*flag).into(),
        Some(Kind::StringValue(text)) => text.as_str().into(),
        Some(Kind::NumberValue(number)) => {
            // Every integer up to this size is exact in a double.
            let whole = number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
            if whole {
                (*number as i64).into()
            } else {
                (*number).into()
            }
        }
        Some(Kind::ListValue(list)) => list.values.iter().map(json).collect(),
        Some(Kind::StructValue(inner)) => serde_json::Value::Object(object(inner)),
    }
}
