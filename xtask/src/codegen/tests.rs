//! The walker of `outrider-xds` against `prost-reflect`, which has the whole descriptor set: random
//! messages of every type in the tables, in both directions.

use outrider_xds::schema::{Kind as Known, Message as Table};
use outrider_xds::transcode::{canonicalize, inspect, json_to_proto, proto_to_json};
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    SerializeOptions, Value,
};

use super::{descriptor_set, workspace};

/// How many messages of each type.
const ROUNDS: u32 = 40;
/// How deep they nest.
const DEPTH: u32 = 5;

/// A small generator (xorshift64*): every run makes the same messages.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

struct Maker {
    pool: DescriptorPool,
    random: Random,
}

impl Maker {
    fn message(&mut self, descriptor: &MessageDescriptor, depth: u32) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        match descriptor.full_name() {
            "google.protobuf.Any" => {
                let inside = self.random.pick(&[
                    "google.protobuf.Duration",
                    "google.protobuf.Struct",
                    "envoy.config.core.v3.Address",
                    "envoy.extensions.filters.http.router.v3.Router",
                ]);
                let inside = self.pool.get_message_by_name(inside).unwrap();
                let value = self
                    .message(&inside, depth.saturating_sub(1))
                    .encode_to_vec();
                let url = format!("type.googleapis.com/{}", inside.full_name());
                message.set_field_by_name("type_url", Value::String(url));
                message.set_field_by_name("value", Value::Bytes(value.into()));
                return message;
            }
            name @ ("google.protobuf.Duration" | "google.protobuf.Timestamp") => {
                let seconds = i64::try_from(self.random.below(4_000_000_000)).unwrap();
                let nanos = self.random.pick(&[0, 5, 5_000, 250_000_000]);
                let sign = if name.ends_with("Duration") {
                    self.random.pick(&[1, -1])
                } else {
                    1
                };
                message.set_field_by_name("seconds", Value::I64(i64::from(sign) * seconds));
                message.set_field_by_name("nanos", Value::I32(sign * nanos));
                return message;
            }
            "google.protobuf.Value" => {
                let field = self
                    .random
                    .pick(&[1, 2, 3, 4, if depth == 0 { 4 } else { 5 }]);
                let field = descriptor.get_field(field).unwrap();
                let value = self.value(&field, depth);
                message.set_field(&field, value);
                return message;
            }
            _ => {}
        }
        let table = Table::named(descriptor.full_name()).unwrap();
        let mut oneofs = Vec::new();
        for field in descriptor.fields() {
            let row = table.field(field.number()).unwrap();
            let known = !matches!(row.kind(), Known::Message(None) | Known::Enum(None));
            let too_deep = depth == 0 && matches!(field.kind(), Kind::Message(_));
            if !known || row.is_sensitive() || too_deep || self.random.below(2) == 0 {
                continue;
            }
            if let Some(oneof) = row.oneof() {
                if oneofs.contains(&oneof) {
                    continue;
                }
                oneofs.push(oneof);
            }
            let value = if field.is_map() {
                self.map(&field, depth)
            } else if field.is_list() {
                let count = 1 + self.random.below(2);
                Value::List((0..count).map(|_| self.value(&field, depth)).collect())
            } else {
                self.value(&field, depth)
            };
            message.set_field(&field, value);
        }
        message
    }

    fn map(&mut self, field: &FieldDescriptor, depth: u32) -> Value {
        let Kind::Message(entry) = field.kind() else {
            panic!("a map without entries")
        };
        let value_field = entry.map_entry_value_field();
        let count = 1 + self.random.below(2);
        let entries = (0..count).map(|at| {
            let key = match entry.map_entry_key_field().kind() {
                Kind::String => MapKey::String(format!("key.{at}")),
                Kind::Int64 => MapKey::I64(i64::try_from(at).unwrap() - 1),
                other => panic!("no map has keys of {other:?}"),
            };
            (key, self.value(&value_field, depth))
        });
        Value::Map(entries.collect())
    }

    fn value(&mut self, field: &FieldDescriptor, depth: u32) -> Value {
        let random = &mut self.random;
        match field.kind() {
            Kind::Double => Value::F64(random.pick(&[0.0, -1.5, 1e300, 0.1, 4e15])),
            Kind::Float => Value::F32(random.pick(&[0.0, -1.5, 1e30, 0.1])),
            Kind::Int32 => Value::I32(random.pick(&[0, -1, i32::MAX, i32::MIN])),
            Kind::Int64 => Value::I64(random.pick(&[0, -1, i64::MAX, i64::MIN])),
            Kind::Uint32 => Value::U32(random.pick(&[0, 1, u32::MAX])),
            Kind::Uint64 => Value::U64(random.pick(&[0, 1, u64::MAX])),
            Kind::Bool => Value::Bool(random.below(2) == 0),
            Kind::String => Value::String(random.pick(&["", "a", "é\n\"x\""]).to_owned()),
            Kind::Bytes => Value::Bytes(
                random
                    .pick(&[&b""[..], b"\x00\xff", b"abc"])
                    .to_vec()
                    .into(),
            ),
            Kind::Enum(values) => {
                let all: Vec<i32> = values.values().map(|value| value.number()).collect();
                Value::EnumNumber(random.pick(&all))
            }
            Kind::Message(message) => {
                Value::Message(self.message(&message, depth.saturating_sub(1)))
            }
            other => panic!("no message has {other:?}"),
        }
    }
}

