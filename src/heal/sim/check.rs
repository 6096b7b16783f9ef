//! Invariants that must hold for every request of a reader.

use std::time::Duration;

use tokio::time::Instant;

use super::case::{Case, ImageWant, MISSING, SimFault, TimedFault, WAIT};
use super::model::Model;
use crate::outcome::Outcome;

/// `ReaderResult` is the answer that a reader got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReaderResult {
    Answer {
        status: u16,
        outcome: Outcome,
        healed: bool,
    },
    /// 503 with `Retry-After`.
    Later {
        crowded: bool,
        after: Duration,
    },
    /// The image server gave no answer.
    Failed,
}

/// `SimExchange` is one request, from its first byte.
#[derive(Debug)]
pub(super) struct SimExchange {
    image: usize,
    want: ImageWant,
    cookie: bool,
    from: u64,
    began: Instant,
    /// Status that the image server would have sent at the beginning.
    first: u16,
}

/// Time for which the healer may remember a missing file after it is back, in milliseconds.
const REMEMBERED: u64 = 2_000;

/// Time for which a fault may have effects after its end, in milliseconds.
const HEEDED: u64 = 2_000;

impl Case {
    /// True if a request may take longer than ten seconds: a request that hangs keeps running while its permit is passed
    /// on. A whole book of twelve canvases, which background work may request, takes that long sooner.
    pub(super) fn hangs(&self) -> bool {
        let hangs =
            |trouble: &TimedFault| matches!(trouble.fault, SimFault::ServiceHangs | SimFault::Stuck(_));
        let has_books = self.world.sweep || self.world.warm;
        let longest = self.world.canvas_ms * if has_books { 12 } else { 1 };
        // Two nested requests run at a time: the others wait.
        longest * 2 > 10_000 || self.troubles.iter().any(hangs)
    }

    pub(super) fn troubled(&self, from: u64, to: u64, counts: impl Fn(SimFault) -> bool) -> bool {
        let overlaps = |trouble: &&TimedFault| trouble.from <= to && trouble.until() >= from;
        self.troubles.iter().filter(overlaps).any(|trouble| counts(trouble.fault))
    }
}

impl SimExchange {
    pub(super) fn begins(model: &Model, image: usize, want: ImageWant, cookie: bool) -> Self {
        let first = Self::now(model, image, want, cookie);
        Self { image, want, cookie, from: model.now(), began: Instant::now(), first }
    }

    /// Status that the image server would send now.
    fn now(model: &Model, image: usize, want: ImageWant, cookie: bool) -> u16 {
        match want {
            ImageWant::Info => 0,
            ImageWant::Tile(width) => {
                let id = &model.library.images[image].id;
                model.tile(id, &format!("full/{width},/0/default.jpg"), cookie)
            }
        }
    }

    fn site(&self, model: &Model) -> usize {
        model.library.site_of(self.leaf(model))
    }

    fn leaf(&self, model: &Model) -> usize {
        model.library.images[self.image].leaf
    }

    /// True if this image is missing by our own fault: no other fault in this time or shortly before it, its file there,
    /// its key not lost in between.
    fn could_be_healed(&self, model: &Model, to: u64) -> bool {
        let (case, leaf) = (&model.case, self.leaf(model));
        let honours = case.world.honours_disallow;
        let lately = self.from.saturating_sub(HEEDED + case.world.canvas_ms);
        let site = model.library.site_of(leaf);
        let excuses = |fault: SimFault| match fault {
            // A fault of the other site, or of the nodes' own network.
            _ if !fault.is_at(site) => false,
            // Beside the stored canvas the key is written although info.json fails.
            SimFault::Nested => !honours,
            SimFault::Info(_) => !honours || self.want == ImageWant::Info,
            SimFault::ResourcesHang => false,
            SimFault::Stuck(stuck) => stuck == leaf,
            _ => true,
        };
        let was_gone = |from: u64| {
            let overlaps =
                |from: u64, to: u64, gone_from: u64, gone_to: u64| gone_from <= to && gone_to >= from;
            case.gone.iter().any(|gone| gone.leaf == leaf && overlaps(from, to, gone.from, gone.to))
        };
        let remembered = u64::try_from(MISSING.as_millis()).unwrap_or(u64::MAX) + REMEMBERED;
        // Where a canvas can only be built over the stored one, the healer leaves it alone when in doubt: a missing file
        // looks like a fault of the file store, in which a good canvas would be stored empty.
        let is_in_doubt = !honours && case.gone.iter().any(|gone| gone.from <= to && gone.to >= lately);
        // Where a canvas takes very long its key may be lost again before a probe can see it.
        let is_prompt = honours && case.world.canvas_ms < 10_000;
        // Where the service's own info.json does not pass the proxy, a canvas whose key is lost while it is built looks
        // like one whose file is gone, and that is believed for two seconds.
        let looked_gone = model.lost_in_build_since(leaf, self.from.saturating_sub(HEEDED));
        !is_in_doubt
            && !looked_gone
            && !case.troubled(lately, to, excuses)
            && !was_gone(self.from.saturating_sub(remembered).saturating_sub(case.world.canvas_ms))
            && !model.lost_since(leaf, if is_prompt { self.from } else { lately })
    }

