//! What the nodes of a cluster share of their indexes: what each learned, and editions of the whole.

pub mod follower;
pub mod publisher;
pub(crate) mod snapshot;
