//! From what the registry says to what proxies are told.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::mesh::{MeshBuilder, MeshSettings, MeshState, Warning};
use crate::metrics::Metrics;
use crate::push::Publisher;
use crate::registry::cluster::{Cluster, Event, Presents};
use crate::registry::watch::Watch;
use crate::registry::{Directory, RegistryError, Scan, Source};

/// Where the objects come from.
#[derive(Clone)]
pub enum RegistrySource {
    /// The YAML files of a directory.
    Directory(PathBuf),
    /// A cluster's API server.
    Cluster(kube::Client),
}

impl fmt::Debug for RegistrySource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => formatter.debug_tuple("Directory").field(path).finish(),
            Self::Cluster(_) => formatter.write_str("Cluster"),
        }
    }
}

/// The objects, followed as they change.
#[derive(Debug)]
pub(super) struct Registry {
    origin: Origin,
    assembly: Assembly,
}

#[derive(Debug)]
enum Origin {
    Directory(Directory, Watch),
    Cluster(Cluster),
}

/// The objects in force.
#[derive(Debug)]
struct Assembly {
    builder: MeshBuilder,
    presents: Arc<Presents>,
    metrics: Arc<Metrics>,
    warned: Arc<BTreeSet<Warning>>,
}

impl Registry {
    /// Reads the directory, or begins to read the cluster.
    ///
    /// # Errors
    /// The directory cannot be read or watched. A wrong file is no failure: it is logged and left
    /// out.
    pub(super) fn open(
        source: RegistrySource,
        settings: Arc<MeshSettings>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, RegistryError> {
        let mut assembly = Assembly {
            builder: MeshBuilder::new(settings),
            presents: Arc::default(),
            metrics,
            warned: Arc::default(),
        };
        let origin = match source {
            RegistrySource::Directory(path) => {
                // Watched before it is read, so that no change falls in between.
                let watch = Watch::new(&path)?;
                let mut directory = Directory::new(path);
                let scan = directory.scan()?;
                assembly.take_scan(&directory, &scan);
                Origin::Directory(directory, watch)
            }
            RegistrySource::Cluster(client) => {
                Origin::Cluster(Cluster::watch(&client, &assembly.metrics.registry))
            }
        };
        Ok(Self { origin, assembly })
    }

    /// What a cluster has of the objects that get a status.
    pub(super) fn presents(&self) -> Arc<Presents> {
        Arc::clone(&self.assembly.presents)
    }

    /// The mesh as far as it was read.
    pub(super) fn mesh(&mut self) -> MeshState {
        self.assembly.mesh()
    }

    /// Publishes every change, for ever. `synced` becomes true once everything was read.
    pub(super) async fn follow(self, publisher: Arc<Publisher>, synced: watch::Sender<bool>) {
        let mut assembly = self.assembly;
        match self.origin {
            Origin::Directory(mut directory, mut watch) => {
                synced.send_replace(true);
                loop {
                    watch.changed().await;
                    let publisher = Arc::clone(&publisher);
                    // Files and translations would hold up the streams.
                    let look = tokio::task::spawn_blocking(move || {
                        match directory.scan() {
                            Ok(scan) => assembly.take_scan(&directory, &scan),
                            Err(error) => error!("{error}; everything stays as it is"),
                        }
                        assembly.publish(&publisher);
                        (directory, assembly)
                    });
                    (directory, assembly) = match look.await {
                        Ok(both) => both,
                        Err(error) => return error!("following the directory ended: {error}"),
                    };
                }
            }
            Origin::Cluster(mut cluster) => loop {
                let events = cluster.changes().await;
                if events.is_empty() {
                    return error!("following the cluster ended");
                }
                let (publisher, is_synced) = (Arc::clone(&publisher), cluster.is_synced());
                let take = tokio::task::spawn_blocking(move || {
                    assembly.take_events(events);
                    if is_synced {
                        assembly.publish(&publisher);
                    }
                    assembly
                });
                assembly = match take.await {
                    Ok(assembly) => assembly,
                    Err(error) => return error!("following the cluster ended: {error}"),
                };
                if is_synced && !synced.send_replace(true) {
                    info!(objects = assembly.builder.len(), "read the cluster");
                }
            },
        }
    }
}

impl Assembly {
    fn take_scan(&mut self, directory: &Directory, scan: &Scan) {
        for refused in &scan.refused {
            self.metrics.refused_files.increment();
            error!("{refused}; the last good version of the file, if any, stays in force");
        }
        for path in &scan.recovered {
            info!("{} is in force again", path.display());
        }
        if scan.changed {
            self.builder.replace(directory.objects());
        }
    }

    fn take_events(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Set(object) => self.builder.set(Source::Cluster, object),
                Event::Gone(reference) => {
                    self.presents.forget(&reference);
                    self.builder.remove(&reference);
                }
                Event::Refused {
                    object,
                    generation,
                    error,
                } => {
                    let text =
                        format!("{object}: {error}; its last good version, if any, stays in force");
                    if self.builder.refuse(object, generation, error) {
                        self.metrics.refused_objects.increment();
                        error!("{text}");
                    }
                }
                Event::Present(object, present) => self.presents.see(object, present),
                Event::Synced(_) => {}
            }
        }
    }

    fn mesh(&mut self) -> MeshState {
        let mesh = self.builder.build();
        self.metrics.objects.set(self.builder.len());
        self.metrics.warnings.set(mesh.warnings.len());
        for warning in mesh.warnings.difference(&self.warned) {
            warn!("{warning}");
        }
        self.warned = Arc::clone(&mesh.warnings);
        mesh
    }

    fn publish(&mut self, publisher: &Publisher) {
        if !self.builder.is_changed() {
            return;
        }
        let before = self.builder.revision();
        let mesh = self.mesh();
        // Much of what happens in a cluster is nothing to the mesh.
        if self.builder.revision() != before {
            publisher.publish(mesh);
        }
    }
}
