//! Mends what is broken on one canvas: politely, not for ever, and verified.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::Interval;

use super::books::Books;
use super::check::{self, Looked, patiently};
use super::journal::Journal;
use super::{Entry, Treated, Unit, Verdict};
use crate::heal::{CanvasVisit, Healer, ImageCheck, ImageHealResult, IndexedImage};

/// How far a run goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Aim {
    /// Look.
    #[default]
    Look,
    /// Look, and tell what would be asked for.
    Tell,
    /// Mend what is broken.
    Mend,
    /// Ask for every canvas.
    MendAll,
}

/// What a run is to do.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Plan {
    pub(crate) aim: Aim,
    /// Look at a small tile of every image, too.
    pub(crate) tiles: bool,
    /// Canvases asked for at most.
    pub(crate) limit: Option<u64>,
    /// Whole manifests may be asked for. Not where canvases are counted.
    pub(crate) books: bool,
}

/// Mends canvases, many at once in one task.
#[derive(Debug)]
pub(crate) struct Surgeon {
    pub(crate) healer: Healer,
    pub(crate) plan: Plan,
    /// Canvases in work at once: a few more than there are lanes, so that each lane is taken again as soon as it is
    /// free, but not so many that they stand in a queue when the service asks for a pause.
    pub(crate) places: Semaphore,
    /// The pace of canvas requests.
    pub(crate) pace: Option<tokio::sync::Mutex<Interval>>,
    pub(crate) journal: RefCell<Journal>,
    /// A service that does nothing but fail for so long is given up.
    pub(crate) patience: Duration,
    /// Nothing new is to be asked for.
    pub(crate) stopping: Cell<bool>,
    pub(crate) begun: Cell<u64>,
    /// Since when nothing went well.
    pub(crate) stalled: Cell<Option<Instant>>,
    pub(crate) broken_journal: RefCell<Option<String>>,
    pub(crate) books: Books,
    /// Requests to canvas services that were told of already.
    pub(crate) told: Cell<u64>,
}

/// Why a canvas may not be asked for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Barred {
    Limit,
    Stopping,
    GivenUp,
}

impl Barred {
    fn reason(self) -> &'static str {
        match self {
            Self::Limit => "not asked for: --limit is reached",
            Self::Stopping => "not asked for: stopped before",
            Self::GivenUp => "not asked for: the canvas service does nothing but fail; --resume tries again",
        }
    }
}

/// How often a pause is looked at.
const LOOK: Duration = Duration::from_millis(100);

impl Surgeon {
    /// Looks at one canvas and mends it.
    pub(crate) async fn treat(&self, unit: &Unit, id: u64) -> Treated {
        let looked = check::unit(&self.healer, unit, self.plan.tiles).await;
        let mut treated = Treated {
            images: u64::try_from(looked.len()).unwrap_or(0),
            alive: looked.iter().find(|one| one.verdict == Verdict::Ok).and_then(|one| one.patient.clone()),
            ..Treated::default()
        };
        if self.plan.aim == Aim::MendAll && unit.canvas.is_some() {
            self.visit(unit, id, looked, &mut treated).await;
            return treated;
        }
        let is_gone = looked.iter().any(|one| one.verdict == Verdict::Expired);
        self.books.page_seen(&unit.manifest.uri, is_gone);
        let mut hopeless: Option<String> = None;
        for one in looked {
            let mut entry = unit.entry(&one.image, one.verdict, one.reason.clone());
            match one.verdict {
                Verdict::Ok if self.journal.borrow().was_in_flight(id) => {
                    entry.before = Verdict::Expired;
                    entry.after = Some(Verdict::Ok);
                    entry.reason = Some("asked for by a run that was interrupted".to_owned());
                }
                Verdict::Ok => continue,
                // It may be well or not: what is built beside harms nothing, and brings it back.
                Verdict::Error if one.is_hidden && self.plan.aim == Aim::Mend => {
                    self.mend(unit, id, one, &mut entry, &mut treated).await;
                }
                Verdict::Missing | Verdict::Error => {}
                Verdict::Expired | Verdict::Poisoned if self.plan.aim == Aim::Look => {}
                Verdict::Expired | Verdict::Poisoned if self.plan.aim == Aim::Tell => {
                    let canvas = unit.canvas.as_deref().unwrap_or("its canvas, which the index tells");
                    entry.reason = Some(format!("would ask for {canvas}"));
                }
                // The canvas was just asked for, in vain: it is not asked for again because it has more images.
                Verdict::Expired if hopeless.is_some() => entry.reason.clone_from(&hopeless),
                Verdict::Expired | Verdict::Poisoned => {
                    self.mend(unit, id, one, &mut entry, &mut treated).await;
                    if entry.now() != Verdict::Ok {
                        hopeless.clone_from(&entry.reason);
                    }
                }
            }
            treated.entries.push(entry);
        }
        treated
    }

