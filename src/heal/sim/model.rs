//! Model of the upstream as it was measured: the state that Redis, the repository, the image server and the canvas service
//! share.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

use super::case::{Case, MissingPeriod, SimFault, TimedFault};
use super::library::Library;
use super::world::{Cache, SimWorld};
use crate::heal::Healer;
use crate::observe::RequestTrace;

/// Key of a stored document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum StoredUnder {
    /// A canvas, by leaf and `disallow`.
    Canvas(usize, String),
    /// A manifest, by book and `disallow`.
    Book(usize, String),
    /// Result of a registration.
    Image(usize),
}

/// Counts for the canvas of one leaf: requests, and reasons for one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CanvasRequestCount {
    pub(super) asked: usize,
    pub(super) reasons: usize,
}

/// Requests at once: now, and the maximum.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AtOnce {
    pub(super) now: usize,
    pub(super) most: usize,
}

impl AtOnce {
    pub(super) fn begins(&mut self) {
        self.now += 1;
        self.most = self.most.max(self.now);
    }
}

#[derive(Debug, Default)]
pub(super) struct ModelState {
    /// Leaves whose resource key is there.
    pub(super) keys: HashSet<usize>,
    /// Time at which the key of a leaf was last lost.
    pub(super) lost: HashMap<usize, Instant>,
    /// Time at which the service's own info.json request for this leaf last came through the proxy.
    pub(super) echoed: HashMap<usize, u64>,
    /// Time at which a canvas came without its picture because its key was lost while it was built, and no other answer
    /// showed that its file was found.
    pub(super) lost_in_build: HashMap<usize, u64>,
    /// Time at which the repair of a document that lacks a leaf began.
    pub(super) mended: HashMap<usize, u64>,
    /// Documents that were stored last for a viewer of them, not for us.
    pub(super) by_viewers: HashSet<StoredUnder>,
    /// Documents that viewers request now; late viewers are not counted.
    pub(super) viewers: HashSet<String>,
    /// Leaves of documents that a viewer opened while nothing told which image server has them.
    pub(super) not_repaired: HashSet<usize>,
    /// Leaves whose pictures are in each stored document.
    pub(super) documents: HashMap<StoredUnder, Vec<usize>>,
    /// Identifiers whose info.json is in the image server's memory.
    pub(super) infos: HashSet<String>,
    /// Tiles in the derivative cache.
    pub(super) tiles: HashSet<String>,
    /// Files in the source cache.
    pub(super) opened: HashSet<usize>,
    /// Builds under way at each site: canvases, and manifests for viewers.
    pub(super) building: [[AtOnce; 2]; 2],
    pub(super) asked: HashMap<usize, CanvasRequestCount>,
    /// Requests to the server of the other image route.
    pub(super) stray: usize,
    /// Requests to the proxy, for a failing case.
    pub(super) log: Vec<String>,
    pub(super) broken: Vec<String>,
}

/// `Model` is the whole upstream. Its behaviour depends on its case and on tokio's clock alone.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) library: &'static Library,
    pub(super) case: Case,
    pub(super) start: Instant,
    state: Mutex<ModelState>,
    /// UPSTREAM: two outbound connections per host. (Of each site.)
    pub(super) nested: [Semaphore; 2],
    healers: Mutex<(Vec<Healer>, [usize; 2])>,
    logs: bool,
}

impl Model {
    pub(super) fn new(case: Case, logs: bool) -> Arc<Self> {
        let library = Library::at(case.world.two_sites);
        let mut state = ModelState::default();
        state.keys.extend(0..library.leaves.len());
        for leaf in 0..library.leaves.len() {
            if case.stored > 0 && leaf % case.stored == 0 {
                state.documents.insert(StoredUnder::Canvas(leaf, String::new()), vec![leaf]);
            }
        }
        Arc::new(Self {
            library,
            case,
            start: Instant::now(),
            state: Mutex::new(state),
            nested: [Semaphore::new(2), Semaphore::new(2)],
            healers: Mutex::default(),
            logs,
        })
    }

    pub(super) fn world(&self) -> &SimWorld {
        &self.case.world
    }

