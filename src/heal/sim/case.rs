//! Case of a seed: a world, and the events in it.

use std::time::Duration;

use fastrand::Rng;

use super::library::{Library, SimDocument};
use super::world::{SimWorld, one_in};

/// `heal.wait` of every world.
pub(super) const WAIT: Duration = Duration::from_secs(25);
/// `heal.missing` of every world.
pub(super) const MISSING: Duration = Duration::from_secs(20);

/// `SimFault` is a fault that lasts for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SimFault {
    /// Every info.json of the image server answers this status.
    Info(u16),
    /// The nested info.json fails on a way that we do not see.
    Nested,
    /// Objects cannot be read: the service answers 500.
    Repository,
    /// HEAD of a file answers 5xx, and so does the file.
    FileStore,
    /// Redis is down.
    Redis,
    /// The service refuses connections.
    ServiceDown,
    /// The service takes requests, and goes on with them when the fault is over.
    ServiceHangs,
    /// The service answers 429 and demands this many seconds of pause.
    Busy(u64),
    /// `/resources` never answers.
    ResourcesHang,
    /// The image server refuses connections.
    ImagesDown,
    /// The image server answers every picture with this status.
    Images(u16),
    /// The canvas of this leaf never answers.
    Stuck(usize),
    /// The service does nothing, and answers 200 with something that is no canvas of ours.
    Garbled(Garbage),
    /// Outage of the Redis between the nodes: it refuses (false), or takes commands and never answers.
    Shared(bool),
}

impl SimFault {
    /// True for a fault of this site, as opposed to the other one, or the nodes' own network.
    pub(super) fn is_at(self, site: usize) -> bool {
        match self {
            Self::Stuck(leaf) => Library::at(true).site_of(leaf) == site || site == 0,
            Self::Shared(_) => false,
            _ => site == 0,
        }
    }
}

/// `Garbage` is an answer in the place of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Garbage {
    Nothing,
    Page,
    OtherJson,
    OtherCanvas,
    OtherEmptyCanvas,
}

/// `TimedFault` is a fault with its time, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimedFault {
    pub(super) fault: SimFault,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// `MissingPeriod` is a file that is not there for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MissingPeriod {
    pub(super) leaf: usize,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// `ImageWant` is a reader's request for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ImageWant {
    Info,
    /// A tile of this width.
    Tile(u32),
}

/// `SimAct` is one thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SimAct {
    /// `readers` readers request this image at once, and leave after `patience` milliseconds.
    Ask { image: usize, want: ImageWant, readers: usize, patience: u64, cookie: bool },
    /// A reader opens this manifest.
    Opened(usize),
    /// `viewers` viewers request this document from the canvas service itself, at once.
    Fetch { document: SimDocument, viewers: usize, patience: u64 },
    /// Redis loses everything.
    Flush,
    /// Redis loses its resource keys.
    EvictKeys,
    /// Redis loses its documents.
    EvictDocuments,
    /// Redis loses the key of one leaf.
    Expire(usize),
    /// Restart of the image server: its memory is empty.
    ImagesRestart,
    /// The configuration is read anew, with another number in it.
    Reload,
    /// `heal` of the command line heals this image.
    Mend(usize),
    /// The Redis between us loses everything.
    FlushShared,
}

/// `TimedAct` is an act with its time, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimedAct {
    pub(super) ms: u64,
    pub(super) act: SimAct,
}

/// `Case` is a world and its story. Equal cases go equally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) world: SimWorld,
    /// Share of canvases that are stored at the beginning, as 1 of N; 0: none.
    pub(super) stored: usize,
    pub(super) troubles: Vec<TimedFault>,
    pub(super) gone: Vec<MissingPeriod>,
    pub(super) acts: Vec<TimedAct>,
    /// Images that are read at the end.
    pub(super) last: Vec<usize>,
}

fn trouble(rng: &mut Rng, until: u64) -> TimedFault {
    let fault = match rng.u32(0..16) {
        0 => SimFault::Info([403, 404, 429, 500, 503][rng.usize(0..5)]),
        1 | 2 => SimFault::Nested,
        3 => SimFault::Repository,
        4 | 5 => SimFault::FileStore,
        6 => SimFault::Redis,
        7 => SimFault::ServiceDown,
        8 => SimFault::ServiceHangs,
        9 => SimFault::Busy(rng.u64(1..10)),
        10 => SimFault::ResourcesHang,
        11 => SimFault::ImagesDown,
        12 => SimFault::Images([429, 500, 503][rng.usize(0..3)]),
        13 => SimFault::Garbled(
            [
                Garbage::Nothing,
                Garbage::Page,
                Garbage::OtherJson,
                Garbage::OtherCanvas,
                Garbage::OtherEmptyCanvas,
            ][rng.usize(0..5)],
        ),
        14 => SimFault::Shared(rng.bool()),
        _ => SimFault::Stuck(rng.usize(0..Library::get().leaves.len())),
    };
    let from = rng.u64(0..until);
    TimedFault { fault, from, to: from + [500, 2_000, 8_000, 20_000, 60_000][rng.usize(0..5)] }
}

