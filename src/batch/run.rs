//! The run: takes items from the sources, works on many canvases at once, and counts the results.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::job::{self, JobShare};
use super::manifests;
use super::progress::RunProgress;
use super::read::{ExpectedCounts, SourceItem};
use super::remote::RemoteHealer;
use super::summary::Summary;
use super::worker::{CanvasWorker, RunMode};
use super::{CanvasResult, CanvasTask, HandledBy, ManifestProblem, ManifestRef};
use crate::config::Settings;
use crate::heal::IndexedImage;
use crate::observe::counted;
use crate::setup::{self, SetupFacts, UnmappedCanvases};

/// Context of one run.
#[derive(Debug)]
pub(crate) struct BatchRun {
    pub(crate) settings: Arc<Settings>,
    pub(crate) worker: CanvasWorker,
    pub(crate) via: Option<RemoteHealer>,
    /// Other processes do a part of the work.
    pub(crate) share: Option<JobShare>,
    pub(crate) items: mpsc::Receiver<SourceItem>,
    pub(crate) expected: Arc<ExpectedCounts>,
    pub(crate) summary: Summary,
    pub(crate) progress: RunProgress,
    /// Canvases worked on at once.
    pub(crate) width: usize,
    /// True if the deployment is checked as well.
    pub(crate) with_setup: bool,
    /// True if only the deployment is checked.
    pub(crate) only_setup: bool,
}

/// Further rounds for canvases that failed for a reason that may pass, each after a pause.
const ROUNDS: u32 = 2;

/// Interval in which the words beside the bar change and the journal is synced.
const TICK_INTERVAL: Duration = Duration::from_millis(250);

/// Images probed before a check of the deployment alone.
const SAMPLE: u64 = 8;

/// The state of a run while it runs.
#[derive(Default)]
struct RunState {
    later: VecDeque<CanvasTask>,
    /// Other processes of the job are at these.
    elsewhere: VecDeque<CanvasTask>,
    /// Canvases that this process did itself, and those that others did.
    shares: (u64, u64),
    round: u32,
    /// Canvases read so far.
    read: u64,
    read_to_the_end: bool,
    alive: Option<IndexedImage>,
    unmapped: UnmappedCanvases,
    troubles: Vec<(Arc<ManifestRef>, ManifestProblem)>,
    undone: bool,
}

impl RunState {
    fn is_done(&self) -> bool {
        self.later.is_empty() && self.elsewhere.is_empty()
    }

    fn pause(&self, worker: &CanvasWorker) -> Duration {
        if self.elsewhere.is_empty() { pause(worker, self.round) } else { job::POLL_INTERVAL }
    }

    /// Takes up units first that other processes had claimed: those may be done, or the processes gone.
    fn take_up_again(&mut self, queue: &mut VecDeque<CanvasTask>) {
        if self.elsewhere.is_empty() {
            self.round += 1;
            queue.append(&mut self.later);
        } else {
            queue.append(&mut self.elsewhere);
        }
    }
}

/// SIGINT and SIGTERM.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Reason why a run ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopReason {
    No,
    /// Requests in flight end.
    Gently,
    AtOnce,
}

impl BatchRun {
    /// Works through everything.
    pub(crate) async fn run(mut self) -> Summary {
        let (Ok(interrupt), Ok(terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            self.summary.interrupted = true;
            return self.summary;
        };
        let mut signals = StopSignals { interrupt, terminate };
        let mut state = RunState::default();
        let mut items = std::mem::replace(&mut self.items, mpsc::channel(1).1);
        let stop = self.work(&mut items, &mut state, &mut signals).await;
        drop(items);
        if stop == StopReason::No {
            self.mend_manifests(std::mem::take(&mut state.troubles)).await;
            self.look_at_setup(&state).await;
        }
        self.end(stop, &state)
    }

    async fn work(
        &mut self,
        items: &mut mpsc::Receiver<SourceItem>,
        state: &mut RunState,
        signals: &mut StopSignals,
    ) -> StopReason {
        let Self { worker, via, share, summary, progress, expected, width, only_setup, .. } = self;
        let (worker, via, share) = (&*worker, via.as_ref(), share.as_ref());
        let mut under_way: FuturesUnordered<LocalBoxFuture<'_, (CanvasTask, CanvasResult)>> =
            FuturesUnordered::new();
        let mut queue: VecDeque<CanvasTask> = VecDeque::new();
        let mut stop = StopReason::No;
        let mut wake = None::<Instant>;
        let mut tick = interval(TICK_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let may_start = stop == StopReason::No && !worker.stopping.get() && wake.is_none();
            while may_start && under_way.len() < *width {
                let Some(unit) = queue.pop_front() else { break };
                let is_last = state.round >= ROUNDS;
                under_way.push(Box::pin(async move {
                    let result = match (via, share) {
                        (Some(via), _) => via.treat(&unit).await,
                        (None, Some(share)) => share.treat(worker, &unit, is_last).await,
                        (None, None) => worker.process(&unit).await,
                    };
                    (unit, result)
                }));
            }
            if under_way.is_empty() && (queue.is_empty() || !may_start) && wake.is_none() {
                if !may_start || (state.read_to_the_end && state.is_done()) {
                    return stop;
                }
                if state.read_to_the_end {
                    wake = Some(Instant::now() + state.pause(worker));
                }
            }
            let is_hungry = may_start && !state.read_to_the_end && under_way.len() < *width;
            tokio::select! {
                Some((unit, result)) = under_way.next(), if !under_way.is_empty() => {
                    settle(worker, summary, state, unit, result);
                    progress.at(&summary.totals, expected.images());
                    if *only_setup && (state.alive.is_some() || summary.totals.images >= SAMPLE) {
                        (state.read_to_the_end, state.later, queue) = (true, VecDeque::new(), VecDeque::new());
                    }
                }
                item = items.recv(), if is_hungry => match item {
                    None => state.read_to_the_end = true,
                    Some(item) => take(worker, summary, state, &mut queue, item),
                },
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    wake = None;
                    state.take_up_again(&mut queue);
                }
                _ = tick.tick() => {
                    progress.words(&summary.totals);
                    progress.at(&summary.totals, expected.images());
                }
                () = signals.next() => stop = stopped(stop, worker, progress, &mut wake),
            }
            if stop == StopReason::AtOnce {
                return stop;
            }
        }
    }

