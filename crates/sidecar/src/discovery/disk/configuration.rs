//! The last accepted configuration, every resource as it came.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use outrider_xds::ads::ResourceType;
use prost::Message as _;
use tokio::time::Instant;

use super::StateFolder;
use crate::discovery::manager::Incoming;

/// Its file.
const FILE: &str = "configuration";
/// How long changes are gathered before they are written.
const GATHER: Duration = Duration::from_secs(1);
/// How long it may be put off because something is not complete yet.
const INCOMPLETE: Duration = Duration::from_secs(10);

/// The content of the file.
#[derive(Clone, PartialEq, prost::Message)]
struct Content {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<Resource>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    version: String,
    #[prost(bytes = "vec", tag = "4")]
    body: Vec<u8>,
}

/// What was on disk.
pub type Saved = BTreeMap<(ResourceType, Arc<str>), Incoming>;

/// Keeps the copy on disk up to date.
pub struct DiskCopy {
    folder: StateFolder,
    kept: Saved,
    /// When what has changed is to be written, and since when it is unwritten.
    due: Option<(Instant, Instant)>,
}

impl DiskCopy {
    /// The copy in `folder`, and what is there already. A file that cannot be used is left alone,
    /// which is logged.
    pub fn open(folder: StateFolder) -> (Self, Saved) {
        let saved = match folder.read(FILE) {
            Ok(Some(bytes)) => decode(&bytes),
            Ok(None) => Ok(Saved::new()),
            Err(error) => Err(error.to_string()),
        };
        let saved = saved.unwrap_or_else(|reason| {
            tracing::warn!(
                file = %folder.path().join(FILE).display(),
                reason,
                "the configuration on disk is not used"
            );
            Saved::new()
        });
        let copy = DiskCopy {
            folder,
            kept: Saved::new(),
            due: None,
        };
        (copy, saved)
    }

    /// A resource that was on disk is in force.
    pub fn restored(&mut self, kind: ResourceType, incoming: Incoming) {
        self.kept.insert((kind, incoming.name.clone()), incoming);
    }

    /// Names and versions of all that it has: what a server need not send again.
    pub fn versions(&self) -> Vec<(ResourceType, String, String)> {
        let versions = self.kept.iter().map(|((kind, name), incoming)| {
            (*kind, name.to_string(), incoming.version.to_string())
        });
        versions.collect()
    }

    /// A resource was accepted.
    pub fn accepted(&mut self, kind: ResourceType, incoming: &Incoming, now: Instant) {
        let key = (kind, incoming.name.clone());
        let same =
            |kept: &Incoming| kept.version == incoming.version && kept.bytes == incoming.bytes;
        if !self.kept.get(&key).is_some_and(same) {
            self.kept.insert(key, incoming.clone());
            self.changed(now);
        }
    }

    /// A resource is gone.
    pub fn removed(&mut self, kind: ResourceType, name: &Arc<str>, now: Instant) {
        if self.kept.remove(&(kind, name.clone())).is_some() {
            self.changed(now);
        }
    }

    fn changed(&mut self, now: Instant) {
        self.due.get_or_insert((now + GATHER, now));
    }

    /// When [`DiskCopy::save`] is to be called.
    pub fn due(&self) -> Option<Instant> {
        self.due.map(|(due, _)| due)
    }

    /// Writes it, if that is due. `complete`: nothing that is in it waits for something else, or else
    /// it is put off for a while. `in_use`: whether something refers to a resource.
    pub fn save(
        &mut self,
        now: Instant,
        complete: bool,
        in_use: impl Fn(ResourceType, &Arc<str>) -> bool,
    ) {
        let Some((due, since)) = self.due.filter(|(due, _)| *due <= now) else {
            return;
        };
        if !complete && now < since + INCOMPLETE {
            self.due = Some((due + GATHER, since));
            return;
        }
        self.due = None;
        self.kept.retain(|(kind, name), _| in_use(*kind, name));
        if let Err(error) = self.folder.write(FILE, &encode(&self.kept)) {
            tracing::error!(
                folder = %self.folder.path().display(),
                %error,
                "cannot write the configuration; trying again with the next change"
            );
        }
    }
}

fn encode(kept: &Saved) -> Vec<u8> {
    let resources = kept.iter().map(|((kind, name), incoming)| Resource {
        type_url: kind.type_url().to_owned(),
        name: name.to_string(),
        version: incoming.version.to_string(),
        body: incoming.bytes.to_vec(),
    });
    let content = Content {
        resources: resources.collect(),
    };
    content.encode_to_vec()
}

fn decode(bytes: &[u8]) -> Result<Saved, String> {
    let content = Content::decode(bytes).map_err(|error| error.to_string())?;
    let resources = content.resources.into_iter().map(|resource| {
        let kind = ResourceType::of_type_url(&resource.type_url)
            .ok_or_else(|| format!("it has a resource of the type {}", resource.type_url))?;
        let name: Arc<str> = resource.name.into();
        let incoming = Incoming {
            name: name.clone(),
            version: resource.version.into(),
            bytes: resource.body.into(),
            fixed: false,
        };
        Ok(((kind, name), incoming))
    });
    resources.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incoming(name: &str, version: &str) -> Incoming {
        Incoming {
            name: name.into(),
            version: version.into(),
            bytes: version.as_bytes().into(),
            fixed: false,
        }
    }

    #[test]
    fn changes_are_gathered_and_written_when_all_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::new(folder.path(), "me");
        let (mut copy, saved) = DiskCopy::open(state.clone());
        assert!(saved.is_empty() && copy.due().is_none());
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let all = |_: ResourceType, _: &Arc<str>| true;
        let on_disk = || {
            let saved = DiskCopy::open(state.clone()).1;
            let text = |incoming: Incoming| format!("{}={}", incoming.name, incoming.version);
            saved.into_values().map(text).collect::<Vec<_>>().join(" ")
        };

        copy.accepted(ResourceType::Cluster, &incoming("a", "1"), start);
        copy.accepted(ResourceType::Route, &incoming("r", "1"), at(0));
        assert_eq!(copy.due(), Some(at(1)));
        copy.save(start, true, all);
        assert_eq!(on_disk(), "", "not due");
        copy.save(at(1), false, all);
        assert_eq!((on_disk().as_str(), copy.due()), ("", Some(at(2))));
        copy.save(at(2), true, all);
        assert_eq!((on_disk().as_str(), copy.due()), ("a=1 r=1", None));

        copy.accepted(ResourceType::Cluster, &incoming("a", "1"), at(3));
        assert_eq!(copy.due(), None, "the same");
        copy.accepted(ResourceType::Cluster, &incoming("a", "2"), at(3));
        copy.save(at(13), false, |kind, _| kind != ResourceType::Route);
        assert_eq!(
            on_disk(),
            "a=2",
            "not put off for ever; without what is not in use"
        );
        copy.removed(ResourceType::Cluster, &"a".into(), at(14));
        copy.save(at(15), true, all);
        assert_eq!(on_disk(), "");
    }
}
