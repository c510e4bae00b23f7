//! Which messages the tables hold, and what each field is to us.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Context, Result, bail};
use prost_reflect::{
    DescriptorPool, EnumDescriptor, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor,
};
use serde::Deserialize;

/// The files of `crates/xds/schema`, as they are written by hand.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Annotations {
    /// The messages that bytes or documents start with, or that an `Any` may hold.
    #[serde(default)]
    roots: Vec<String>,
    #[serde(default)]
    messages: BTreeMap<String, Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Rule {
    /// The word `all`.
    Word(String),
    Fields(Fields),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(default)]
    supported: Vec<String>,
    #[serde(default)]
    ignored: BTreeMap<String, String>,
    /// Only to give users a reason: what is named nowhere is rejected too.
    #[serde(default)]
    rejected: BTreeMap<String, String>,
}

impl Annotations {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        // Through a Value, because only that refuses a message that is listed twice.
        let value: serde_norway::Value = serde_norway::from_str(text)?;
        let parsed: Self = serde_norway::from_value(value)?;
        for (name, rule) in &parsed.messages {
            if let Rule::Word(word) = rule
                && word != "all"
            {
                bail!("{name}: `{word}` is neither `all` nor a list of fields");
            }
        }
        Ok(parsed)
    }

    /// Adds those of another file.
    pub(crate) fn add(&mut self, other: Self) -> Result<()> {
        self.roots.extend(other.roots);
        for (name, rule) in other.messages {
            if self.messages.insert(name.clone(), rule).is_some() {
                bail!("{name}: is in another file too");
            }
        }
        Ok(())
    }
}

/// What we do with a field that is set.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Support {
    Supported,
    Ignored(String),
    Rejected(String),
}

/// One field of a message in the tables.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) descriptor: FieldDescriptor,
    pub(crate) support: Support,
    pub(crate) sensitive: bool,
}

/// One message in the tables.
#[derive(Debug)]
pub(crate) struct Message {
    /// By number.
    pub(crate) fields: Vec<Field>,
    /// Whether the schema names it, rather than that it lies inside an ignored field.
    pub(crate) listed: bool,
}

/// Everything that the tables hold, by name.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) messages: BTreeMap<String, Message>,
    pub(crate) enums: BTreeMap<String, EnumDescriptor>,
}

impl Model {
    pub(crate) fn build(pool: &DescriptorPool, annotations: &Annotations) -> Result<Self> {
        let sensitive = pool
            .get_extension_by_name("udpa.annotations.sensitive")
            .context("the descriptor set lacks udpa.annotations.sensitive")?;
        let mut builder = Builder {
            annotations,
            sensitive,
            messages: BTreeMap::new(),
            enums: BTreeMap::new(),
            queue: VecDeque::new(),
            problems: BTreeSet::new(),
        };
        for root in &annotations.roots {
            match pool.get_message_by_name(root) {
                Some(message) => builder.reach(message, Way::Listed, "the roots"),
                None => builder.problem(format!("roots: there is no message {root}")),
            }
        }
        builder.follow();
        for name in annotations.messages.keys() {
            if pool.get_message_by_name(name).is_none() {
                builder.problem(format!("messages: there is no message {name}"));
            } else if !builder.messages.contains_key(name) {
                builder.problem(format!("messages: nothing supported leads to {name}"));
            }
        }
        if !builder.problems.is_empty() {
            let all: Vec<String> = builder.problems.into_iter().collect();
            bail!("{} problems:\n  {}", all.len(), all.join("\n  "));
        }
        Ok(Self {
            messages: builder.messages,
            enums: builder.enums,
        })
    }
}

/// How a message was reached.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// By supported fields only: what is inside is judged.
    Listed,
    /// Through an ignored field: what is inside is only carried.
    Carried,
}

struct Builder<'a> {
    annotations: &'a Annotations,
    sensitive: ExtensionDescriptor,
    messages: BTreeMap<String, Message>,
    enums: BTreeMap<String, EnumDescriptor>,
    queue: VecDeque<(MessageDescriptor, Way)>,
    problems: BTreeSet<String>,
}

impl Builder<'_> {
    fn problem(&mut self, text: String) {
        self.problems.insert(text);
    }

    fn reach(&mut self, message: MessageDescriptor, way: Way, from: &str) {
        let name = message.full_name();
        let exempt = message.is_map_entry() || well_known(name);
        if way == Way::Listed && !exempt && !self.annotations.messages.contains_key(name) {
            self.problem(format!(
                "messages: {name} is not listed, but {from} leads to it"
            ));
        }
        self.queue.push_back((message, way));
    }

    fn follow(&mut self) {
        let mut seen = BTreeSet::new();
        while let Some((descriptor, way)) = self.queue.pop_front() {
            let name = descriptor.full_name().to_owned();
            if !seen.insert((name.clone(), way == Way::Listed)) {
                continue;
            }
            let fields = self.judge(&descriptor);
            for field in &fields {
                let way = match &field.support {
                    Support::Supported => way,
                    Support::Ignored(_) => Way::Carried,
                    Support::Rejected(_) => continue,
                };
                let from = format!("{name}.{}", field.descriptor.name());
                match field.descriptor.kind() {
                    Kind::Message(target) => self.reach(target, way, &from),
                    Kind::Enum(target) => {
                        self.enums.insert(target.full_name().to_owned(), target);
                    }
                    _ => {}
                }
            }
            let rule = self.annotations.messages.get(&name);
            let listed = rule.is_some();
            self.messages.insert(name, Message { fields, listed });
        }
    }

    fn judge(&mut self, descriptor: &MessageDescriptor) -> Vec<Field> {
        let annotations = self.annotations;
        let rule = annotations.messages.get(descriptor.full_name());
        let exempt = descriptor.is_map_entry() || well_known(descriptor.full_name());
        if let Some(Rule::Fields(fields)) = rule {
            self.names_exist(descriptor, fields);
        }
        let mut all: Vec<Field> = descriptor
            .fields()
            .map(|field| {
                let support = match rule {
                    _ if exempt => Support::Supported,
                    Some(Rule::Word(_)) => Support::Supported,
                    Some(Rule::Fields(fields)) => fields.support(field.name()),
                    None => Support::Ignored("it is inside a field that is ignored".to_owned()),
                };
                let sensitive = field.options().has_extension(&self.sensitive);
                Field {
                    descriptor: field,
                    support,
                    sensitive,
                }
            })
            .collect();
        all.sort_by_key(|field| field.descriptor.number());
        all
    }

    fn names_exist(&mut self, descriptor: &MessageDescriptor, fields: &Fields) {
        let name = descriptor.full_name();
        let mut seen = BTreeSet::new();
        let all = fields
            .supported
            .iter()
            .chain(fields.ignored.keys())
            .chain(fields.rejected.keys());
        for field in all {
            if descriptor.get_field_by_name(field).is_none() {
                self.problem(format!("{name}: there is no field {field}"));
            }
            if !seen.insert(field) {
                self.problem(format!("{name}: {field} is listed twice"));
            }
        }
    }
}

impl Fields {
    fn support(&self, field: &str) -> Support {
        if self.supported.iter().any(|name| name == field) {
            return Support::Supported;
        }
        if let Some(reason) = self.ignored.get(field) {
            return Support::Ignored(reason.clone());
        }
        Support::Rejected(self.rejected.get(field).cloned().unwrap_or_default())
    }
}

/// Whether proto3 JSON gives the message a form of its own, or it is as basic as those.
fn well_known(name: &str) -> bool {
    name.strip_prefix("google.protobuf.")
        .is_some_and(|rest| !rest.contains('.'))
}
