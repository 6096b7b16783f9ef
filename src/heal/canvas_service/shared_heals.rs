//! Shared heals: how this node is one of a fleet.

use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::heal::timed_cache::TimedCache;

/// Clients that began too many heals on all nodes together, remembered at most.
const CLIENTS: u64 = 10_000;

/// `SharedHeals` is this node's part in the fleet, if it has one.
#[derive(Debug)]
pub(in crate::heal) struct SharedHeals {
    pub(in crate::heal) cluster: Option<Arc<Cluster>>,
    pub(in crate::heal) demoted: TimedCache<IpAddr>,
}

/// `Freshness` decides whether a flight that ended a moment ago on another node is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum Freshness {
    /// A flight that landed a moment ago is enough: it is about the same expiry.
    OrLanded,
    /// No: something has happened since.
    Anew,
}

impl SharedHeals {
    pub(in crate::heal) fn new(cluster: Option<Arc<Cluster>>) -> Self {
        Self { cluster, demoted: TimedCache::new(CLIENTS) }
    }

    pub(in crate::heal) fn connected(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref().filter(|cluster| cluster.is_joined())
    }
}
