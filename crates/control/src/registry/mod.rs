//! The standalone registry: a directory of the YAML documents that a cluster would hold.
//!
//! A file is taken whole or not at all: while it is wrong its last good version stays in force, and
//! so does everything else. The errors name the file, the document in it and the field.

pub mod directory;
pub mod document;
mod error;
pub mod kinds;
mod object;
pub mod watch;

pub use directory::{Directory, Scan};
pub use error::{FieldError, RegistryError};
pub use object::{NamespacedName, Object, ObjectRef, Source};
