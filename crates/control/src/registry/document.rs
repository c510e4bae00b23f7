//! From the text of a file to checked objects.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_norway::Deserializer;

use super::{Object, RegistryError, Source};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

type Decode = fn(Deserializer<'_>) -> Result<Object, serde_norway::Error>;

fn decode<T: DeserializeOwned>(
    deserializer: Deserializer<'_>,
    wrap: fn(T) -> Object,
) -> Result<Object, serde_norway::Error> {
    T::deserialize(deserializer).map(wrap)
}

/// The kinds, each with how it is read.
const KINDS: &[(&str, &str, Decode)] = &[
    ("v1", "Service", |document| {
        decode(document, Object::Service)
    }),
    ("v1", "ServiceAccount", |document| {
        decode(document, Object::ServiceAccount)
    }),
    ("v1", "Namespace", |document| {
        decode(document, Object::Namespace)
    }),
    ("discovery.k8s.io/v1", "EndpointSlice", |document| {
        decode(document, Object::EndpointSlice)
    }),
    ("gateway.networking.k8s.io/v1", "HTTPRoute", |document| {
        decode(document, Object::HttpRoute)
    }),
    ("gateway.networking.k8s.io/v1", "GRPCRoute", |document| {
        decode(document, Object::GrpcRoute)
    }),
    ("gateway.networking.k8s.io/v1", "TLSRoute", |document| {
        decode(document, Object::TlsRoute)
    }),
    ("gateway.networking.k8s.io/v1", "TCPRoute", |document| {
        decode(document, Object::TcpRoute)
    }),
    ("outrider.dev/v1alpha1", "WorkloadEntry", |document| {
        decode(document, Object::WorkloadEntry)
    }),
    ("outrider.dev/v1alpha1", "PeerAuthentication", |document| {
        decode(document, Object::PeerAuthentication)
    }),
];

/// Reads every document of a file (YAML, or JSON, which is YAML).
///
/// # Errors
/// The first thing wrong, with its document and field.
pub fn parse(file: &Arc<PathBuf>, text: &str) -> Result<Vec<(Source, Object)>, RegistryError> {
    let mut objects = Vec::new();
    let mut seen = HashMap::new();
    for document in documents(file, text) {
        let (at, object) = document?;
        let reference = object.reference();
        if let Some(other) = seen.insert(reference.clone(), at.clone()) {
            return Err(RegistryError::Duplicate {
                at,
                object: reference,
                other,
            });
        }
        objects.push((at, object));
    }
    Ok(objects)
}

/// Reads every document of a file by itself: what is wrong with one says nothing of the others.
/// But one that is not YAML, or no map of fields, is the last: it has no end.
pub fn documents(
    file: &Arc<PathBuf>,
    text: &str,
) -> impl Iterator<Item = Result<(Source, Object), RegistryError>> {
    // Twice over the text: the header alone says which type to read the document as, and reading
    // from the text (not from a tree) is what puts field paths and lines into the errors.
    let headers = Deserializer::from_str(text);
    let pairs = headers.zip(Deserializer::from_str(text)).enumerate();
    let mut ended = false;
    let documents = pairs.map_while(move |(index, (header, body))| {
        if ended {
            return None;
        }
        let at = Source::File {
            file: Arc::clone(file),
            document: index + 1,
        };
        let shape = |error: serde_norway::Error| RegistryError::Shape {
            at: at.clone(),
            detail: error.to_string(),
        };
        // Nothing between two separators is no document.
        let object = match Option::<Header>::deserialize(header) {
            Ok(header) => header.map(|header| read(&at, header, body)),
            Err(error) => {
                ended = true;
                Some(Err(shape(error)))
            }
        };
        Some(object.map(|object| object.map(|object| (at, object))))
    });
    documents.flatten()
}

fn read(at: &Source, header: Header, body: Deserializer<'_>) -> Result<Object, RegistryError> {
    let known = |(version, kind, _): &&(&str, &str, Decode)| {
        *version == header.api_version && *kind == header.kind
    };
    let Some((_, _, decode)) = KINDS.iter().find(known) else {
        return Err(unknown_kind(at.clone(), header));
    };
    let object = decode(body).map_err(|error| RegistryError::Shape {
        at: at.clone(),
        detail: error.to_string(),
    })?;
    let limit = || object.limits().into_iter().next();
    if let Some(error) = object.validate().err().or_else(limit) {
        return Err(RegistryError::Field {
            at: at.clone(),
            object: Box::new(object.reference()),
            error,
        });
    }
    Ok(object)
}

fn unknown_kind(at: Source, header: Header) -> RegistryError {
    let known: Vec<String> = KINDS
        .iter()
        .map(|(version, kind, _)| format!("{kind} ({version})"))
        .collect();
    RegistryError::UnknownKind {
        at,
        api_version: header.api_version,
        kind: header.kind,
        known: known.join(", "),
    }
}
