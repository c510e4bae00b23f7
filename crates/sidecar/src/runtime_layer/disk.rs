//! Follows the directories of disk layers.

use super::layers::{Directory, LayerKind, LayerSource};
use super::store::Runtime;
use crate::discovery::files::FileWatcher;

/// Puts the layers into the runtime, and follows their directories from then on. A directory that
/// cannot be read is logged: the layer is empty at first, and later as it was before.
pub fn start(runtime: &'static Runtime, sources: Vec<LayerSource>, watcher: &FileWatcher) {
    load(runtime, &sources);
    for LayerSource { name, kind } in sources {
        if let LayerKind::Disk(directory) = kind {
            tokio::spawn(follow(runtime, name, directory, watcher.clone()));
        }
    }
}

/// Puts the layers into the runtime as they are now.
pub fn load(runtime: &Runtime, sources: &[LayerSource]) {
    let layers = sources.iter().map(|source| {
        source.load().unwrap_or_else(|error| {
            tracing::warn!(
                layer = source.name,
                "a layer of the runtime cannot be read: {error}"
            );
            runtime.failed();
            super::store::Layer {
                name: source.name.clone(),
                ..Default::default()
            }
        })
    });
    runtime.set_layers(layers.collect());
}

async fn follow(runtime: &Runtime, name: String, directory: Directory, watcher: FileWatcher) {
    loop {
        // The folder of the link, and what is below it now.
        let mut folders = vec![directory.path.clone(), directory.root.clone()];
        folders.extend(directory.root.parent().map(ToOwned::to_owned));
        let mut changes = watcher.files(folders);
        changes.stirred().await;
        let outcome = match directory.load() {
            Ok(values) => runtime.replace(&name, values),
            Err(error) => {
                tracing::warn!(
                    layer = name,
                    "a layer of the runtime cannot be read: {error}; it stays as it was"
                );
                runtime.failed();
                continue;
            }
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "a layer of the runtime cannot be replaced");
        }
    }
}