    async fn mend(&self, unit: &Unit, id: u64, one: Looked, entry: &mut Entry, treated: &mut Treated) {
        let Some(patient) = one.patient else { return };
        let _place = self.places.acquire().await;
        if let Err(barred) = self.gate(id, treated).await {
            return Self::bar(barred, entry, treated);
        }
        if one.verdict == Verdict::Poisoned {
            let canvas = unit.canvas.as_deref().unwrap_or_default();
            let cured = self.healer.cure(&patient, canvas).await;
            entry.after = Some(if cured { Verdict::Ok } else { Verdict::Poisoned });
            entry.rung = cured.then(|| "rebuild".to_owned());
            return;
        }
        if self.is_healed_by_book(unit, &patient, entry).await {
            return;
        }
        let patient = self.healer.with_owners(&patient);
        let mended = loop {
            let mended = self.healer.mend(&patient).await;
            if !mended.was_withheld {
                break mended;
            }
            // Others try the service now; this one waits for what comes of it.
            tokio::time::sleep(LOOK).await;
            if let Err(barred) = self.rested().await {
                return Self::bar(barred, entry, treated);
            }
        };
        treated.again |= mended.passing;
        entry.duration_ms = u64::try_from(mended.took.as_millis()).ok();
        entry.reason = mended.reason;
        entry.after = Some(match mended.ending {
            ImageHealResult::Healed(_) | ImageHealResult::Alive => self.verify(&patient, entry).await,
            ImageHealResult::Missing => Verdict::Missing,
            ImageHealResult::Failed => Verdict::Expired,
            ImageHealResult::Poisoned => Verdict::Poisoned,
        });
        if let ImageHealResult::Healed(rung) = mended.ending {
            entry.rung = Some(rung.as_str().to_owned());
        }
        if mended.was_poisoned && entry.now() == Verdict::Ok {
            entry.reason = Some("its canvas was poisoned, and is cured".to_owned());
        }
        if !mended.passing {
            self.stalled.set(None);
        }
    }

    /// Is the image back, because the whole manifest was built beside?
    async fn is_healed_by_book(&self, unit: &Unit, patient: &IndexedImage, entry: &mut Entry) -> bool {
        let began = Instant::now();
        let is_back = self.plan.books
            && unit.canvas.is_some()
            && self.books.heal(&self.healer, &unit.manifest.uri, patient).await
            && patiently(&self.healer, patient, self.plan.tiles).await == ImageCheck::Alive;
        if is_back {
            self.stalled.set(None);
            entry.duration_ms = u64::try_from(began.elapsed().as_millis()).ok();
            (entry.after, entry.reason) = (Some(Verdict::Ok), None);
            entry.rung = Some("variant".to_owned());
        }
        is_back
    }

    /// Requests to canvas services since this was last asked.
    pub(crate) fn requests(&self) -> u64 {
        let sent = self.healer.requests_sent();
        sent - self.told.replace(sent)
    }

    /// The ladder has seen it back; where tiles are looked at, the tile has the last word.
    async fn verify(&self, patient: &IndexedImage, entry: &mut Entry) -> Verdict {
        if !self.plan.tiles {
            return Verdict::Ok;
        }
        match patiently(&self.healer, patient, true).await {
            ImageCheck::Alive => Verdict::Ok,
            ImageCheck::Expired => {
                entry.reason = Some("its canvas was asked for, and the image did not come back".to_owned());
                Verdict::Expired
            }
            ImageCheck::Missing => {
                entry.reason = Some("the file itself is gone".to_owned());
                Verdict::Missing
            }
            ImageCheck::Unwell(why) | ImageCheck::Hidden(why) => {
                entry.reason = Some(why);
                Verdict::Error
            }
        }
    }

