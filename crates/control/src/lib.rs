//! Outrider's control plane: a registry of documents, the mesh that they describe, its translation
//! to xDS for each proxy, the server of it, and the certificate authority's service.
//!
//! In the order of the data's way: [`registry`], [`mesh`], [`translate`], [`push`], [`serve`].

pub mod authenticate;
pub mod kubernetes;
pub mod mesh;
pub mod metrics;
pub mod push;
pub mod registry;
pub mod serve;
pub mod signing;
pub mod status;
pub mod translate;
