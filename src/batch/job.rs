//! `heal --job NAME`: several runs, on one machine or many, share the canvases of one job by way of Redis.
//!
//! The run that claims a canvas checks and heals it; the others take over the result, so that each ends with a report
//! of the whole job. Nothing is asked for while Redis is away: what others do cannot be known then.

use std::io::Write as _;
use std::time::Duration;

use super::journal::Told;
use super::mend::Surgeon;
use super::{By, Treated, Unit};
use crate::cluster::{Claim, Cluster, Job, JobError};

/// How soon is asked again for what others are at, and for a Redis that is away.
pub(crate) const LOOK: Duration = Duration::from_millis(200);

/// This process's share of a job.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) name: String,
    job: Job,
    is_waiting: std::cell::Cell<bool>,
}

impl Share {
    /// Joins the job. `what`: command, options and sources, which must be the same in all runs.
    pub(crate) async fn join(cluster: &Cluster, name: &str, what: &str) -> Result<Self, JobError> {
        let job = cluster.job(name, what).await?;
        Ok(Self { name: name.to_owned(), job, is_waiting: false.into() })
    }

    /// Treats a canvas if nobody else does or did. `is_last`: it is not tried again, whatever comes of it.
    pub(crate) async fn treat(&self, surgeon: &Surgeon, unit: &Unit, id: u64, is_last: bool) -> Treated {
        let mut treated = match self.claim(surgeon, id).await {
            None => return Treated { undone: true, ..Treated::default() },
            Some(Claim::Elsewhere) => return Treated { by: By::NobodyYet, ..Treated::default() },
            Some(Claim::Done(told)) => return by_others(&told, unit),
            Some(Claim::Ours) => surgeon.treat(unit, id).await,
        };
        if treated.undone {
            self.job.give_back(id).await;
        } else if !treated.again || is_last {
            treated.asked = surgeon.requests();
            self.finish(surgeon, id, &Told::from(&treated)).await;
        }
        // What is tried again stays claimed meanwhile.
        treated
    }

    /// Is something else than a canvas ours to be done? It is nobody's afterwards.
    pub(crate) async fn is_ours(&self, surgeon: &Surgeon, what: &str) -> bool {
        let id = super::digest([what].into_iter());
        let is_ours = self.claim(surgeon, id).await == Some(Claim::Ours);
        if is_ours {
            self.finish(surgeon, id, &Told::default()).await;
        }
        is_ours
    }

    /// `None`: the run was stopped while Redis was away.
    async fn claim(&self, surgeon: &Surgeon, id: u64) -> Option<Claim> {
        loop {
            if let Some(claim) = self.job.claim(id).await {
                self.is_waiting.set(false);
                return Some(claim);
            }
            if surgeon.stopping.get() {
                return None;
            }
            self.wait().await;
        }
    }

    async fn finish(&self, surgeon: &Surgeon, id: u64, told: &Told) {
        let Ok(told) = serde_json::to_vec(told) else { return };
        while !self.job.finish(id, &told).await && !surgeon.stopping.get() {
            self.wait().await;
        }
    }

    async fn wait(&self) {
        if !self.is_waiting.replace(true) {
            let text = "Redis is away: the job waits, because what others do cannot be known";
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What another process did.
fn by_others(told: &[u8], unit: &Unit) -> Treated {
    let mut told: Told = serde_json::from_slice(told).unwrap_or_default();
    told.entries.iter_mut().for_each(|entry| entry.place = unit.place);
    let Told { images, asked, entries } = told;
    Treated { entries, images, asked, by: By::Others, ..Treated::default() }
}
