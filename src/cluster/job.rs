//! Jobs that several processes share, unit by unit: the process that claims a unit does it, and publishes the result.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::interval;

use super::Cluster;
use super::link::{RedisLink, millis};
use super::scripts::{CLAIM, FINISH, OPEN, RENEW_CLAIMS};

/// Claims kept by one command: few, so that it ends within `command_timeout`.
const AT_ONCE: usize = 100;

/// Part of this process in a job. A claimed unit stays claimed until it is finished, or until one lease after this process
/// is gone.
#[derive(Debug)]
pub struct Job {
    link: Arc<RedisLink>,
    about: String,
    token: String,
    claims: Arc<Mutex<HashSet<u64>>>,
    renewing: AbortHandle,
}

/// Result of claiming a unit.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// Claimed by this process.
    Ours,
    /// Done already, with this result.
    Done(Vec<u8>),
    /// Claimed by another process.
    Elsewhere,
}

/// Errors of joining a job.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// Redis is away.
    #[error("Redis cannot be reached, and without it no job can be shared; see [cluster] url")]
    Alone,
    /// The name is taken.
    #[error("the job {0} is of another run ({1}): take another name, or the same command and sources")]
    Other(String, String),
}

impl Cluster {
    /// Joins the job of this name, which does `what`; waits a while for Redis.
    pub async fn job(&self, name: &str, what: &str) -> Result<Job, JobError> {
        let link = &self.link;
        let mut joined = link.changes();
        let patience = link.settings.connect_timeout * 3;
        let _ = tokio::time::timeout(patience, joined.wait_for(|joined| *joined)).await;
        let about = super::about(name);
        let mut open = OPEN.key(link.key(&about, "job"));
        open.arg(what).arg(millis(link.settings.jobs));
        let other: String = link.run(&open).await.ok_or(JobError::Alone)?;
        if !other.is_empty() {
            return Err(JobError::Other(name.to_owned(), other));
        }
        let (token, claims) = (link.token(), Arc::<Mutex<HashSet<u64>>>::default());
        let renewing = renew(Arc::clone(link), about.clone(), token.clone(), Arc::clone(&claims));
        let renewing = tokio::spawn(renewing).abort_handle();
        Ok(Job { link: Arc::clone(link), about, token, claims, renewing })
    }
}

impl Job {
    /// Claims a unit; `None`: Redis is away.
    pub async fn claim(&self, unit: u64) -> Option<Claim> {
        let mut ask = CLAIM.key(self.done());
        ask.key(claim_key(&self.link, &self.about, unit));
        ask.arg(format!("{unit:016x}")).arg(&self.token).arg(self.link.lease_ms());
        let (state, rest) = self.link.run::<(String, Vec<u8>)>(&ask).await?;
        Some(match state.as_str() {
            "ours" => {
                self.claims.lock().insert(unit);
                Claim::Ours
            }
            "done" => Claim::Done(rest),
            _ => Claim::Elsewhere,
        })
    }

    /// Publishes the result of a unit that this process claimed. False: Redis is away, and the result is not stored yet.
    pub async fn finish(&self, unit: u64, came_of_it: &[u8]) -> bool {
        let mut finish = FINISH.key(self.done());
        finish.key(claim_key(&self.link, &self.about, unit)).key(self.link.key(&self.about, "job"));
        finish.arg(format!("{unit:016x}")).arg(&self.token).arg(came_of_it);
        finish.arg(millis(self.link.settings.jobs));
        let told = self.link.run::<i64>(&finish).await.is_some();
        if told {
            self.claims.lock().remove(&unit);
        }
        told
    }

    /// Gives a unit back that was not done. Where Redis is away, its lease ends.
    pub async fn give_back(&self, unit: u64) {
        self.claims.lock().remove(&unit);
        self.finish(unit, b"").await;
    }

    fn done(&self) -> String {
        self.link.key(&self.about, "done")
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

async fn renew(link: Arc<RedisLink>, about: String, token: String, claims: Arc<Mutex<HashSet<u64>>>) {
    let mut every = interval(link.settings.lease / 3);
    loop {
        every.tick().await;
        let units: Vec<u64> = claims.lock().iter().copied().collect();
        for some in units.chunks(AT_ONCE) {
            let mut keep = RENEW_CLAIMS.prepare_invoke();
            // A claim whose unit was finished since the last renewal must not be written again.
            for unit in some.iter().filter(|unit| claims.lock().contains(unit)) {
                keep.key(claim_key(&link, &about, *unit));
            }
            keep.arg(&token).arg(link.lease_ms());
            if link.run::<i64>(&keep).await.is_none() {
                break;
            }
        }
    }
}

fn claim_key(link: &RedisLink, about: &str, unit: u64) -> String {
    link.key(about, &format!("claim:{unit:016x}"))
}
