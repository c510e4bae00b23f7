//! `AccessLog`.

use std::path::PathBuf;
use std::sync::Arc;

use envoy_types::pb::envoy::config::accesslog::v3 as accesslog;
use envoy_types::pb::envoy::config::accesslog::v3::access_log::ConfigType;
use envoy_types::pb::envoy::config::core::v3::SubstitutionFormatString;
use envoy_types::pb::envoy::config::core::v3::substitution_format_string::Format as ProtoFormat;
use envoy_types::pb::envoy::extensions::access_loggers::file::v3 as file;
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::file_access_log::AccessLogFormat;
use envoy_types::pb::envoy::extensions::access_loggers::stream::v3 as stream;

use super::extension::{Build, Extension, decode, resolve};
use super::fields::{Together as _, Within as _, each, named, one_of, required};
use super::{access_log_filter, data_source, struct_value};
use crate::config::access_log::{AccessLog, LogSink};
use crate::config::error::{ConfigError, Result};
use crate::telemetry::access_log::format::{DEFAULT, Format, Missing};

/// Access loggers.
pub const LOGGERS: &[Extension<Build<AccessLog>>] = &[
    Extension {
        type_name: "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        build: |bytes| of_file(&decode::<file::FileAccessLog>(bytes)?),
    },
    Extension {
        type_name: "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        build: |bytes| {
            use stream::stdout_access_log::AccessLogFormat as Format;
            let proto = decode::<stream::StdoutAccessLog>(bytes)?;
            let format = proto.access_log_format.map(|Format::LogFormat(f)| f);
            of_stream(LogSink::Stdout, format)
        },
    },
    Extension {
        type_name: "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
        build: |bytes| {
            use stream::stderr_access_log::AccessLogFormat as Format;
            let proto = decode::<stream::StderrAccessLog>(bytes)?;
            let format = proto.access_log_format.map(|Format::LogFormat(f)| f);
            of_stream(LogSink::Stderr, format)
        },
    },
];

/// Extensions of the formats; what these add is always there.
const FORMATTERS: &[Extension<()>] = &[
    Extension {
        type_name: "envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery",
        build: (),
    },
    Extension {
        type_name: "envoy.extensions.formatter.metadata.v3.Metadata",
        build: (),
    },
];

/// The `access_log` field of a listener or filter.
pub fn build(proto: &[accesslog::AccessLog]) -> Result<Vec<AccessLog>> {
    each("access_log", proto, |log| {
        let built = required(&log.config_type, "typed_config").and_then(|config| {
            let ConfigType::TypedConfig(any) = config;
            let logger = resolve(LOGGERS, "access logger", any)?;
            (logger.build)(&any.value).within("typed_config")
        });
        let filter = log
            .filter
            .as_ref()
            .map(access_log_filter::build)
            .transpose();
        let (built, filter) = (built, filter.within("filter")).together()?;
        Ok(AccessLog { filter, ..built })
    })
}

fn of_file(proto: &file::FileAccessLog) -> Result<AccessLog> {
    let sink = match named(&proto.path, "path")? {
        "/dev/stdout" => LogSink::Stdout,
        "/dev/stderr" => LogSink::Stderr,
        path => LogSink::File(PathBuf::from(path)),
    };
    let format = match &proto.access_log_format {
        None => of_text(DEFAULT, Missing::Dash, "format")?,
        Some(AccessLogFormat::Format(text)) if text.is_empty() => {
            of_text(DEFAULT, Missing::Dash, "format")?
        }
        Some(AccessLogFormat::Format(text)) => of_text(text, Missing::Dash, "format")?,
        Some(AccessLogFormat::JsonFormat(json)) => of_json(json, Missing::Dash, "json_format")?,
        Some(AccessLogFormat::TypedJsonFormat(json)) => {
            of_json(json, Missing::Dash, "typed_json_format")?
        }
        Some(AccessLogFormat::LogFormat(format)) => substitution(format).within("log_format")?,
    };
    Ok(AccessLog {
        sink,
        filter: None,
        format: Arc::new(format),
    })
}

fn of_stream(sink: LogSink, format: Option<SubstitutionFormatString>) -> Result<AccessLog> {
    let format = match &format {
        None => of_text(DEFAULT, Missing::Dash, "log_format")?,
        Some(format) => substitution(format).within("log_format")?,
    };
    Ok(AccessLog {
        sink,
        filter: None,
        format: Arc::new(format),
    })
}

/// A `SubstitutionFormatString`, of a log or of any other text.
pub fn substitution(proto: &SubstitutionFormatString) -> Result<Format> {
    each("formatters", &proto.formatters, |formatter| {
        let any = required(&formatter.typed_config, "typed_config")?;
        resolve(FORMATTERS, "formatter", any).map(drop)
    })?;
    let missing = if proto.omit_empty_values {
        Missing::Nothing
    } else {
        Missing::Dash
    };
    match one_of::<SubstitutionFormatString, _>(&proto.format, "text_format")? {
        ProtoFormat::TextFormat(text) => of_text(text, missing, "text_format"),
        ProtoFormat::JsonFormat(json) => of_json(json, missing, "json_format"),
        ProtoFormat::TextFormatSource(source) => {
            let data = data_source::read_once(source).within("text_format_source")?;
            let bytes = data.map(|data| data.bytes).unwrap_or_default();
            let text = String::from_utf8(bytes)
                .map_err(|_| ConfigError::new("text_format_source", "is not UTF-8"))?;
            of_text(&text, missing, "text_format_source")
        }
    }
}

fn of_text(text: &str, missing: Missing, field: &str) -> Result<Format> {
    Format::text(text, missing).map_err(|error| ConfigError::new(field, error))
}

fn of_json(
    json: &envoy_types::pb::google::protobuf::Struct,
    missing: Missing,
    field: &str,
) -> Result<Format> {
    Format::json(&struct_value::object(json), missing)
        .map_err(|error| ConfigError::new(field, error))
}