    async fn mend_manifests(&mut self, troubles: Vec<(Arc<ManifestRef>, ManifestProblem)>) {
        let heals = matches!(self.worker.plan.aim, RunMode::Mend | RunMode::MendAll) && self.via.is_none();
        for (named, trouble) in troubles {
            let is_ours = match &self.share {
                Some(share) if heals => share.is_ours(&self.worker, &named.uri).await,
                _ => true,
            };
            let cured = match &trouble.poisoned {
                Some(_) if !is_ours => Some(Err("another process of the job cures it".to_owned())),
                Some(known) if heals => Some(manifests::cure(&self.worker.healer, &named.uri, known).await),
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

    async fn look_at_setup(&mut self, state: &RunState) {
        if !self.with_setup {
            return;
        }
        let facts = match &state.alive {
            Some(image) => Some(self.worker.healer.inspect(image).await),
            None => None,
        };
        let unreachable = if self.only_setup { Some(self.worker.healer.unreachable().await) } else { None };
        let canvases = state.unmapped.clone();
        let facts = SetupFacts { index: None, canvases, unreachable, deployment: facts };
        self.summary.setup = setup::findings(&self.settings, &facts);
    }

    fn end(self, stop: StopReason, state: &RunState) -> Summary {
        let Self { worker, share, mut summary, progress, .. } = self;
        progress.finish();
        summary.images.sort_by_key(|entry| entry.place);
        // Canvases that were to be tried again and were not are reported as they are now.
        summary.interrupted = stop != StopReason::No || state.undone || worker.stopping.get();
        if let Some(share) = &share {
            let (own, others) = state.shares;
            let name = &share.name;
            progress.say(&match own {
                0 if others > 0 => format!("job {name}: {}, all by others", counted(others, "canvas")),
                _ => format!("job {name}: {} by this run, {others} by others", counted(own, "canvas")),
            });
        }
        let requests = worker.requests();
        summary.count_requests(requests);
        let mut journal = worker.journal.into_inner();
        journal.sent(requests);
        if let Some(error) = worker.broken_journal.into_inner() {
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

/// Pause before another round: the cool-down of a canvas after a failure, or the `Retry-After` of the service.
fn pause(worker: &CanvasWorker, round: u32) -> Duration {
    let rest = worker.healer.retry_after().unwrap_or_default();
    let cool = worker.healer.cooldown().saturating_mul(1 << round.min(4));
    (cool.mul_f64(1.15) + Duration::from_millis(50)).max(rest)
}

fn stopped(
    stop: StopReason,
    worker: &CanvasWorker,
    progress: &RunProgress,
    wake: &mut Option<Instant>,
) -> StopReason {
    worker.stopping.set(true);
    *wake = None;
    if stop == StopReason::No {
        progress.say("stopping: what is under way ends; once more stops at once");
        StopReason::Gently
    } else {
        StopReason::AtOnce
    }
}

fn take(
    worker: &CanvasWorker,
    summary: &mut Summary,
    state: &mut RunState,
    queue: &mut VecDeque<CanvasTask>,
    item: SourceItem,
) {
    match item {
        SourceItem::Problem(problem) => summary.problems.push(problem),
        SourceItem::Trouble(named, trouble) => state.troubles.push((named, trouble)),
        SourceItem::Unit(mut unit) => {
            state.read += 1;
            unit.place = state.read;
            if let Some(canvas) = &unit.canvas {
                state.unmapped.note(&worker.healer, canvas, &unit.images);
            }
            if worker.journal.borrow_mut().take_up(unit.id()) {
                queue.push_back(unit);
            }
        }
    }
}

fn settle(
    worker: &CanvasWorker,
    summary: &mut Summary,
    state: &mut RunState,
    unit: CanvasTask,
    mut result: CanvasResult,
) {
    if state.alive.is_none() {
        state.alive = result.alive.take();
    }
    if result.by == HandledBy::NobodyYet {
        if worker.stopping.get() {
            state.undone = true;
        } else {
            state.elsewhere.push_back(unit);
        }
        return;
    }
    let (own, others) = &mut state.shares;
    *if result.by == HandledBy::Others { others } else { own } += u64::from(!result.again && !result.undone);
    if result.again && state.round < ROUNDS && !worker.stopping.get() {
        state.later.push_back(unit);
        return;
    }
    state.undone |= result.undone;
    if result.by == HandledBy::Us {
        result.asked += worker.requests();
    }
    let is_to_go_on = result.undone || (result.again && worker.stopping.get());
    if is_to_go_on {
        worker.journal.borrow_mut().sent(result.asked);
    } else if let Err(error) = worker.journal.borrow_mut().done(&unit, &result) {
        *worker.broken_journal.borrow_mut() = Some(error.to_string());
        worker.stopping.set(true);
    }
    summary.take(&unit.manifest, result.images, result.entries, result.asked);
}
