//! Exchange between the indexes of a cluster: a stream of what each node learned, and editions of the whole index.

pub mod follower;
pub mod publisher;
pub(crate) mod snapshot;
