//! Poison that a viewer meets: a manifest or canvas that lacks images which the index knows. Rebuilt while he waits.
//!
//! UPSTREAM: while info.json fails, a canvas comes back 200 without its image, a presentation 200 with fewer canvases, and
//! both are cached; only `update=true` on that same URL cures it, and only after the fault ended. During the fault a
//! rebuild makes it worse (upstream.md "Poison"). So nothing is rebuilt before the service has shown, by registering
//! one of the missing images, that its own way to the image server works: that touches no document.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use tokio::time::timeout;

use super::Healer;
use super::fleet::Wanted;
use super::flight::Flights;
use super::lacking::Lacking;
use super::lanes::Lane;
use super::memory::RungOf;
use super::mended::Mended;
use super::rebuild::Health;
use super::register::register_path;
use super::service::{CanvasAnswer, CanvasService};
use super::timed_cache::TimedCache;
use super::truth::Said;
use super::urgency::Urgency;
use super::ward::{Patient, Ward};
use crate::config::settings::Rung;
use crate::iiif::manifest::{self, Canvas, Document};
use crate::iiif::{CanvasUrl, IdentifierKind, identifier};
use crate::observe::{Gauged, Trace};

/// Documents that are mended or waited for at once at most.
const MENDS: usize = 1_000;

/// Missing images of one document that are looked at: one that is there is enough to rebuild it for.
const LOOKED_AT: usize = 3;

/// Rebuilds of one document at most that brought it back whole and yet did not last: duplicates hide.
const REBUILDS: usize = 3;

/// How often a service that is not well is looked at behind the viewers' backs; with the pauses about half an hour.
const LOOKS: usize = 40;

const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// How long it is believed that a document has really become shorter.
pub(super) const BELIEVED: Duration = Duration::from_hours(24);

/// Documents of which that is remembered at most.
const TRUTHS: u64 = 10_000;

/// A document that lacks images which the index knows.
#[derive(Debug, Clone)]
pub struct Poisoned {
    /// Position of its presentation route in `settings.routes`.
    pub route: usize,
    /// The [mark](crate::config::settings::Route::mark) of that route.
    pub mark: u64,
    /// Path and query as they go upstream.
    pub target: String,
    /// Its public URL, as the index knows it.
    pub name: String,
    /// Lookup keys of the images that it lacks.
    pub missing: Vec<String>,
    /// Tells what it carries, see [`fingerprint`].
    pub carries: u64,
    /// Who asks.
    pub trace: Trace,
}

/// How it ended for one viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mending {
    /// It is whole again: ask once more.
    Whole(Duration),
    /// It has really become shorter.
    Truth,
    /// It goes on, or waits for the service to be well.
    Pending,
    /// It did not help a short while ago.
    Cooling,
    /// It did not help.
    Failed,
    /// Nothing is rebuilt here.
    Off,
}

/// Would the service's nested request for this image be answered?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nested {
    /// The service itself has just shown it.
    Proven,
    /// Nothing speaks against it.
    Likely,
    /// The file of this image is gone.
    Gone,
    Unwell,
}

/// What is being mended, and what was found out.
#[derive(Debug)]
pub(super) struct Mends {
    flights: Flights<RungOf, Mended>,
    chased: Flights<RungOf, ()>,
    pub(super) truths: TimedCache<RungOf, u64>,
    pub(super) lacking: Lacking,
}

impl Default for Mends {
    fn default() -> Self {
        let truths = TimedCache::new(TRUTHS);
        Self { flights: Flights::here(), chased: Flights::here(), truths, lacking: Lacking::default() }
    }
}

/// What a document carries, in one number.
pub fn fingerprint(canvases: &[Canvas]) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    for canvas in canvases {
        canvas.images.hash(&mut hasher);
    }
    hasher.finish()
}

impl Healer {
    /// Has the document rebuilt if that can help and do no harm; waits for it at most `heal.wait`.
    pub async fn mend_document(&self, poisoned: Poisoned) -> Mending {
        let (ward, started) = (&self.ward, Instant::now());
        let heal = &ward.settings.heal;
        let key = poisoned.rebuild();
        if ward.mends.truths.get(&key) == Some(poisoned.carries) {
            return Mending::Truth;
        }
        ward.mends.lacking.note(poisoned.lacks(), true);
        if !heal.enabled || !heal.ladder.contains(&Rung::Rebuild) || ward.service(poisoned.route).is_none() {
            return Mending::Off;
        }
        if ward.memory.cooling(&key, started).is_some() {
            return Mending::Cooling;
        }
        if ward.mends.flights.len() >= MENDS {
            return Mending::Pending;
        }
        let Some(_waiting) = ward.wait_place() else { return Mending::Pending };
        let _counted = Gauged::one(&ward.metrics.waiting);
        ward.metrics.event("poison_seen");
        let poisoned = Arc::new(poisoned);
        let mended = timeout(heal.wait, ward.mended(&key, &poisoned, Lane::Viewer)).await;
        match mended {
            Ok(Mended::Shorter(carries)) if carries == poisoned.carries => Mending::Truth,
            // Or shorter than the index knew, and yet longer than what the viewer has.
            Ok(Mended::Whole | Mended::Shorter(_)) => Mending::Whole(started.elapsed()),
            Ok(Mended::Failed) => Mending::Failed,
            Ok(Mended::Unwell) => {
                ward.chase(key, poisoned);
                Mending::Pending
            }
            Err(_) => Mending::Pending,
        }
    }
}

