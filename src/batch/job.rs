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
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(200);

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
        is_last: bool,
    ) -> CanvasResult {
        let id = unit.id();
        let mut result = match self.claim(worker, id).await {
            None => return CanvasResult { undone: true, ..CanvasResult::default() },
            Some(Claim::Elsewhere) => {
                return CanvasResult { by: HandledBy::NobodyYet, ..CanvasResult::default() };
            }
            Some(Claim::Done(record)) => {
                return match by_others(&record, unit) {
                    Ok(result) => result,
                    // Without the result the images of this canvas would be missing in the report.
                    Err(_) => worker.process(unit).await,
                };
            }
            Some(Claim::Ours) => worker.process(unit).await,
        };
        if result.undone {
            self.job.give_back(id).await;
        } else if !result.again || is_last {
            result.asked = worker.requests();
            self.finish(worker, id, &JournalRecord::from(&result)).await;
        }
        // A canvas that is tried again stays claimed until then.
        result
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

    async fn finish(&self, worker: &CanvasWorker, id: u64, record: &JournalRecord) {
        let Ok(record) = serde_json::to_vec(record) else { return };
        while !self.job.finish(id, &record).await && !worker.stopping.get() {
            self.wait().await;
        }
    }

    async fn wait(&self) {
        if !self.is_waiting.replace(true) {
            let text = "Redis is away: the job waits, because what others do cannot be known";
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Result that another process recorded.
fn by_others(record: &[u8], unit: &CanvasTask) -> Result<CanvasResult, serde_json::Error> {
    let mut record: JournalRecord = serde_json::from_slice(record)?;
    for entry in &mut record.entries {
        entry.place = unit.place;
        // The other process may know the canvas from another manifest.
        entry.manifest.clone_from(&unit.manifest.uri);
    }
    let JournalRecord { images, asked, entries } = record;
    Ok(CanvasResult { entries, images, asked, by: HandledBy::Others, ..CanvasResult::default() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::batch::ManifestRef;

    #[test]
    fn a_record_that_cannot_be_read_is_an_error_and_not_a_canvas_without_images() {
        let manifest = Arc::new(ManifestRef { uri: String::new(), label: None });
        let unit =
            CanvasTask { manifest, canvas: None, label: None, images: Vec::new(), lacks: None, place: 7 };
        assert_eq!(by_others(br#"{"n":3,"r":2}"#, &unit).expect("a record").images, 3);
        for unreadable in ["", "[]", r#"{"n":"three"}"#, r#"{"n":1,"e":[{}]}"#] {
            by_others(unreadable.as_bytes(), &unit).expect_err(unreadable);
        }
    }
}
