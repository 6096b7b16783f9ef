//! Heals the broken images of one canvas: politely, with limits, and verified.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::Interval;

use super::check::{self, CheckedImage, with_timeout};
use super::journal::Journal;
use super::manifest_pages::ManifestsInWork;
use super::{CanvasResult, CanvasTask, ImageResult, ImageVerdict};
use crate::heal::{CanvasVisit, FILE_GONE, Healer, ImageCheck, ImageHealResult, IndexedImage};

/// Mode of a run: how far it goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum RunMode {
    /// Probe only.
    #[default]
    Look,
    /// Probe, and report the requests that would be sent.
    Tell,
    /// Heal broken images.
    Mend,
    /// Request every canvas.
    MendAll,
}

/// Plan of a run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RunPlan {
    pub(crate) aim: RunMode,
    /// True if a small tile of every image is probed, too.
    pub(crate) tiles: bool,
    /// Maximum of canvas requests.
    pub(crate) limit: Option<u64>,
    /// True if whole manifests may be requested. Not where canvases are counted.
    pub(crate) books: bool,
}

/// Heals canvases, many at once in one task.
#[derive(Debug)]
pub(crate) struct CanvasWorker {
    pub(crate) healer: Healer,
    pub(crate) plan: RunPlan,
    /// Canvases in work at once: a few more than there are lanes, so that each lane is taken again as soon as it is free,
    /// but not so many that they queue when the service asks for a pause.
    pub(crate) places: Semaphore,
    /// The pace of canvas requests.
    pub(crate) pace: Option<tokio::sync::Mutex<Interval>>,
    pub(crate) journal: RefCell<Journal>,
    /// Time after which a service that only fails is given up.
    pub(crate) patience: Duration,
    /// True if no further canvas may be requested.
    pub(crate) stopping: Cell<bool>,
    pub(crate) begun: Cell<u64>,
    /// Since when nothing went well.
    pub(crate) stalled: Cell<Option<Instant>>,
    pub(crate) broken_journal: RefCell<Option<String>>,
    pub(crate) books: ManifestsInWork,
    /// Requests to canvas services that are counted already.
    pub(crate) reported_requests: Cell<u64>,
}

/// Reason why a canvas may not be requested now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SkipReason {
    Limit,
    Stopping,
    GivenUp,
}

impl SkipReason {
    fn reason(self) -> &'static str {
        match self {
            Self::Limit => "not asked for: --limit is reached",
            Self::Stopping => "not asked for: stopped before",
            Self::GivenUp => "not asked for: the canvas service does nothing but fail; --resume tries again",
        }
    }
}

/// Poll interval during a pause.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

impl CanvasWorker {
    /// Probes one canvas and heals it.
    pub(crate) async fn process(&self, unit: &CanvasTask) -> CanvasResult {
        let looked = check::unit(&self.healer, unit, self.plan.tiles).await;
        let mut result = CanvasResult {
            images: u64::try_from(looked.len()).unwrap_or(0),
            alive: looked
                .iter()
                .find(|one| one.verdict == ImageVerdict::Ok)
                .and_then(|one| one.indexed.clone()),
            ..CanvasResult::default()
        };
        if self.plan.aim == RunMode::MendAll && unit.canvas.is_some() {
            self.visit(unit, looked, &mut result).await;
            return result;
        }
        let is_gone = looked.iter().any(|one| one.verdict == ImageVerdict::Expired);
        self.books.page_seen(&unit.manifest.uri, is_gone);
        let mut hopeless: Option<String> = None;
        for one in looked {
            let mut entry = unit.entry(&one.image, one.verdict, one.reason.clone());
            match one.verdict {
                ImageVerdict::Ok if self.journal.borrow().was_in_flight(unit.id()) => {
                    entry.before = ImageVerdict::Expired;
                    entry.after = Some(ImageVerdict::Ok);
                    entry.reason = Some("asked for by a run that was interrupted".to_owned());
                }
                ImageVerdict::Ok => continue,
                // The image may be well or not: a canvas built beside harms nothing, and brings it back.
                ImageVerdict::Error if one.is_hidden && self.plan.aim == RunMode::Mend => {
                    self.mend(unit, one, &mut entry, &mut result).await;
                }
                ImageVerdict::Missing | ImageVerdict::Error => {}
                ImageVerdict::Expired | ImageVerdict::Poisoned if self.plan.aim == RunMode::Look => {}
                ImageVerdict::Expired | ImageVerdict::Poisoned if self.plan.aim == RunMode::Tell => {
                    let canvas = unit.canvas.as_deref().unwrap_or("its canvas, which the index tells");
                    entry.reason = Some(format!("would ask for {canvas}"));
                }
                // The canvas was just requested in vain: its further images are no reason to request it again.
                ImageVerdict::Expired if hopeless.is_some() => entry.reason.clone_from(&hopeless),
                ImageVerdict::Expired | ImageVerdict::Poisoned => {
                    self.mend(unit, one, &mut entry, &mut result).await;
                    if entry.now() != ImageVerdict::Ok {
                        hopeless.clone_from(&entry.reason);
                    }
                }
            }
            result.entries.push(entry);
        }
        result
    }

