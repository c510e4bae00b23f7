//! Reads an object that an API server has accepted. It has checked the shape, and may know fields
//! that were not there when this was written: what a type does not name is skipped, and a null is
//! the same as nothing. The errors name the field.
//!
//! The types are those of the directory, which refuses unknown fields: nobody else would notice a
//! slip of the pen there.

use serde::de::value::StringDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

use super::FieldError;

/// Reads an object.
///
/// # Errors
/// The first field that is missing or is not what its type says.
pub fn decode<T: DeserializeOwned>(value: Value) -> Result<T, FieldError> {
    T::deserialize(Lenient(value))
}

impl serde::de::Error for FieldError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::new("", message.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(field, "is missing")
    }
}

struct Lenient(Value);

impl<'de> Deserializer<'de> for Lenient {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => {
                if let Some(number) = number.as_u64() {
                    visitor.visit_u64(number)
                } else if let Some(number) = number.as_i64() {
                    visitor.visit_i64(number)
                } else {
                    visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN))
                }
            }
            Value::String(text) => visitor.visit_string(text),
            Value::Array(list) => visitor.visit_seq(Elements {
                rest: list.into_iter(),
                index: 0,
            }),
            Value::Object(map) => visitor.visit_map(Fields::new(map)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        if self.0.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        // A derived type would take a list too, field by field.
        let Value::Object(mut map) = self.0 else {
            return Err(FieldError::invalid_type(
                Unexpected::Other("something else"),
                &"a map of fields",
            ));
        };
        map.retain(|key, value| fields.contains(&key.as_str()) && !value.is_null());
        visitor.visit_map(Fields::new(map))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        match self.0 {
            Value::String(text) => visitor.visit_enum(text.into_deserializer()),
            _ => Err(FieldError::invalid_type(
                Unexpected::Other("no text"),
                &visitor,
            )),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier
    }
}

struct Elements {
    rest: std::vec::IntoIter<Value>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Elements {
    type Error = FieldError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, FieldError> {
        let Some(value) = self.rest.next() else {
            return Ok(None);
        };
        let place = format!("[{}]", self.index);
        self.index += 1;
        let element = seed.deserialize(Lenient(value));
        element.map(Some).map_err(|error| error.under(&place))
    }
}

struct Fields {
    rest: <Map<String, Value> as IntoIterator>::IntoIter,
    next: Option<(String, Value)>,
}

impl Fields {
    fn new(map: Map<String, Value>) -> Self {
        Self {
            rest: map.into_iter(),
            next: None,
        }
    }
}

impl<'de> MapAccess<'de> for Fields {
    type Error = FieldError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, FieldError> {
        self.next = self.rest.next();
        let Some((key, _)) = &self.next else {
            return Ok(None);
        };
        let decoded = seed.deserialize(Key(key.clone()));
        decoded.map(Some).map_err(|error| error.under(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, FieldError> {
        let Some((key, value)) = self.next.take() else {
            return Err(FieldError::custom("a value without a key"));
        };
        seed.deserialize(Lenient(value))
            .map_err(|error| error.under(&key))
    }
}

/// The key of a map: JSON writes numbers in quotes there.
struct Key(String);

impl Key {
    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match self.0.parse() {
            Ok(number) => visitor.visit_u64(number),
            Err(_) => visitor.visit_string(self.0),
        }
    }
}

macro_rules! number_keys {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
            self.number(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Key {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_string(self.0)
    }

    number_keys! { deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        StringDeserializer::new(self.0).deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::kinds::{PeerAuthentication, Service};

    #[test]
    fn unknown_fields_and_nulls_are_nothing_and_errors_name_the_field() {
        let service = serde_json::json!({
            "apiVersion": "v1", "kind": "Service", "future": {"a": [1]},
            "metadata": {"name": "web", "namespace": "shop", "labels": null, "uid": "x"},
            "spec": {
                "clusterIP": "10.0.0.1", "newField": true, "ipFamilies": null,
                "ports": [{"port": 80, "targetPort": "web", "protocol": "TCP", "new": 1}],
            },
        });
        let service: Service = decode(service).unwrap();
        assert_eq!(service.spec.ports[0].port.get(), 80);
        let policy = |spec: Value| {
            decode::<PeerAuthentication>(serde_json::json!({
                "apiVersion": "a", "kind": "k", "metadata": {"name": "p"}, "spec": spec,
            }))
        };
        let ports = serde_json::json!({"portLevelMtls": {"80": {"mode": "STRICT"}}});
        assert_eq!(policy(ports).unwrap().spec.port_level_mtls.len(), 1);
        for (spec, expected) in [
            (
                serde_json::json!({"mtls": {"mode": "strict"}}),
                "spec.mtls.mode: ",
            ),
            (
                serde_json::json!({"mtls": {}}),
                "spec.mtls.mode: is missing",
            ),
            (
                serde_json::json!({"portLevelMtls": {"x": {}}}),
                "spec.portLevelMtls.x: ",
            ),
            (
                serde_json::json!({"selector": {"matchLabels": {"a": 1}}}),
                "matchLabels.a: ",
            ),
            (serde_json::json!({"mtls": ["STRICT"]}), "spec.mtls"),
        ] {
            let error = policy(spec.clone()).unwrap_err().to_string();
            assert!(error.contains(expected), "{spec}: {error:?}");
        }
    }
}
