//! The run itself: takes what the sources bring, works on many canvases at once, and counts what comes of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::job::{self, Share};
use super::manifests;
use super::mend::{Aim, Surgeon};
use super::progress::Progress;
use super::setup::{self, Unmapped, strange_canvas};
use super::source::{Expected, Item};
use super::summary::Summary;
use super::via::Via;
use super::{By, Named, Treated, Trouble, Unit};
use crate::config::Settings;
use crate::heal::IndexedImage;

/// Everything that one run needs.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) settings: Arc<Settings>,
    pub(crate) surgeon: Surgeon,
    pub(crate) via: Option<Via>,
    /// Other processes do a part of it.
    pub(crate) share: Option<Share>,
    pub(crate) items: mpsc::Receiver<Item>,
    pub(crate) expected: Arc<Expected>,
    pub(crate) summary: Summary,
    pub(crate) progress: Progress,
    /// Canvases worked on at once.
    pub(crate) width: usize,
    /// Look at the deployment as well.
    pub(crate) with_setup: bool,
    /// Look at nothing but the deployment.
    pub(crate) only_setup: bool,
}

/// What could not be mended for a reason that may pass is tried again this often, after a pause each time.
const ROUNDS: u32 = 2;

/// How often the words beside the bar change, and the journal goes to the disk.
const TICK: Duration = Duration::from_millis(250);

/// Images looked at before only the deployment is looked at.
const SAMPLE: u64 = 8;

/// The state of a run while it runs.
#[derive(Default)]
struct State {
    later: VecDeque<(Unit, u64)>,
    /// Other processes of the job are at these.
    elsewhere: VecDeque<(Unit, u64)>,
    /// Canvases that we treated ourselves, and those that others did.
    shares: (u64, u64),
    round: u32,
    /// Canvases read so far.
    read: u64,
    read_to_the_end: bool,
    alive: Option<IndexedImage>,
    unmapped: Unmapped,
    troubles: Vec<(Arc<Named>, Trouble)>,
    undone: bool,
}

impl State {
    fn is_done(&self) -> bool {
        self.later.is_empty() && self.elsewhere.is_empty()
    }

    fn pause(&self, surgeon: &Surgeon) -> Duration {
        if self.elsewhere.is_empty() { pause(surgeon, self.round) } else { job::LOOK }
    }

    /// First what others were at: they may be done with it, or gone.
    fn take_up_again(&mut self, queue: &mut VecDeque<(Unit, u64)>) {
        if self.elsewhere.is_empty() {
            self.round += 1;
            queue.append(&mut self.later);
        } else {
            queue.append(&mut self.elsewhere);
        }
    }
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    async fn one(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// How it was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    /// What is under way ends.
    Gently,
    AtOnce,
}

impl Run {
    /// Works through everything.
    pub(crate) async fn run(mut self) -> Summary {
        let (Ok(interrupt), Ok(terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            self.summary.interrupted = true;
            return self.summary;
        };
        let mut signals = Signals { interrupt, terminate };
        let mut state = State::default();
        let mut items = std::mem::replace(&mut self.items, mpsc::channel(1).1);
        let stop = self.work(&mut items, &mut state, &mut signals).await;
        drop(items);
        if stop == Stop::No {
            self.mend_manifests(std::mem::take(&mut state.troubles)).await;
            self.look_at_setup(&state).await;
        }
        self.end(stop, &state)
    }

    async fn work(
        &mut self,
        items: &mut mpsc::Receiver<Item>,
        state: &mut State,
        signals: &mut Signals,
    ) -> Stop {
        let Self { surgeon, via, share, summary, progress, expected, width, only_setup, .. } = self;
        let (surgeon, via, share) = (&*surgeon, via.as_ref(), share.as_ref());
        let mut under_way: FuturesUnordered<LocalBoxFuture<'_, (Unit, u64, Treated)>> =
            FuturesUnordered::new();
        let mut queue: VecDeque<(Unit, u64)> = VecDeque::new();
        let mut stop = Stop::No;
        let mut wake = None::<Instant>;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let may_start = stop == Stop::No && !surgeon.stopping.get() && wake.is_none();
            while may_start && under_way.len() < *width {
                let Some((unit, id)) = queue.pop_front() else { break };
                let is_last = state.round >= ROUNDS;
                under_way.push(Box::pin(async move {
                    let treated = match (via, share) {
                        (Some(via), _) => via.treat(&unit).await,
                        (None, Some(share)) => share.treat(surgeon, &unit, id, is_last).await,
                        (None, None) => surgeon.treat(&unit, id).await,
                    };
                    (unit, id, treated)
                }));
            }
            if under_way.is_empty() && (queue.is_empty() || !may_start) && wake.is_none() {
                if !may_start || (state.read_to_the_end && state.is_done()) {
                    return stop;
                }
                if state.read_to_the_end {
                    wake = Some(Instant::now() + state.pause(surgeon));
                }
            }
            let is_hungry = may_start && !state.read_to_the_end && under_way.len() < *width;
            tokio::select! {
                Some((unit, id, treated)) = under_way.next(), if !under_way.is_empty() => {
                    settle(surgeon, summary, state, unit, id, treated);
                    progress.at(&summary.totals, expected.images());
                    if *only_setup && (state.alive.is_some() || summary.totals.images >= SAMPLE) {
                        (state.read_to_the_end, state.later, queue) = (true, VecDeque::new(), VecDeque::new());
                    }
                }
                item = items.recv(), if is_hungry => match item {
                    None => state.read_to_the_end = true,
                    Some(item) => take(surgeon, summary, state, &mut queue, item),
                },
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    wake = None;
                    state.take_up_again(&mut queue);
                }
                _ = tick.tick() => {
                    progress.words(&summary.totals);
                    progress.at(&summary.totals, expected.images());
                }
                () = signals.one() => stop = stopped(stop, surgeon, progress, &mut wake),
            }
            if stop == Stop::AtOnce {
                return stop;
            }
        }
    }