    /// A heal takes longer than a reader waits, because canvases do or because something hangs.
    pub(super) fn may_take_long(model: &Model, site: usize, from: u64, to: u64) -> bool {
        let world = &model.case.world;
        let all = u64::try_from(model.library.leaves.len()).unwrap_or(u64::MAX) * world.canvas_ms;
        let wait = u64::try_from(WAIT.as_millis()).unwrap_or(u64::MAX);
        all / world.concurrency as u64 > wait / 3
            || model.case.troubled(from.saturating_sub(wait * 3), to, |fault| {
                fault.is_at(site) && fault != SimFault::ResourcesHang
            })
    }

    pub(super) fn ends(&self, model: &Model, seen: &ReaderResult) {
        let (to, took) = (model.now(), self.began.elapsed());
        if model.world().login && !self.cookie {
            return;
        }
        let what = || format!("image {} {:?}: {seen:?} after {took:?}", self.image, self.want);
        let healable = self.could_be_healed(model, to);
        match *seen {
            ReaderResult::Answer { status: 200..=399, outcome, healed } => {
                if (outcome == Outcome::Healed) != healed {
                    model.breaks(format!("(8) {}", what()));
                }
            }
            ReaderResult::Answer { outcome, .. } => {
                if healable {
                    model.breaks(format!("(1) it could be healed and is {outcome:?}: {}", what()));
                }
                if matches!(outcome, Outcome::Healed | Outcome::Unknown) {
                    model.breaks(format!("(8) {}", what()));
                }
            }
            ReaderResult::Failed if healable => {
                model.breaks(format!("(1) it could be healed and has no answer: {}", what()));
            }
            ReaderResult::Failed => {}
            ReaderResult::Later { crowded, after } => {
                let is_early = took + Duration::from_millis(200) < WAIT;
                if crowded
                    || is_early
                    || after.is_zero()
                    || (healable && !Self::may_take_long(model, self.site(model), self.from, to))
                {
                    model.breaks(format!("(1) it is not told when it should be: {}", what()));
                }
            }
        }
        self.is_served(model, seen, to, took);
        self.stays_gone(model, seen, to, &what);
    }

    /// A tile that the image server would serve is served, at once.
    fn is_served(&self, model: &Model, seen: &ReaderResult, to: u64, took: Duration) {
        let would = self.first == 200 && Self::now(model, self.image, self.want, self.cookie) == 200;
        let site = self.site(model);
        let fails = |fault: SimFault| {
            fault.is_at(site)
                && matches!(
                    fault,
                    SimFault::ImagesDown
                        | SimFault::Images(_)
                        | SimFault::FileStore
                        | SimFault::Redis
                        | SimFault::ServiceDown
                )
        };
        let case = &model.case;
        let leaf = self.leaf(model);
        let was_gone =
            case.gone.iter().any(|gone| gone.leaf == leaf && gone.from <= to && gone.to >= self.from);
        if !would || was_gone || case.troubled(self.from, to, fails) || model.lost_since(leaf, self.from) {
            return;
        }
        let soon = Duration::from_millis(model.world().image_ms * 3 + 250);
        let is_good = matches!(seen, ReaderResult::Answer { status: 200, .. });
        if !is_good || took > soon {
            model.breaks(format!(
                "(4) the image server would have served it: image {} {:?}: {seen:?} after {took:?}",
                self.image, self.want
            ));
        }
    }

    /// A file that is gone is 404, and no reader waits for it for long.
    fn stays_gone(&self, model: &Model, seen: &ReaderResult, to: u64, what: &impl Fn() -> String) {
        let (case, leaf) = (&model.case, self.leaf(model));
        let is_gone =
            case.gone.iter().any(|gone| gone.leaf == leaf && gone.from <= self.from && gone.to > to);
        let troubled =
            case.troubled(self.from.saturating_sub(30_000), to, |fault| fault.is_at(self.site(model)));
        if !is_gone || troubled || Self::may_take_long(model, self.site(model), self.from, to) {
            return;
        }
        if matches!(seen, ReaderResult::Later { .. } | ReaderResult::Failed) {
            model.breaks(format!("(6) its file is gone: {}", what()));
        }
    }
}