    /// `--all`: asks for the canvas whatever state its images are in, as the old script did.
    async fn visit(&self, unit: &Unit, id: u64, looked: Vec<Looked>, treated: &mut Treated) {
        let canvas = unit.canvas.as_deref().unwrap_or_default();
        let first = looked.iter().find_map(|one| one.patient.clone());
        let place = self.places.acquire().await;
        let visited = match (&first, self.gate(id, treated).await) {
            (_, Err(barred)) => {
                for one in looked {
                    let mut entry = unit.entry(&one.image, one.verdict, None);
                    Self::bar(barred, &mut entry, treated);
                    treated.entries.push(entry);
                }
                return;
            }
            (Some(patient), Ok(())) => self.visited(patient, canvas).await,
            (None, Ok(())) => {
                CanvasVisit::Failed { reason: "no image of it is known".to_owned(), passing: false }
            }
        };
        drop(place);
        let cured = match (&visited, &first) {
            (CanvasVisit::Poisoned, Some(patient)) => self.healer.cure(patient, canvas).await,
            _ => false,
        };
        for one in looked {
            let mut entry = unit.entry(&one.image, one.verdict, one.reason.clone());
            match &visited {
                CanvasVisit::Failed { reason, passing } => {
                    treated.again |= *passing;
                    entry.after = Some(if one.verdict == Verdict::Ok { Verdict::Error } else { one.verdict });
                    entry.reason = Some(reason.clone());
                }
                CanvasVisit::Poisoned if one.verdict == Verdict::Ok => {
                    entry.before = Verdict::Poisoned;
                    entry.after = Some(if cured { Verdict::Ok } else { Verdict::Poisoned });
                    entry.reason = Some("its canvas came back without images".to_owned());
                }
                CanvasVisit::Good if one.verdict == Verdict::Ok => continue,
                CanvasVisit::Good | CanvasVisit::Poisoned => {
                    self.visited_image(unit, id, one, &mut entry, treated).await;
                }
            }
            treated.entries.push(entry);
        }
    }

    async fn visited(&self, patient: &IndexedImage, canvas: &str) -> CanvasVisit {
        let visited = self.healer.visit(patient, canvas).await;
        if !matches!(visited, CanvasVisit::Failed { passing: true, .. }) {
            self.stalled.set(None);
        }
        visited
    }

    /// The canvas was asked for: is its image back, and if not, does the rest of the ladder help?
    async fn visited_image(
        &self,
        unit: &Unit,
        id: u64,
        one: Looked,
        entry: &mut Entry,
        treated: &mut Treated,
    ) {
        let Some(patient) = &one.patient else { return };
        match patiently(&self.healer, patient, self.plan.tiles).await {
            ImageCheck::Alive => {
                entry.after = Some(Verdict::Ok);
                entry.rung = Some("visit".to_owned());
                entry.reason = None;
            }
            ImageCheck::Expired if one.verdict == Verdict::Expired => {
                self.mend(unit, id, one, entry, treated).await;
            }
            _ => entry.after = Some(one.verdict),
        }
    }

    fn bar(barred: Barred, entry: &mut Entry, treated: &mut Treated) {
        // What --limit leaves out was not promised; what was stopped is to be gone on with.
        treated.undone |= barred != Barred::Limit;
        entry.reason = Some(barred.reason().to_owned());
    }

    /// May this canvas be asked for now? Waits for its turn, and writes down that it is asked for.
    async fn gate(&self, id: u64, treated: &mut Treated) -> Result<(), Barred> {
        if treated.is_begun {
            return Ok(());
        }
        if self.plan.limit.is_some_and(|limit| self.begun.get() >= limit) {
            return Err(Barred::Limit);
        }
        self.begun.set(self.begun.get() + 1);
        let passed = self.pass(id).await;
        if passed.is_err() {
            self.begun.set(self.begun.get().saturating_sub(1));
        }
        treated.is_begun = passed.is_ok();
        passed
    }

    async fn pass(&self, id: u64) -> Result<(), Barred> {
        self.rested().await?;
        if let Some(pace) = &self.pace {
            pace.lock().await.tick().await;
        }
        if self.stopping.get() {
            return Err(Barred::Stopping);
        }
        // Without a journal nothing is asked: what cannot be written down would be asked twice.
        if let Err(error) = self.journal.borrow_mut().asking(id) {
            *self.broken_journal.borrow_mut() = Some(error.to_string());
            self.stopping.set(true);
            return Err(Barred::Stopping);
        }
        Ok(())
    }

    /// Waits until the canvas service may be asked.
    async fn rested(&self) -> Result<(), Barred> {
        loop {
            if self.stopping.get() {
                return Err(Barred::Stopping);
            }
            let Some(rest) = self.healer.rest() else { return Ok(()) };
            let since = self.stalled.get().unwrap_or_else(Instant::now);
            self.stalled.set(Some(since));
            if since.elapsed() + rest.saturating_sub(LOOK) > self.patience {
                return Err(Barred::GivenUp);
            }
            tokio::time::sleep(rest.min(LOOK).mul_f64(0.5 + fastrand::f64())).await;
        }
    }
}
