//! The registry: the objects that describe the mesh, from a cluster's API server or from a directory
//! of the YAML documents that a cluster would hold.
//!
//! A file of a directory, and an object of a cluster, is taken whole or not at all: while it is
//! wrong its last good version stays in force, and so does everything else. The errors name the
//! file and the document in it, or the object, and the field.

pub mod cluster;
pub mod definition;
pub mod directory;
pub mod document;
mod error;
pub mod kinds;
pub mod lenient;
mod object;
mod quiet;
pub mod watch;

pub use directory::{Directory, Scan};
pub use error::{FieldError, RegistryError};
pub use object::{NamespacedName, Object, ObjectRef, Source};
