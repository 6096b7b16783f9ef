//! Makes a failing case as small as it can be while it fails in the same way.

use super::case::{Case, SimAct};
use super::kind;
use super::run::play;
use super::world::SimWorld;

/// Cases that are played for it at most.
const TRIES: usize = 2_000;

struct Shrinker {
    case: Case,
    wanted: String,
    tries: usize,
}

impl Shrinker {
    /// Takes the other case if it fails in the same way.
    fn takes(&mut self, other: Case) -> bool {
        if self.tries >= TRIES || other == self.case {
            return false;
        }
        self.tries += 1;
        let fails = play(&other, false).0.iter().any(|broken| kind(broken) == self.wanted);
        if fails {
            self.case = other;
        }
        fails
    }

    /// Leaves out acts, in halves, quarters and so on.
    fn fewer_acts(&mut self) -> bool {
        let (mut any, mut size) = (false, self.case.acts.len().max(1));
        while size > 0 {
            let mut from = 0;
            while from < self.case.acts.len() {
                let mut other = self.case.clone();
                let to = (from + size).min(other.acts.len());
                other.acts.drain(from..to);
                if self.takes(other) { any = true } else { from += size }
            }
            size /= 2;
        }
        any
    }

    fn fewer_last(&mut self) -> bool {
        let (mut any, mut size) = (false, self.case.last.len());
        while size > 0 {
            let mut from = 0;
            while from < self.case.last.len() {
                let mut other = self.case.clone();
                let to = (from + size).min(other.last.len());
                other.last.drain(from..to);
                if self.takes(other) { any = true } else { from += size }
            }
            size /= 2;
        }
        any
    }

    fn fewer_troubles(&mut self) -> bool {
        let mut any = false;
        for at in (0..self.case.troubles.len()).rev() {
            let mut other = self.case.clone();
            other.troubles.remove(at);
            any |= self.takes(other);
        }
        for at in (0..self.case.gone.len()).rev() {
            let mut other = self.case.clone();
            other.gone.remove(at);
            any |= self.takes(other);
        }
        any
    }

    fn plainer_world(&mut self) -> bool {
        let plain = SimWorld::plain();
        let changes: [fn(&mut SimWorld, &SimWorld); 18] = [
            |world, plain| world.resources = plain.resources,
            |world, plain| world.cache = plain.cache,
            |world, plain| world.honours_disallow = plain.honours_disallow,
            |world, plain| world.base64 = plain.base64,
            |world, plain| world.login = plain.login,
            |world, plain| world.stale_owners = plain.stale_owners,
            |world, plain| world.two_routes = plain.two_routes,
            |world, plain| world.files_known = plain.files_known,
            |world, plain| world.echoes = plain.echoes,
            |world, plain| world.canvas_ms = plain.canvas_ms,
            |world, plain| world.key_early = plain.key_early,
            |world, plain| world.image_ms = plain.image_ms,
            |world, plain| world.concurrency = plain.concurrency,
            |world, plain| world.ahead = plain.ahead,
            |world, plain| world.sweep = plain.sweep,
            |world, plain| world.warm = plain.warm,
            |world, plain| world.two_sites = plain.two_sites,
            |world, plain| world.nodes = plain.nodes,
        ];
        let mut any = false;
        for change in changes {
            let mut other = self.case.clone();
            change(&mut other.world, &plain);
            any |= self.takes(other);
        }
        let other = Case { stored: 0, ..self.case.clone() };
        any | self.takes(other)
    }

    fn fewer_readers(&mut self) -> bool {
        let mut any = false;
        for at in 0..self.case.acts.len() {
            let mut other = self.case.clone();
            if let SimAct::Ask { readers, patience, .. } = &mut other.acts[at].act {
                (*readers, *patience) = (1, 200_000);
            }
            any |= self.takes(other);
        }
        any
    }
}

/// The smallest case that breaks a promise of this kind.
pub(super) fn smallest(case: Case, wanted: &str) -> Case {
    let mut shrinker = Shrinker { case, wanted: wanted.to_owned(), tries: 0 };
    loop {
        let mut any = shrinker.fewer_acts();
        any |= shrinker.fewer_last();
        any |= shrinker.fewer_troubles();
        any |= shrinker.plainer_world();
        any |= shrinker.fewer_readers();
        if !any {
            return shrinker.case;
        }
    }
}