    async fn mend(
        &self,
        unit: &CanvasTask,
        one: CheckedImage,
        entry: &mut ImageResult,
        result: &mut CanvasResult,
    ) {
        let Some(image) = one.indexed else { return };
        let _place = self.places.acquire().await;
        if let Err(skipped) = self.wait_for_permit(unit, result).await {
            return Self::skip_reason(skipped, entry, result);
        }
        if one.verdict == ImageVerdict::Poisoned {
            let canvas = unit.canvas.as_deref().unwrap_or_default();
            let cured = self.healer.repair_canvas(&image, canvas).await;
            entry.after = Some(if cured { ImageVerdict::Ok } else { ImageVerdict::Poisoned });
            entry.rung = cured.then(|| "rebuild".to_owned());
            return;
        }
        if self.is_healed_by_book(unit, &image, entry).await {
            return;
        }
        let image = self.healer.with_owners(&image);
        let mended = loop {
            let mended = self.healer.heal_image(&image).await;
            if !mended.was_withheld {
                break mended;
            }
            // Other requests try the service now; this one waits for their result.
            tokio::time::sleep(POLL_INTERVAL).await;
            if let Err(skipped) = self.wait_retry_after().await {
                return Self::skip_reason(skipped, entry, result);
            }
        };
        result.again |= mended.passing;
        entry.duration_ms = u64::try_from(mended.took.as_millis()).ok();
        entry.reason = mended.reason;
        entry.after = Some(match mended.ending {
            ImageHealResult::Healed(_) | ImageHealResult::Alive => self.verify(&image, entry).await,
            ImageHealResult::Missing => ImageVerdict::Missing,
            ImageHealResult::Failed => ImageVerdict::Expired,
            ImageHealResult::Poisoned => ImageVerdict::Poisoned,
        });
        if let ImageHealResult::Healed(rung) = mended.ending {
            entry.rung = Some(rung.as_str().to_owned());
        }
        if mended.was_poisoned && entry.now() == ImageVerdict::Ok {
            entry.reason = Some("its canvas was poisoned, and is cured".to_owned());
        }
        if !mended.passing {
            self.stalled.set(None);
        }
    }

    /// True if the image is back because the whole manifest was built beside.
    async fn is_healed_by_book(
        &self,
        unit: &CanvasTask,
        image: &IndexedImage,
        entry: &mut ImageResult,
    ) -> bool {
        let began = Instant::now();
        let is_back = self.plan.books
            && unit.canvas.is_some()
            && self.books.heal(&self.healer, &unit.manifest.uri, image).await
            && with_timeout(&self.healer, image, self.plan.tiles).await == ImageCheck::Alive;
        if is_back {
            self.stalled.set(None);
            entry.duration_ms = u64::try_from(began.elapsed().as_millis()).ok();
            (entry.after, entry.reason) = (Some(ImageVerdict::Ok), None);
            entry.rung = Some("variant".to_owned());
        }
        is_back
    }

    /// Requests to canvas services since the last call.
    pub(crate) fn requests(&self) -> u64 {
        let sent = self.healer.requests_sent();
        sent - self.reported_requests.replace(sent)
    }

    /// Verifies a heal: the ladder found the image back; with `--tiles` the tile decides.
    async fn verify(&self, indexed: &IndexedImage, entry: &mut ImageResult) -> ImageVerdict {
        if !self.plan.tiles {
            return ImageVerdict::Ok;
        }
        match with_timeout(&self.healer, indexed, true).await {
            ImageCheck::Alive => ImageVerdict::Ok,
            ImageCheck::Expired => {
                entry.reason = Some("its canvas was asked for, and the image did not come back".to_owned());
                ImageVerdict::Expired
            }
            ImageCheck::Missing => {
                entry.reason = Some(FILE_GONE.to_owned());
                ImageVerdict::Missing
            }
            ImageCheck::Unwell(why) | ImageCheck::Hidden(why) => {
                entry.reason = Some(why);
                ImageVerdict::Error
            }
        }
    }