    pub(super) fn state(&self) -> MutexGuard<'_, ModelState> {
        self.state.lock()
    }

    /// Milliseconds since the beginning.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn log(&self, what: impl FnOnce() -> String) {
        if self.logs {
            let mut line = format!("{:>7} {}", self.now(), what());
            // UUIDs are replaced by names that a reader can tell apart.
            for (at, leaf) in self.library.leaves.iter().enumerate() {
                line = line.replace(&leaf.uuid, &format!("leaf-{at}"));
            }
            self.state().log.push(line);
        }
    }

    pub(super) fn breaks(&self, what: String) {
        let line = format!("at {} ms: {what}", self.now());
        self.state().broken.push(line);
    }

    /// The fault of this kind that lasts now.
    pub(super) fn fault<T>(&self, is: impl Fn(SimFault) -> Option<T>) -> Option<T> {
        let now = self.now();
        let lasting = self.case.troubles.iter().filter(|trouble| (trouble.from..trouble.to).contains(&now));
        lasting.into_iter().find_map(|trouble| is(trouble.fault))
    }

    pub(super) fn has(&self, fault: SimFault) -> bool {
        self.fault(|lasting| (lasting == fault).then_some(())).is_some()
    }

    /// True if this fault lasts now at this site.
    pub(super) fn has_at(&self, site: usize, fault: SimFault) -> bool {
        site == 0 && self.has(fault)
    }

    /// Waits until this fault is over.
    pub(super) async fn outlasts(&self, fault: SimFault) {
        let now = self.now();
        let is_it =
            |trouble: &&TimedFault| trouble.fault == fault && (trouble.from..trouble.to).contains(&now);
        // Another fault of this kind may begin before this one ends.
        if let Some(to) = self.case.troubles.iter().filter(is_it).map(|trouble| trouble.to).max() {
            sleep_until(self.start + Duration::from_millis(to)).await;
        }
    }

    pub(super) fn file_is_gone(&self, leaf: usize) -> bool {
        let now = self.now();
        self.case.gone.iter().any(|gone| gone.leaf == leaf && (gone.from..gone.to).contains(&now))
    }

    /// Records that the key of a leaf is gone: from now on there is a reason to request its canvas.
    pub(super) fn loses(&self, leaf: usize) {
        let mut state = self.state();
        state.lost.insert(leaf, Instant::now());
        if state.keys.remove(&leaf) {
            state.asked.entry(leaf).or_default().reasons += 1;
        }
    }

    /// Records that the repair of a document that lacks this leaf begins: one reason to request its canvas, for all viewers
    /// at that moment.
    pub(super) fn is_mended(&self, leaf: usize) {
        let now = self.now();
        let mut state = self.state();
        if state.mended.insert(leaf, now) != Some(now) {
            state.asked.entry(leaf).or_default().reasons += 1;
        }
    }

    /// True if the key of this leaf was lost since this millisecond.
    pub(super) fn lost_since(&self, leaf: usize, ms: u64) -> bool {
        let since = self.start + Duration::from_millis(ms);
        self.state().lost.get(&leaf).is_some_and(|lost| *lost >= since)
    }

    pub(super) fn was_echoed_since(&self, leaf: usize, ms: u64) -> bool {
        self.state().echoed.get(&leaf).is_some_and(|at| *at >= ms)
    }

    pub(super) fn lost_in_build_since(&self, leaf: usize, ms: u64) -> bool {
        self.state().lost_in_build.get(&leaf).is_some_and(|at| *at >= ms)
    }

    pub(super) fn loses_all(&self) {
        (0..self.library.leaves.len()).for_each(|leaf| self.loses(leaf));
    }

    pub(super) fn set_healers(&self, healers: Vec<Healer>, routes: [usize; 2]) {
        *self.healers.lock() = (healers, routes);
    }

    /// Healer that the service's own request for this leaf passes, and the image route.
    pub(super) fn healer(&self, leaf: usize) -> Option<(Healer, usize)> {
        let (healers, routes) = &*self.healers.lock();
        let healer = healers.get(leaf % healers.len().max(1))?.clone();
        Some((healer, routes[self.library.site_of(leaf)]))
    }

    /// True if each node knows the image server of this leaf. Nothing but a request of a reader or of the service tells
    /// which of two servers it is, and no document is repaired before.
    pub(super) fn is_image_server_known(&self, leaf: usize) -> bool {
        let (healers, _) = &*self.healers.lock();
        let image = self.library.images.iter().find(|image| image.leaf == leaf);
        healers.iter().all(|healer| {
            let lookup = &healer.parts.lookup;
            let found = lookup.image_route().zip(image);
            found.is_some_and(|(route, image)| {
                lookup.find(route, &image.id, &RequestTrace::generate()).is_some()
            })
        })
    }

    /// Stores a document. A request of ours must never store fewer pictures than before where readers see them.
    pub(super) fn stores(&self, place: StoredUnder, leaves: Vec<usize>, of: usize, by_us: bool) {
        let pictures = leaves.len();
        let before = {
            let mut state = self.state();
            if by_us {
                state.by_viewers.remove(&place)
            } else {
                state.by_viewers.insert(place.clone())
            };
            state.documents.insert(place.clone(), leaves).map(|before| before.len())
        };
        let plain =
            matches!(&place, StoredUnder::Canvas(_, query) | StoredUnder::Book(_, query) if query.is_empty());
        if !plain {
            return;
        }
        self.log(|| format!("         stored {place:?}: {before:?} -> {pictures}"));
        let worse = before.is_some_and(|before| pictures < before) || (before.is_none() && pictures < of);
        // Where `disallow` is ignored a visit or a rebuild may meet a fault that no answer has shown yet, and an image that
        // expired looks like one whose file is gone.
        let could_know = self.world().honours_disallow || {
            let (began, now) = (self.now().saturating_sub(self.world().canvas_ms + 1_000), self.now());
            let is_gone = |gone: &MissingPeriod| gone.from <= now && gone.to >= began;
            // A key that is lost while its canvas is built makes the nested request fail.
            let was_lost = match &place {
                StoredUnder::Canvas(leaf, _) | StoredUnder::Image(leaf) => self.lost_since(*leaf, began),
                StoredUnder::Book(book, _) => {
                    self.library.leaves_of(*book).any(|leaf| self.lost_since(leaf, began))
                }
            };
            let site = match &place {
                StoredUnder::Canvas(leaf, _) | StoredUnder::Image(leaf) => self.library.site_of(*leaf),
                StoredUnder::Book(book, _) => self.library.site(*book),
            };
            !was_lost
                && !self.case.troubled(began, now, |fault| fault.is_at(site))
                && !self.case.gone.iter().any(is_gone)
        };
        if worse && by_us && could_know {
            self.breaks(format!("(2) {place:?} was made worse: {before:?} pictures, {pictures} now"));
        }
    }

    /// Status that the image server would send for a tile now; no time passes.
    pub(super) fn tile(&self, id: &str, tail: &str, cookie: bool) -> u16 {
        if self.world().login && !cookie {
            return 401;
        }
        let kept =
            self.world().cache == Cache::Derivative && self.state().tiles.contains(&format!("{id}/{tail}"));
        if kept { 200 } else { self.open(self.site_of_id(id), id).map_or_else(|status| status, |_| 200) }
    }

    fn site_of_id(&self, id: &str) -> usize {
        let leaf = self.library.leaf_with(id.split(';').next().unwrap_or_default());
        leaf.map_or(0, |leaf| self.library.site_of(leaf))
    }

    /// The leaf behind an identifier, as the image server of this site finds it; no time passes.
    pub(super) fn open(&self, site: usize, id: &str) -> Result<usize, u16> {
        let id = id.split(';').next().unwrap_or_default();
        let by_uuid = self.library.leaf_with(id);
        let leaf = match by_uuid {
            Some(leaf) => leaf,
            None if self.world().base64 => self.decoded(id).ok_or(404_u16)?,
            None => return Err(404),
        };
        if self.library.site_of(leaf) != site {
            return Err(404);
        }
        if self.world().cache == Cache::Source && self.state().opened.contains(&leaf) {
            return Ok(leaf);
        }
        if by_uuid.is_some() {
            if self.has_at(site, SimFault::Redis) || self.has_at(site, SimFault::ServiceDown) {
                return Err(500);
            }
            let state = self.state();
            if !state.keys.contains(&leaf) {
                // UPSTREAM: a key that vanishes while an image is opened is 501.
                let just_lost =
                    state.lost.get(&leaf).is_some_and(|lost| lost.elapsed() < Duration::from_millis(3));
                return Err(if just_lost { 501 } else { 404 });
            }
        }
        if self.has_at(site, SimFault::FileStore) {
            return Err(500);
        }
        if self.file_is_gone(leaf) {
            return Err(404);
        }
        Ok(leaf)
    }

    fn decoded(&self, id: &str) -> Option<usize> {
        use base64::Engine as _;
        use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
        let engines = [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD];
        let bytes = engines.into_iter().find_map(|engine| engine.decode(id).ok())?;
        self.library.leaf_of_file(&String::from_utf8(bytes).ok()?)
    }
}
