//! State that nodes behind a load balancer share by way of Redis, so that an image is healed once for all nodes. Every
//! claim on shared state expires. While Redis is away, each node goes on alone, and no request waits for Redis.
//!
//! [`Cluster::join`] takes part in a shared flight, [`Cluster::acquire`] gets a permit at a canvas service. The rest are
//! signals that expire, the stream of learned entries, editions of the index, and the jobs of `heal --job`.

mod connection;
mod edition;
mod flight;
mod job;
mod learned;
mod lease;
mod link;
mod scripts;
mod semaphore;
mod signals;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod simulated_scripts;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::AbortHandle;

pub use edition::Edition;
pub use flight::{JoinResult, SharedFlight};
pub use job::{Claim, Job, JobError};
pub use learned::{LearnedBatch, LearnedEntry};
pub use semaphore::{PermitResult, SharedPermit};
#[cfg(test)]
pub(crate) use simulated::{RedisHealth, SimulatedRedis};

use crate::config::settings::ClusterSettings as Settings;
use crate::observe::Metrics;
use link::RedisLink;

/// Handle of this node in the cluster.
#[derive(Debug)]
pub struct Cluster {
    link: Arc<RedisLink>,
    mass_expiries: watch::Receiver<u64>,
    learnings: watch::Receiver<u64>,
    editions: watch::Receiver<u64>,
    keeping: AbortHandle,
}

impl Cluster {
    /// Joins the others as soon as it can; until then it is alone. `None`: `[cluster]` names no Redis.
    pub fn start(settings: &Settings, metrics: &Arc<Metrics>) -> Option<Arc<Self>> {
        if settings.urls.is_empty() {
            return None;
        }
        let (mass, mass_expiries) = watch::channel(0);
        let (new, learnings) = watch::channel(0);
        let (published, editions) = watch::channel(0);
        let link = Arc::new_cyclic(|own: &std::sync::Weak<RedisLink>| {
            let own = own.clone();
            let on_news = move |text: &str| {
                let Some(link) = own.upgrade() else { return };
                match text.split_once(' ') {
                    Some((_, node)) if node == link.node => {}
                    Some((signals::MASS_EXPIRY, _)) => mass.send_modify(|times| *times += 1),
                    Some((learned::LEARNED, _)) => new.send_modify(|times| *times += 1),
                    Some((edition::EDITION, _)) => published.send_modify(|times| *times += 1),
                    _ => semaphore::decline(&link, text),
                }
            };
            RedisLink::new(settings.clone(), Arc::clone(metrics), Box::new(on_news))
        });
        let keeping = tokio::spawn(RedisLink::keep_connected(Arc::downgrade(&link))).abort_handle();
        Some(Arc::new(Self { link, mass_expiries, learnings, editions, keeping }))
    }

    /// True if this node is joined with the others now.
    pub fn is_joined(&self) -> bool {
        self.link.is_joined()
    }

    /// Changes whenever this node joins the others, or is alone again.
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.link.changes()
    }

    /// Receiver that changes whenever another node, from now on, finds that a mass expiry begins.
    pub fn mass_expiries(&self) -> watch::Receiver<u64> {
        let mut from_now_on = self.mass_expiries.clone();
        // A copy starts at the value that the original has seen.
        from_now_on.mark_unchanged();
        from_now_on
    }

    /// Sends a command in the background.
    fn send_in_background(&self, command: redis::Cmd) {
        if !self.link.is_joined() {
            return;
        }
        let link = Arc::clone(&self.link);
        tokio::spawn(async move { link.send::<redis::Value>(&command).await });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

/// Hash of a name, for use in a key: short, however long the name is, and without characters that mean something to Redis.
fn about(name: &str) -> String {
    blake3::hash(name.as_bytes()).to_hex()[..32].to_owned()
}