    /// `--all`: requests the canvas whatever state its images are in, as the old script did.
    async fn visit(&self, unit: &CanvasTask, looked: Vec<CheckedImage>, result: &mut CanvasResult) {
        let canvas = unit.canvas.as_deref().unwrap_or_default();
        let first = looked.iter().find_map(|one| one.indexed.clone());
        let place = self.places.acquire().await;
        let visited = match (&first, self.wait_for_permit(unit, result).await) {
            (_, Err(skipped)) => {
                for one in looked {
                    let mut entry = unit.entry(&one.image, one.verdict, None);
                    Self::skip_reason(skipped, &mut entry, result);
                    result.entries.push(entry);
                }
                return;
            }
            (Some(indexed), Ok(())) => self.visited(indexed, canvas).await,
            (None, Ok(())) => {
                CanvasVisit::Failed { reason: "no image of it is known".to_owned(), passing: false }
            }
        };
        drop(place);
        let cured = match (&visited, &first) {
            (CanvasVisit::Poisoned, Some(indexed)) => self.healer.repair_canvas(indexed, canvas).await,
            _ => false,
        };
        for one in looked {
            let mut entry = unit.entry(&one.image, one.verdict, one.reason.clone());
            match &visited {
                CanvasVisit::Failed { reason, passing } => {
                    result.again |= *passing;
                    entry.after =
                        Some(if one.verdict == ImageVerdict::Ok { ImageVerdict::Error } else { one.verdict });
                    entry.reason = Some(reason.clone());
                }
                CanvasVisit::Poisoned if one.verdict == ImageVerdict::Ok => {
                    entry.before = ImageVerdict::Poisoned;
                    entry.after = Some(if cured { ImageVerdict::Ok } else { ImageVerdict::Poisoned });
                    entry.reason = Some("its canvas came back without images".to_owned());
                }
                CanvasVisit::Good if one.verdict == ImageVerdict::Ok => continue,
                CanvasVisit::Good | CanvasVisit::Poisoned => {
                    self.visited_image(unit, one, &mut entry, result).await;
                }
            }
            result.entries.push(entry);
        }
    }

    async fn visited(&self, image: &IndexedImage, canvas: &str) -> CanvasVisit {
        let visited = self.healer.visit_canvas(image, canvas).await;
        if !matches!(visited, CanvasVisit::Failed { passing: true, .. }) {
            self.stalled.set(None);
        }
        visited
    }

    /// Checks after a request for the canvas whether the image is back, and if not, runs the rest of the ladder.
    async fn visited_image(
        &self,
        unit: &CanvasTask,
        one: CheckedImage,
        entry: &mut ImageResult,
        result: &mut CanvasResult,
    ) {
        let Some(image) = &one.indexed else { return };
        match with_timeout(&self.healer, image, self.plan.tiles).await {
            ImageCheck::Alive => {
                entry.after = Some(ImageVerdict::Ok);
                entry.rung = Some("visit".to_owned());
                entry.reason = None;
            }
            ImageCheck::Expired if one.verdict == ImageVerdict::Expired => {
                self.mend(unit, one, entry, result).await;
            }
            _ => entry.after = Some(one.verdict),
        }
    }

    fn skip_reason(skipped: SkipReason, entry: &mut ImageResult, result: &mut CanvasResult) {
        // Images left out by `--limit` are no promise; after an interruption the rest is undone.
        result.undone |= skipped != SkipReason::Limit;
        entry.reason = Some(skipped.reason().to_owned());
    }

    /// Waits until this canvas may be requested, and writes the request to the journal.
    async fn wait_for_permit(&self, unit: &CanvasTask, result: &mut CanvasResult) -> Result<(), SkipReason> {
        if result.is_begun {
            return Ok(());
        }
        if self.plan.limit.is_some_and(|limit| self.begun.get() >= limit) {
            return Err(SkipReason::Limit);
        }
        self.begun.set(self.begun.get() + 1);
        let passed = self.pass(unit.id()).await;
        if passed.is_err() {
            self.begun.set(self.begun.get().saturating_sub(1));
        }
        result.is_begun = passed.is_ok();
        passed
    }

    async fn pass(&self, id: u64) -> Result<(), SkipReason> {
        self.wait_retry_after().await?;
        if let Some(pace) = &self.pace {
            pace.lock().await.tick().await;
        }
        if self.stopping.get() {
            return Err(SkipReason::Stopping);
        }
        // A request that cannot be recorded would be repeated by the next run: without the journal none is made.
        if let Err(error) = self.journal.borrow_mut().asking(id) {
            *self.broken_journal.borrow_mut() = Some(error.to_string());
            self.stopping.set(true);
            return Err(SkipReason::Stopping);
        }
        Ok(())
    }

    /// Waits until the canvas service accepts requests.
    async fn wait_retry_after(&self) -> Result<(), SkipReason> {
        loop {
            if self.stopping.get() {
                return Err(SkipReason::Stopping);
            }
            let Some(rest) = self.healer.retry_after() else { return Ok(()) };
            let since = self.stalled.get().unwrap_or_else(Instant::now);
            self.stalled.set(Some(since));
            if since.elapsed() + rest.saturating_sub(POLL_INTERVAL) > self.patience {
                return Err(SkipReason::GivenUp);
            }
            tokio::time::sleep(rest.min(POLL_INTERVAL).mul_f64(0.5 + fastrand::f64())).await;
        }
    }
}
