//! Outrider's control plane: a registry of documents, the mesh that they describe, its translation
//! to xDS for each proxy, the server of it, and the certificate authority's service.

pub mod mesh;
pub mod registry;
pub mod translate;
