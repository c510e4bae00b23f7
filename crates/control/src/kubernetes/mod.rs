//! What the control plane does with the API server of a cluster beside reading its registry: elect
//! a leader, and (the leader) keep what the mesh needs in the cluster as it should be.

mod election;
pub mod lease;
pub mod owner;

pub use lease::{Leadership, LeaseOptions};
pub use owner::Owner;
