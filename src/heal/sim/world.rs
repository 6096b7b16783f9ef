//! Installation of a simulated world.

use std::time::Duration;

use fastrand::Rng;

use super::library::STALE;

pub(super) fn one_in(rng: &mut Rng, n: u32) -> bool {
    rng.u32(0..n) == 0
}

/// `Resources` is how `/resources/{uuid}` answers us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resources {
    Open,
    /// A gateway's 403.
    Closed,
    /// Open at first, closed from this millisecond on.
    ClosedFrom(u64),
    /// A gateway's 404, which is not the service's.
    Gateway,
}

/// `Cache` is the cache of the image server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cache {
    /// info.json in its memory, as every one does.
    Info,
    /// Tiles and info.json, for good.
    Derivative,
    /// Files that were opened once.
    Source,
}

/// `SimWorld` is how this installation is made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is there or not, by itself")]
pub(super) struct SimWorld {
    pub(super) resources: Resources,
    pub(super) cache: Cache,
    /// The service keeps a canvas with a `disallow` beside the plain one.
    pub(super) honours_disallow: bool,
    /// The image server takes base64 identifiers.
    pub(super) base64: bool,
    /// Requests without a cookie are 401 before the identifier is looked up.
    pub(super) login: bool,
    /// Older manifests with dead canvases for every image.
    pub(super) stale_owners: usize,
    /// An image route before the right one leads to a server that knows none of our images.
    pub(super) two_routes: bool,
    /// The index knows where files are.
    pub(super) files_known: bool,
    /// The service's own info.json comes back through us.
    pub(super) echoes: bool,
    /// Time to build one canvas, in milliseconds.
    pub(super) canvas_ms: u64,
    /// The key is written in the first half of that time, not at its end.
    pub(super) key_early: bool,
    /// Time to send a picture, in milliseconds.
    pub(super) image_ms: u64,
    /// `heal.concurrency`.
    pub(super) concurrency: usize,
    /// `heal.ahead`.
    pub(super) ahead: usize,
    /// `heal.sweep`, and a mass expiry begins with six images.
    pub(super) sweep: bool,
    /// The source of all manifests is kept warm.
    pub(super) warm: bool,
    /// Two of the books have an image server and a canvas service of their own, on other routes. Faults are those of the
    /// first ones.
    pub(super) two_sites: bool,
    /// Nodes that share a Redis.
    pub(super) nodes: usize,
}

impl SimWorld {
    /// The simplest one, to which a failing case is brought as near as possible.
    pub(super) fn plain() -> Self {
        Self {
            resources: Resources::Open,
            cache: Cache::Info,
            honours_disallow: true,
            base64: true,
            login: false,
            stale_owners: 0,
            two_routes: false,
            files_known: false,
            echoes: true,
            canvas_ms: 20,
            key_early: true,
            image_ms: 5,
            concurrency: 2,
            ahead: 0,
            sweep: false,
            warm: false,
            two_sites: false,
            nodes: 1,
        }
    }

    pub(super) fn draw(rng: &mut Rng) -> Self {
        let resources = match rng.u32(0..8) {
            0 | 1 => Resources::Closed,
            2 => Resources::ClosedFrom(rng.u64(0..60_000)),
            3 => Resources::Gateway,
            _ => Resources::Open,
        };
        let cache = match rng.u32(0..8) {
            0..=2 => Cache::Derivative,
            3 => Cache::Source,
            _ => Cache::Info,
        };
        Self {
            resources,
            cache,
            honours_disallow: !one_in(rng, 4),
            base64: !one_in(rng, 4),
            login: one_in(rng, 6),
            stale_owners: if one_in(rng, 3) { STALE[rng.usize(0..STALE.len())] } else { 0 },
            two_routes: one_in(rng, 4),
            files_known: one_in(rng, 3),
            echoes: !one_in(rng, 4),
            // A minute is rare: such a world takes as long as ten others.
            canvas_ms: [10, 20, 50, 100, 200, 500, 2_000, if one_in(rng, 4) { 60_000 } else { 10_000 }]
                [rng.usize(0..8)],
            key_early: !one_in(rng, 3),
            image_ms: [1, 5, 20][rng.usize(0..3)],
            concurrency: rng.usize(1..=3),
            ahead: [0, 0, 4, 8][rng.usize(0..4)],
            sweep: one_in(rng, 4),
            warm: one_in(rng, 8),
            two_sites: one_in(rng, 5),
            nodes: if one_in(rng, 5) { 2 } else { 1 },
        }
    }

    /// Longest time to build one canvas.
    pub(super) fn canvas(&self) -> Duration {
        Duration::from_millis(self.canvas_ms)
    }
}