    async fn mend_manifests(&mut self, troubles: Vec<(Arc<Named>, Trouble)>) {
        let heals = matches!(self.surgeon.plan.aim, Aim::Mend | Aim::MendAll) && self.via.is_none();
        for (named, trouble) in troubles {
            let is_ours = match &self.share {
                Some(share) if heals => share.is_ours(&self.surgeon, &named.uri).await,
                _ => true,
            };
            let cured = match &trouble.poisoned {
                Some(_) if !is_ours => Some(Err("another process of the job cures it".to_owned())),
                Some(known) if heals => Some(manifests::cure(&self.surgeon.healer, &named.uri, known).await),
                _ => None,
            };
            let row = self.summary.row(&named);
            row.mended = matches!(cured, Some(Ok(())));
            row.trouble = Some(match cured {
                Some(Err(why)) => format!("{}; {why}", trouble.text),
                _ => trouble.text,
            });
        }
    }

    async fn look_at_setup(&mut self, state: &State) {
        if !self.with_setup {
            return;
        }
        let facts = match &state.alive {
            Some(patient) => Some(self.surgeon.healer.inspect(patient).await),
            None => None,
        };
        self.summary.setup = setup::findings(&self.settings, facts.as_ref(), &state.unmapped);
    }

    fn end(self, stop: Stop, state: &State) -> Summary {
        let Self { surgeon, share, mut summary, progress, .. } = self;
        progress.finish();
        summary.images.sort_by_key(|entry| entry.place);
        // Those that were to be tried again and were not: as they are now.
        summary.interrupted = stop != Stop::No || state.undone || surgeon.stopping.get();
        if let Some(share) = &share {
            let (own, others) = state.shares;
            let name = &share.name;
            progress.say(&match own {
                0 if others > 0 => format!("job {name}: all {others} canvases were done by others"),
                _ => format!("job {name}: {own} canvases by this run, {others} by others"),
            });
        }
        let requests = surgeon.requests();
        summary.count_requests(requests);
        let mut journal = surgeon.journal.into_inner();
        journal.sent(requests);
        if let Some(error) = surgeon.broken_journal.into_inner() {
            progress.say(&format!("iiif-mender: stopped, because {error}"));
        }
        if summary.interrupted {
            let goes_on = match journal.path() {
                Some(path) => format!("--resume goes on from {}", path.display()),
                None => "the job goes on without this run; the same command joins it again".to_owned(),
            };
            match journal.sync() {
                Ok(()) => progress.say(&goes_on),
                Err(error) => progress.say(&error.to_string()),
            }
        } else {
            journal.finish();
        }
        summary
    }
}

/// Before another round: as long as a canvas is left alone after a failure, and as the service asked for.
fn pause(surgeon: &Surgeon, round: u32) -> Duration {
    let rest = surgeon.healer.rest().unwrap_or_default();
    let cool = surgeon.healer.cooldown().saturating_mul(1 << round.min(4));
    (cool.mul_f64(1.15) + Duration::from_millis(50)).max(rest)
}

fn stopped(stop: Stop, surgeon: &Surgeon, progress: &Progress, wake: &mut Option<Instant>) -> Stop {
    surgeon.stopping.set(true);
    *wake = None;
    if stop == Stop::No {
        progress.say("stopping: what is under way ends; once more stops at once");
        Stop::Gently
    } else {
        Stop::AtOnce
    }
}

fn take(
    surgeon: &Surgeon,
    summary: &mut Summary,
    state: &mut State,
    queue: &mut VecDeque<(Unit, u64)>,
    item: Item,
) {
    match item {
        Item::Problem(problem) => summary.problems.push(problem),
        Item::Trouble(named, trouble) => state.troubles.push((named, trouble)),
        Item::Unit(mut unit) => {
            state.read += 1;
            unit.place = state.read;
            let id = unit.id();
            if let Some(canvas) = &unit.canvas {
                state.unmapped.canvases += 1;
                if let Some(strange) = strange_canvas(&surgeon.healer, canvas, &unit.images) {
                    state.unmapped.strange += 1;
                    state.unmapped.example.get_or_insert(strange);
                }
            }
            if surgeon.journal.borrow_mut().take_up(id) {
                queue.push_back((unit, id));
            }
        }
    }
}

fn settle(
    surgeon: &Surgeon,
    summary: &mut Summary,
    state: &mut State,
    unit: Unit,
    id: u64,
    mut treated: Treated,
) {
    if state.alive.is_none() {
        state.alive = treated.alive.take();
    }
    if treated.by == By::NobodyYet {
        if surgeon.stopping.get() {
            state.undone = true;
        } else {
            state.elsewhere.push_back((unit, id));
        }
        return;
    }
    let (own, others) = &mut state.shares;
    *if treated.by == By::Others { others } else { own } += u64::from(!treated.again && !treated.undone);
    if treated.again && state.round < ROUNDS && !surgeon.stopping.get() {
        state.later.push_back((unit, id));
        return;
    }
    state.undone |= treated.undone;
    if treated.by == By::Us {
        treated.asked += surgeon.requests();
    }
    let is_to_go_on = treated.undone || (treated.again && surgeon.stopping.get());
    if is_to_go_on {
        surgeon.journal.borrow_mut().sent(treated.asked);
    } else if let Err(error) = surgeon.journal.borrow_mut().done(&unit, id, &treated) {
        *surgeon.broken_journal.borrow_mut() = Some(error.to_string());
        surgeon.stopping.set(true);
    }
    summary.take(&unit.manifest, treated.images, treated.entries, treated.asked);
}
