//! `path_config_source`: a file with a `DiscoveryResponse` in YAML or JSON.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrider_xds::ads::ResourceType;
use outrider_xds::ads::server::{ResourceSet, Resources, Versioned};
use outrider_xds::pb::envoy::service::discovery::v3::DiscoveryResponse;
use outrider_xds::transcode::{self, json_to_proto, yaml_to_value};
use prost::Message as _;
use tokio::sync::watch;

use super::watch::{FileWatcher, WatchedFiles};
use crate::discovery::local::{self, Events, Feed};

/// The message that the file holds.
const RESPONSE: &str = "envoy.service.discovery.v3.DiscoveryResponse";

/// Why a file gives no resources.
#[derive(Debug, thiserror::Error)]
pub enum PathSourceError {
    /// It cannot be read.
    #[error("cannot read it: {0}")]
    Read(#[from] std::io::Error),
    /// It is neither YAML nor JSON.
    #[error(transparent)]
    Yaml(#[from] transcode::YamlError),
    /// It is no `DiscoveryResponse`.
    #[error("it is no {RESPONSE}: {0}")]
    Response(#[from] transcode::Error),
    /// What was made of it cannot be read back.
    #[error("it is no {RESPONSE}: {0}")]
    Decode(#[from] prost::DecodeError),
    /// A resource of a kind that discovery does not have.
    #[error("resources[{index}]: {type_url} is no kind of resource that can be discovered")]
    Kind {
        /// Its place, from 0.
        index: usize,
        /// Its type.
        type_url: String,
    },
    /// Two resources of one kind have one name.
    #[error("resources[{index}]: there is a {kind} {name:?} already")]
    Duplicate {
        /// Its place, from 0.
        index: usize,
        /// Its kind.
        kind: ResourceType,
        /// Its name.
        name: String,
    },
}

/// Gives what the handle asks for of the file at `path` to `events`, under the key `origin`, now and
/// when the file changes. A file that cannot be used is logged, and what it gave before stays. Of
/// `watched_directory` any change counts too.
pub fn attach(
    watcher: &FileWatcher,
    origin: usize,
    path: &Path,
    watched_directory: Option<&Path>,
    events: Events,
) -> local::Handle {
    let (handle, feed) = local::feed(origin, events, &[]);
    // The file seen through the directory, so that a link that is replaced there is noticed.
    let within = watched_directory.zip(path.file_name());
    let within = within.map(|(directory, name)| directory.join(name));
    let files = watcher.files([path.to_owned()].into_iter().chain(within));
    tokio::spawn(run(feed, path.to_owned(), files));
    handle
}

async fn run(feed: Feed, path: PathBuf, mut files: WatchedFiles) {
    // Before there is a good file, nothing is said not to exist.
    let first = loop {
        if let Some(set) = load(&path) {
            break set;
        }
        tokio::select! {
            () = files.changed() => {}
            () = feed.abandoned() => return,
        }
    };
    let (sender, resources) = watch::channel(Arc::new(first));
    tokio::spawn(feed.run(resources));
    loop {
        tokio::select! {
            () = files.changed() => {}
            () = sender.closed() => return,
        }
        if let Some(set) = load(&path) {
            sender.send_replace(Arc::new(set));
        }
    }
}

fn load(path: &Path) -> Option<ResourceSet> {
    read(path)
        .inspect_err(|error| {
            tracing::warn!(
                path = %path.display(),
                "the file of a path_config_source cannot be used: {error}; what it gave before stays"
            );
        })
        .ok()
}

fn read(path: &Path) -> Result<ResourceSet, PathSourceError> {
    let text = std::fs::read_to_string(path)?;
    let bytes = json_to_proto(RESPONSE, &yaml_to_value(&text)?)?;
    let response = DiscoveryResponse::decode(bytes.as_slice())?;
    let mut kinds: BTreeMap<ResourceType, Resources> = BTreeMap::new();
    for (index, body) in response.resources.into_iter().enumerate() {
        let kind = ResourceType::of_type_url(&body.type_url).ok_or_else(|| {
            let type_url = body.type_url.clone();
            PathSourceError::Kind { index, type_url }
        })?;
        let Named { name } = Named::decode(body.value.as_slice())?;
        let resource = Versioned::encoded(kind, &body.value);
        let resources = kinds.entry(kind).or_default();
        if resources.insert(name.clone(), resource).is_some() {
            return Err(PathSourceError::Duplicate { index, kind, name });
        }
    }
    let set = ResourceSet::new(response.version_info);
    Ok(kinds.into_iter().fold(set, |set, (kind, resources)| {
        set.with(kind, Arc::new(resources))
    }))
}

/// What all kinds of resources have in common: field 1 is the name.
#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use outrider_xds::ads::client::{Event, Subscription, Update};
    use tokio::sync::mpsc;

    use super::*;

    fn response(secrets: &[(&str, &str)]) -> String {
        let mut text = "version_info: '1'\nresources:\n".to_owned();
        for (name, root) in secrets {
            text.push_str(&format!(
                "- '@type': {}\n  name: {name}\n  validation_context: {{trusted_ca: {{inline_string: {root}}}}}\n",
                ResourceType::Secret.type_url(),
            ));
        }
        text
    }

    #[test]
    fn bad_files_are_refused_with_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sds.yaml");
        let listener = "[{'@type': type.googleapis.com/envoy.config.core.v3.Address}]";
        for (text, expected) in [
            (
                response(&[("a", "x"), ("a", "y")]),
                "resources[1]: there is a secret \"a\" already",
            ),
            (format!("resources: {listener}"), "resources[0]: "),
            ("resource: []".to_owned(), "resource: no such field"),
            ("a: [".to_owned(), ""),
        ] {
            fs::write(&path, &text).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        fs::remove_file(&path).unwrap();
        assert!(
            read(&path)
                .unwrap_err()
                .to_string()
                .starts_with("cannot read it: No such file")
        );
    }

    async fn update(events: &mut mpsc::Receiver<(usize, Event)>) -> Update {
        let event = tokio::time::timeout(Duration::from_secs(10), events.recv()).await;
        match event {
            Ok(Some((3, Event::Update(update)))) => update,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_file_is_a_source_that_follows_its_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sds.yaml");
        let (events, mut receiver) = mpsc::channel(4);
        let handle = attach(&FileWatcher::new(), 3, &path, None, events);
        handle.set_subscription(ResourceType::Secret, Subscription::named(["a", "b"]));
        // The file comes later; then all is told, also what does not exist.
        fs::write(&path, response(&[("a", "one"), ("c", "one")])).unwrap();
        let first = update(&mut receiver).await;
        assert_eq!((first.added[0].name.as_str(), first.added.len()), ("a", 1));
        assert_eq!(
            (first.removed, first.version.as_str()),
            (vec!["b".to_owned()], "1")
        );
        // A bad file changes nothing; the next good one tells what is different.
        fs::write(&path, "{").unwrap();
        fs::write(&path, response(&[("a", "one"), ("b", "two")])).unwrap();
        let second = update(&mut receiver).await;
        assert_eq!(
            (second.added[0].name.as_str(), second.added.len()),
            ("b", 1)
        );
    }
}
