//! `heal --job NAME`: several runs, on one machine or many, share the canvases of one job by way of Redis.
//!
//! The run that claims a canvas checks and heals it; the others take over the result, so that each ends with a report of
//! the whole job. No canvas is requested while Redis is away, because claims of other runs are not known then.

use std::io::Write as _;
use std::time::Duration;

use super::journal::JournalRecord;
use super::worker::CanvasWorker;
use super::{CanvasResult, CanvasTask, HandledBy};
use crate::cluster::{Claim, Cluster, Job, JobError};

/// Poll interval for canvases that other runs have claimed, and for a Redis that is away.
pub(crate) const LOOK: Duration = Duration::from_millis(200);

/// Share of this process in a job.
#[derive(Debug)]
pub(crate) struct JobShare {
    pub(crate) name: String,
    job: Job,
    is_waiting: std::cell::Cell<bool>,
}

impl JobShare {
    /// Joins the job. `what`: command, options and sources, which must be the same in all runs.
    pub(crate) async fn join(cluster: &Cluster, name: &str, what: &str) -> Result<Self, JobError> {
        let job = cluster.job(name, what).await?;
        Ok(Self { name: name.to_owned(), job, is_waiting: false.into() })
    }

    /// Treats a canvas unless another run does or did. `is_last`: the canvas is not tried again, whatever the result.
    pub(crate) async fn treat(
        &self,
        worker: &CanvasWorker,
        unit: &CanvasTask,
        id: u64,
        is_last: bool,
    ) -> CanvasResult {
        let mut treated = match self.claim(worker, id).await {
            None => return CanvasResult { undone: true, ..CanvasResult::default() },
            Some(Claim::Elsewhere) => {
                return CanvasResult { by: HandledBy::NobodyYet, ..CanvasResult::default() };
            }
            Some(Claim::Done(told)) => return by_others(&told, unit),
            Some(Claim::Ours) => worker.process(unit, id).await,
        };
        if treated.undone {
            self.job.give_back(id).await;
        } else if !treated.again || is_last {
            treated.asked = worker.requests();
            self.finish(worker, id, &JournalRecord::from(&treated)).await;
        }
        // A canvas that is tried again stays claimed until then.
        treated
    }

    /// Claims a task other than a canvas, and marks it done. True if it is ours to do.
    pub(crate) async fn is_ours(&self, worker: &CanvasWorker, what: &str) -> bool {
        let id = super::digest([what].into_iter());
        let is_ours = self.claim(worker, id).await == Some(Claim::Ours);
        if is_ours {
            self.finish(worker, id, &JournalRecord::default()).await;
        }
        is_ours
    }

    /// `None`: the run was stopped while Redis was away.
    async fn claim(&self, worker: &CanvasWorker, id: u64) -> Option<Claim> {
        loop {
            if let Some(claim) = self.job.claim(id).await {
                self.is_waiting.set(false);
                return Some(claim);
            }
            if worker.stopping.get() {
                return None;
            }
            self.wait().await;
        }
    }

    async fn finish(&self, worker: &CanvasWorker, id: u64, told: &JournalRecord) {
        let Ok(told) = serde_json::to_vec(told) else { return };
        while !self.job.finish(id, &told).await && !worker.stopping.get() {
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

/// Result that another process recorded.
fn by_others(told: &[u8], unit: &CanvasTask) -> CanvasResult {
    let mut told: JournalRecord = serde_json::from_slice(told).unwrap_or_default();
    for entry in &mut told.entries {
        entry.place = unit.place;
        // The other process may know the canvas from another manifest.
        entry.manifest.clone_from(&unit.manifest.uri);
    }
    let JournalRecord { images, asked, entries } = told;
    CanvasResult { entries, images, asked, by: HandledBy::Others, ..CanvasResult::default() }
}