impl Poisoned {
    fn rebuild(&self) -> RungOf {
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&*self.target, None),
        };
        let url = CanvasUrl { scheme: "http", authority: "", path, query };
        RungOf { service: self.mark, target: url.rebuild().into(), rung: Rung::Rebuild }
    }

    fn lacks(&self) -> impl Iterator<Item = &str> {
        self.missing.iter().map(String::as_str)
    }

    fn visit(&self) -> RungOf {
        RungOf { service: self.mark, target: self.target.as_str().into(), rung: Rung::Visit }
    }
}

impl Ward {
    /// One try for all who wait for this document.
    async fn mended(self: &Arc<Self>, key: &RungOf, poisoned: &Arc<Poisoned>, lane: Lane) -> Mended {
        let mut seat = self.mends.flights.board(key, lane, |urgency| {
            let (ward, key, poisoned) = (Arc::clone(self), key.clone(), Arc::clone(poisoned));
            async move { ward.mend_in_the_fleet(&key, &poisoned, &urgency).await }
        });
        let mended = seat.landed().await.unwrap_or(Mended::Failed);
        if matches!(mended, Mended::Whole | Mended::Shorter(_)) {
            self.mends.lacking.note(poisoned.lacks(), false);
        }
        mended
    }

    /// Tries again until the service is well, for nobody in particular. A viewer who comes meanwhile has a try of
    /// his own, so nobody waits for the next look.
    fn chase(self: &Arc<Self>, key: RungOf, poisoned: Arc<Poisoned>) {
        if self.mends.chased.len() >= MENDS {
            self.metrics.event("cure_refused");
            return;
        }
        self.mends.chased.board(&key.clone(), Lane::Sweep, |_| {
            let ward = Arc::clone(self);
            async move {
                let mut pause = FIRST_PAUSE;
                for _ in 0..LOOKS {
                    tokio::time::sleep(pause.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
                    if ward.mended(&key, &poisoned, Lane::Sweep).await != Mended::Unwell {
                        return;
                    }
                    pause = (pause * 2).min(ward.settings.heal.backoff_max);
                }
            }
        });
    }

    pub(super) async fn try_to_mend(
        self: &Arc<Self>,
        key: &RungOf,
        poisoned: &Poisoned,
        urgency: &Arc<Urgency>,
    ) -> Mended {
        let boarded = Instant::now();
        let Some(service) = self.service(poisoned.route).cloned() else { return Mended::Failed };
        let (patient, nested) = match self.first_that_is_there(&service, poisoned, urgency).await {
            Ok(Some(found)) => found,
            // Every file is gone: the document tells the truth, and a rebuild could only tell it once more.
            Ok(None) => {
                self.mends.truths.insert(key.clone(), poisoned.carries, BELIEVED);
                return Mended::Shorter(poisoned.carries);
            }
            Err(unwell) => return unwell,
        };
        let mended = self.rebuild_document(&service, key, poisoned, &patient, nested, urgency).await;
        match mended {
            Mended::Whole | Mended::Shorter(_) => self.memory.succeeded(key, boarded, Instant::now()),
            Mended::Unwell | Mended::Failed => self.rung_failed(&service, key, boarded),
        }
        match mended {
            Mended::Whole => self.metrics.event("cured"),
            Mended::Shorter(_) => self.metrics.event("poison_refuted"),
            Mended::Unwell | Mended::Failed => self.metrics.event("cure_failed"),
        }
        tracing::info!(request = %poisoned.trace, document = %poisoned.target, ended = ?mended, "a document lacked images that the index knows");
        mended
    }

    /// The first missing image whose file is there, and how surely the service can ask for it. `Err`: not now.
    async fn first_that_is_there(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        poisoned: &Poisoned,
        urgency: &Arc<Urgency>,
    ) -> Result<Option<(Patient, Nested)>, Mended> {
        let Some(route) = self.image_route() else {
            return Err(Mended::Failed);
        };
        let mut all_gone = false;
        for key in poisoned.missing.iter().take(LOOKED_AT) {
            let Some(patient) = self.patient(route, key, &poisoned.trace) else { continue };
            match self.nested(service, &patient, urgency).await {
                Nested::Gone => all_gone = true,
                Nested::Unwell => {
                    self.metrics.event("rebuild_withheld");
                    return Err(Mended::Unwell);
                }
                nested => return Ok(Some((patient, nested))),
            }
        }
        if all_gone { Ok(None) } else { Err(Mended::Failed) }
    }

    async fn nested(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        patient: &Patient,
        urgency: &Arc<Urgency>,
    ) -> Nested {
        let said = self.ask(patient).await;
        let is_alive = matches!(said, Said::Alive(_));
        if is_alive && self.is_gone_for_good(patient).await {
            return Nested::Gone;
        }
        let health = self.health(service, patient).await;
        if health == Health::Unwell || is_alive && health != Health::Well {
            return Nested::Unwell;
        }
        let file = match (said, &patient.kind) {
            (Said::Alive(url), _) if !url.is_empty() => Some(url),
            (_, IdentifierKind::Uuid { uuid, .. }) => self.file_url(*uuid),
            _ => None,
        };
        let Some(path) = file.as_deref().and_then(register_path) else {
            let is_well = health == Health::Well || service.wellness.is_well();
            return if is_well { Nested::Likely } else { Nested::Unwell };
        };
        let flight = RungOf { service: service.mark, target: path.into(), rung: Rung::Register };
        let answer = self.fly(service, &flight, patient, urgency, Wanted::Anew).landed().await;
        if answer == Some(CanvasAnswer::Carries) {
            return Nested::Proven;
        }
        // To register writes the key first; where nothing is behind it, the file is gone.
        let is_registered = matches!(self.ask(patient).await, Said::Alive(_));
        if is_registered && self.is_gone_for_good(patient).await { Nested::Gone } else { Nested::Unwell }
    }

    /// The service knows where its file is, and the image server finds nothing there.
    async fn is_gone_for_good(&self, patient: &Patient) -> bool {
        let tile = self.look_at(patient, super::climb::SMALL_TILE).await;
        tile.is_ok_and(|status| self.is_expiry(status))
    }

    async fn rebuild_document(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        key: &RungOf,
        poisoned: &Poisoned,
        patient: &Patient,
        nested: Nested,
        urgency: &Arc<Urgency>,
    ) -> Mended {
        let visit = poisoned.visit();
        for _ in 0..REBUILDS {
            // A plain GET first: somebody else may have cured it, and a good document is never rebuilt.
            match self.document(service, &visit, patient, urgency).await {
                Some((_, canvases)) if carries(&canvases, patient) => return Mended::Whole,
                Some(_) => {}
                None => return Mended::Unwell,
            }
            match self.document(service, key, patient, urgency).await {
                Some((_, canvases)) if carries(&canvases, patient) => {}
                Some((document, canvases)) => {
                    // A fault that began meanwhile must not be taken for the truth.
                    let still = nested == Nested::Proven
                        && self.nested(service, patient, urgency).await == Nested::Proven;
                    if !still {
                        return Mended::Failed;
                    }
                    let truth = fingerprint(&canvases);
                    self.mends.truths.insert(key.clone(), truth, BELIEVED);
                    self.believe(document, canvases, poisoned.name.clone()).await;
                    return Mended::Shorter(truth);
                }
                None => return Mended::Unwell,
            }
        }
        match self.document(service, &visit, patient, urgency).await {
            Some((_, canvases)) if carries(&canvases, patient) => Mended::Whole,
            _ => Mended::Failed,
        }
    }

    /// Asks for a document in its lane, past the breaker. `None`: there is none to read.
    async fn document(
        &self,
        service: &CanvasService,
        flight: &RungOf,
        patient: &Patient,
        urgency: &Urgency,
    ) -> Option<(Document, Vec<Canvas>)> {
        let started = Instant::now();
        let _place = service.place(urgency).await?;
        urgency.departs();
        let _counted = Gauged::one(&self.metrics.canvas_in_flight);
        let answer = match service.breaker.pass(Instant::now()) {
            Ok(()) => service.document(&flight.target, &patient.trace).await,
            Err(_) => return None,
        };
        let read = match answer {
            Ok(body) => {
                service.answers();
                tokio::task::spawn_blocking(move || manifest::read(&body).ok()).await.ok().flatten()
            }
            Err(answer) => {
                self.step_ended(flight, answer, patient, started.elapsed());
                return None;
            }
        };
        let whole = read.as_ref().is_some_and(|(_, canvases)| carries(canvases, patient));
        let answer = if whole { CanvasAnswer::Carries } else { CanvasAnswer::Lacks };
        self.step_ended(flight, answer, patient, started.elapsed());
        read
    }

    /// What a healthy service builds is the truth, although it is less than the index knew.
    async fn believe(&self, document: Document, canvases: Vec<Canvas>, name: String) {
        let index = Arc::clone(&self.index);
        let written = tokio::task::spawn_blocking(move || index.believe(&document, &canvases, &name)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "a shorter document cannot be remembered");
        }
    }
}

fn carries(canvases: &[Canvas], patient: &Patient) -> bool {
    canvases.iter().flat_map(|canvas| &canvas.images).any(|own| identifier::same_file(own, &patient.key))
}
