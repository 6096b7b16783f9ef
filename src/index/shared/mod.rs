//! Exchange between the indexes of a cluster: a stream of learned entries, and editions of the whole index.

pub mod follower;
pub mod publisher;
pub(crate) mod snapshot;