impl Case {
    /// Draws the case of this seed.
    pub(super) fn draw(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed);
        let world = SimWorld::draw(rng);
        let library = Library::get();
        let until = [20_000, 60_000, 180_000][rng.usize(0..3)];
        let troubles = (0..rng.usize(0..3)).map(|_| trouble(rng, until)).collect();
        let gone = |rng: &mut Rng| {
            let from = if one_in(rng, 2) { 0 } else { rng.u64(0..until) };
            let to = if one_in(rng, 2) { u64::MAX / 2 } else { from + rng.u64(500..60_000) };
            MissingPeriod { leaf: rng.usize(0..library.leaves.len()), from, to }
        };
        let gone =
            if one_in(rng, 2) { (0..rng.usize(1..4)).map(|_| gone(rng)).collect() } else { Vec::new() };
        let mut acts = Vec::new();
        for _ in 0..rng.usize(1..5) {
            let act = match rng.u32(0..6) {
                0 | 1 => SimAct::Flush,
                2 | 3 => SimAct::EvictKeys,
                4 => SimAct::EvictDocuments,
                _ => SimAct::Expire(rng.usize(0..library.leaves.len())),
            };
            acts.push(TimedAct { ms: rng.u64(0..until), act });
        }
        for _ in 0..rng.usize(1..6) {
            reader(rng, library, until, &mut acts);
        }
        for _ in 0..rng.usize(0..3) {
            let act = match rng.u32(0..6) {
                5 => SimAct::FlushShared,
                0 => SimAct::ImagesRestart,
                1 => SimAct::Reload,
                2 => SimAct::Opened(rng.usize(0..library.books.len())),
                _ => SimAct::Mend(rng.usize(0..library.images.len())),
            };
            acts.push(TimedAct { ms: rng.u64(0..until), act });
        }
        if one_in(rng, 3) {
            viewers(rng, library, until, &mut acts);
        }
        acts.sort_by_key(|at| at.ms);
        // Mostly a few images: heals at the end take most of a world's time.
        let mut last: Vec<_> = (0..library.images.len()).collect();
        if !one_in(rng, 4) {
            rng.shuffle(&mut last);
            last.truncate(6);
        }
        Self { world, stored: rng.usize(0..3), troubles, gone, acts, last }
    }

    /// End of the last fault and the last act.
    pub(super) fn end(&self) -> u64 {
        let acts = self.acts.iter().map(|at| at.ms);
        acts.chain(self.troubles.iter().map(TimedFault::until)).max().unwrap_or(0)
    }
}

impl TimedFault {
    /// End of the fault's effects: after `Retry-After` the healer waits for so many seconds more.
    pub(super) fn until(&self) -> u64 {
        if let SimFault::Busy(seconds) = self.fault { self.to + seconds * 1000 } else { self.to }
    }
}

/// Adds viewers that fetch canvases and manifests: a reader who opens a book, many who open it at once, or a crawler.
fn viewers(rng: &mut Rng, library: &Library, until: u64, acts: &mut Vec<TimedAct>) {
    let mut ms = rng.u64(0..until);
    let is_crawler = one_in(rng, 2);
    let mut leaf = rng.usize(0..library.leaves.len());
    for _ in 0..rng.usize(1..12) {
        let document = if one_in(rng, 3) {
            SimDocument::Manifest(rng.usize(0..library.books.len()))
        } else {
            SimDocument::Canvas(leaf)
        };
        let patience = if one_in(rng, 4) { rng.u64(1..2_000) } else { 200_000 };
        let viewers = if !is_crawler && one_in(rng, 3) { rng.usize(2..20) } else { 1 };
        acts.push(TimedAct { ms, act: SimAct::Fetch { document, viewers, patience } });
        ms += if is_crawler { rng.u64(0..50) } else { rng.u64(100..8_000) };
        leaf = (leaf + 1) % library.leaves.len();
    }
}

/// Adds a reader: pages on, jumps, opens one page together with many others, or crawls.
fn reader(rng: &mut Rng, library: &Library, until: u64, acts: &mut Vec<TimedAct>) {
    let mut ms = rng.u64(0..until);
    let mut image = rng.usize(0..library.images.len());
    let style = rng.u32(0..4);
    let cookie = !one_in(rng, 4);
    for _ in 0..rng.usize(1..9) {
        let patience = if one_in(rng, 6) { rng.u64(1..2_000) } else { 200_000 };
        let readers = if style == 2 { rng.usize(2..20) } else { 1 };
        if one_in(rng, 2) {
            acts.push(TimedAct {
                ms,
                act: SimAct::Ask { image, want: ImageWant::Info, readers: 1, patience, cookie },
            });
        }
        let want = ImageWant::Tile([64, 100, 128, 256][rng.usize(0..4)]);
        acts.push(TimedAct { ms, act: SimAct::Ask { image, want, readers, patience, cookie } });
        ms += match style {
            3 => rng.u64(0..50),
            _ => rng.u64(100..8_000),
        };
        image = match style {
            1 => rng.usize(0..library.images.len()),
            2 if one_in(rng, 2) => image,
            _ => (image + 1) % library.images.len(),
        };
    }
}
