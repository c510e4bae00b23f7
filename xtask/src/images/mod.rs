//! Images, written without a container registry or a container program.

pub(crate) mod oci;

pub(crate) use oci::{Entry, ImageConfig, write};