#[test]
fn the_walker_agrees_with_prost_reflect_on_random_messages() {
    let (_, descriptors) = descriptor_set(&workspace().unwrap()).unwrap();
    let pool = DescriptorPool::decode(descriptors.as_slice()).unwrap();
    let options = SerializeOptions::new().use_proto_field_name(true);
    let mut maker = Maker {
        pool: pool.clone(),
        random: Random(0x0a11_ce5e_ed00_0001),
    };
    let mut types = 0;
    for descriptor in pool.all_messages() {
        let name = descriptor.full_name();
        if descriptor.is_map_entry() || Table::named(name).is_none() {
            continue;
        }
        types += 1;
        for _ in 0..ROUNDS {
            let message = maker.message(&descriptor, DEPTH);
            let bytes = message.encode_to_vec();
            let theirs = message
                .serialize_with_options(serde_json::value::Serializer, &options)
                .unwrap_or_else(|error| panic!("{name}: {error}: {message}"));

            let ours =
                proto_to_json(name, &bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            let read = DynamicMessage::deserialize(descriptor.clone(), &ours)
                .unwrap_or_else(|error| panic!("{name}: {error}: {ours:#}"));
            assert!(
                normal(&read) == normal(&message),
                "{name}\n ours {ours:#}\n theirs {theirs:#}"
            );

            let written = json_to_proto(name, &theirs)
                .unwrap_or_else(|error| panic!("{name}: {error}: {theirs:#}"));
            let read = DynamicMessage::decode(descriptor.clone(), written.as_slice()).unwrap();
            let again = canonicalize(name, &json_to_proto(name, &ours).unwrap());
            let written = canonicalize(name, &written);
            assert!(
                normal(&read) == normal(&message),
                "{name}\n {theirs:#}\n {read}\n {message}"
            );
            assert_eq!(again, written, "{name}\n ours {ours:#}\n theirs {theirs:#}");

            // Damaged bytes end in an error or in another message, never in a panic.
            let mut damaged = bytes.clone();
            if !damaged.is_empty() {
                let at = maker.random.below(damaged.len() as u64);
                damaged[usize::try_from(at).unwrap()] = maker.random.next().to_le_bytes()[7];
                let _ = (inspect(name, &damaged), proto_to_json(name, &damaged));
                let _ = canonicalize(name, &damaged);
            }

            let canonical = canonicalize(name, &bytes);
            let read = DynamicMessage::decode(descriptor.clone(), canonical.as_slice()).unwrap();
            assert!(normal(&read) == normal(&message), "{name}: {message}");
        }
    }
    assert!(types > 200, "{types}");
}

/// The message with the contents of each `Any` in one order: bytes that mean the same may differ.
fn normal(message: &DynamicMessage) -> serde_json::Value {
    serde_json::to_value(message).unwrap()
}
