//! `%FILTER_STATE(...)%` and `%DYNAMIC_METADATA(...)%`: what filters left on the request or
//! the connection.

use super::parse::FormatError;
use super::text::visible;
use crate::network::filter_state::Value;
use crate::telemetry::access_log::record::Record;

/// `FILTER_STATE(key:form)`
#[derive(Debug)]
pub(super) struct FilterStateView {
    key: Box<str>,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Plain,
    Typed,
    Field(Box<str>),
}

impl FilterStateView {
    pub(super) fn parse(
        operator: &'static str,
        argument: Option<&str>,
    ) -> Result<Self, FormatError> {
        let argument = argument.ok_or(FormatError::NeedsArgument(operator))?;
        let invalid = |reason| FormatError::Argument {
            operator,
            argument: argument.to_owned(),
            reason,
        };
        let mut parts = argument.splitn(3, ':');
        let key = parts.next().filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| invalid("must begin with the key of a value"))?;
        let form = match (parts.next(), parts.next()) {
            (None | Some("TYPED"), None) => Form::Typed,
            (Some("PLAIN"), None) => Form::Plain,
            (Some("FIELD"), Some(field)) if !field.is_empty() => Form::Field(field.into()),
            _ => return Err(invalid("after the key may come PLAIN, TYPED or FIELD:name")),
        };
        Ok(FilterStateView {
            key: key.into(),
            form,
        })
    }

    fn view<T>(&self, record: &Record<'_>, view: impl Fn(&Value) -> Option<T>) -> Option<T> {
        record.with_filter_state(&self.key, |value| view(value?))
    }

    pub(super) fn write(&self, record: &Record<'_>, out: &mut Vec<u8>) -> bool {
        let shown = self.view(record, |value| match &self.form {
            Form::Plain => value.plain(),
            Form::Field(name) => value.field(name),
            Form::Typed => value.typed().map(|json| json.to_string()),
        });
        written(shown, out)
    }

    /// The value in typed JSON.
    pub(super) fn json(&self, record: &Record<'_>) -> Option<serde_json::Value> {
        match self.form {
            Form::Typed => self.view(record, Value::typed),
            Form::Plain | Form::Field(_) => None,
        }
    }
}

/// `DYNAMIC_METADATA(namespace:key:key...)`
#[derive(Debug)]
pub(super) struct MetadataPath {
    namespace: Box<str>,
    keys: Box<[Box<str>]>,
}

impl MetadataPath {
    pub(super) fn parse(
        operator: &'static str,
        argument: Option<&str>,
    ) -> Result<Self, FormatError> {
        let argument = argument
            .filter(|argument| !argument.is_empty())
            .ok_or(FormatError::NeedsArgument(operator))?;
        let mut parts = argument.split(':');
        let namespace = parts.next().unwrap_or_default();
        Ok(MetadataPath {
            namespace: namespace.into(),
            keys: parts.map(Into::into).collect(),
        })
    }

    pub(super) fn json(&self, record: &Record<'_>) -> Option<serde_json::Value> {
        let of_request = record
            .state
            .and_then(|state| self.find(state.metadata.get(&self.namespace)?));
        of_request.or_else(|| {
            let of_connection = record.connection.state.metadata.borrow();
            self.find(of_connection.get(&self.namespace)?)
        })
    }

    fn find(
        &self,
        object: &serde_json::Map<String, serde_json::Value>,
    ) -> Option<serde_json::Value> {
        let Some((first, rest)) = self.keys.split_first() else {
            return Some(serde_json::Value::Object(object.clone()));
        };
        let first = object.get(&**first)?;
        rest.iter()
            .try_fold(first, |value, key| value.get(&**key))
            .cloned()
    }

    /// Text is written as it is, everything else as JSON.
    pub(super) fn write(&self, record: &Record<'_>, out: &mut Vec<u8>) -> bool {
        let shown = self.json(record).and_then(|value| match value {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some(text),
            value => Some(value.to_string()),
        });
        written(shown, out)
    }
}

fn written(shown: Option<String>, out: &mut Vec<u8>) -> bool {
    shown.is_some_and(|text| {
        visible(text.as_bytes(), out);
        true
    })
}
