//! Sweep: probes every image of the index at a polite rate, and heals in the lowest lane those that are gone.
//!
//! The position of a sweep is kept in a small file beside the index, so that an interrupted sweep goes on after a restart.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::mpsc;

use crate::heal::background::scan::BackgroundScan;
use crate::heal::background::start_heal::{BackgroundContext, StartHeal};
use crate::heal::canvas_service::priority_semaphore::Priority;

/// Images read from the index ahead of the sweep.
const READ_AHEAD: usize = 256;

/// Images between two writes of the position (and log lines of the progress).
const NOTE_EVERY: u64 = 500;

const IDLE: u8 = 0;
const SWEEPING: u8 = 1;
/// Stopping: the next sweep can begin only after this one has ended.
const STOPPING: u8 = 2;

/// `Sweep` goes through the whole index, one sweep at a time.
#[derive(Debug)]
pub(in crate::heal) struct Sweep {
    context: Arc<BackgroundContext>,
    state: Arc<SweepState>,
}

/// `SweepState` is idle, sweeping, or stopping.
#[derive(Debug, Default)]
pub(in crate::heal) struct SweepState(AtomicU8);

impl Sweep {
    pub(in crate::heal) fn new(context: Arc<BackgroundContext>, state: Arc<SweepState>) -> Self {
        Self { context, state }
    }

    /// Begins a sweep of the whole index; `false`: there is one already.
    pub(in crate::heal) fn start(self: &Arc<Self>, heals: &Arc<dyn StartHeal>) -> bool {
        let is_new = !self.is_under_way();
        if is_new {
            let (sweep, heals) = (Arc::clone(self), Arc::clone(heals));
            self.context.home.spawn(async move { sweep.run(&heals).await });
        }
        is_new
    }

    /// Ends the sweep, and forgets its position; `false`: there is none. Heals under way go on.
    pub(in crate::heal) fn stop(&self) -> bool {
        self.state.0.compare_exchange(SWEEPING, STOPPING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(in crate::heal) fn is_under_way(&self) -> bool {
        self.state.0.load(Ordering::Acquire) != IDLE
    }

    /// Goes on with a sweep that was interrupted, if there is one.
    pub(in crate::heal) async fn resume(&self, heals: &Arc<dyn StartHeal>) {
        let file = self.position_file();
        let heal = &self.context.settings.heal;
        if heal.enabled && heal.sweep && tokio::fs::try_exists(&file).await.unwrap_or(false) {
            tracing::info!(file = %file.display(), "a sweep was interrupted: going on with it");
            self.run(heals).await;
        }
    }

    /// Sweeps the whole index. A call during a sweep does nothing.
    pub(in crate::heal) async fn run(&self, heals: &Arc<dyn StartHeal>) {
        let Some(scan) = BackgroundScan::new(&self.context, heals, Priority::Background) else { return };
        if self.state.0.compare_exchange(IDLE, SWEEPING, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return;
        }
        let file = self.position_file();
        let start = read_position(&file).await;
        note_position(&file, start).await;
        let mut scan = scan.at_sweep_rate();
        let mut images = self.images_from(start);
        while let Some((manifest, key)) = images.recv().await {
            if self.state.0.load(Ordering::Acquire) == STOPPING {
                break;
            }
            scan.probe(&manifest, &key).await;
            let (looked_at, gone) = scan.counts();
            if looked_at % NOTE_EVERY == 0 {
                note_position(&file, start + looked_at).await;
                tracing::info!(looked_at = start + looked_at, gone, "sweep");
            }
        }
        let (looked_at, gone) = scan.end().await;
        if let Err(error) = tokio::fs::remove_file(&file).await {
            tracing::warn!(%error, file = %file.display(), "the sweep's position cannot be deleted");
        }
        tracing::info!(looked_at = start + looked_at, gone, "sweep ended");
        self.state.0.store(IDLE, Ordering::Release);
    }

    /// Lookup keys of all images after the first `skip`, in the order of the index.
    fn images_from(&self, skip: u64) -> mpsc::Receiver<(String, String)> {
        let (sender, images) = mpsc::channel(READ_AHEAD);
        let index = Arc::clone(self.context.lookup.index());
        tokio::task::spawn_blocking(move || {
            let mut position = 0;
            let read = index.export(&mut |image| {
                position += 1;
                if position <= skip {
                    return ControlFlow::Continue(());
                }
                match sender.blocking_send((image.manifest, image.image)) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            });
            if let Err(error) = read {
                tracing::error!(%error, "the sweep cannot read the index");
            }
        });
        images
    }

    fn position_file(&self) -> PathBuf {
        let mut name = self.context.settings.index.path.clone().into_os_string();
        name.push(".sweep");
        name.into()
    }
}

async fn read_position(file: &Path) -> u64 {
    let text = tokio::fs::read_to_string(file).await.unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Writes the position. A lost position costs a second probe of some images, no more.
async fn note_position(file: &Path, at: u64) {
    if let Err(error) = tokio::fs::write(file, format!("{at}\n")).await {
        tracing::warn!(%error, file = %file.display(), "the sweep's position cannot be written down");
    }
}
