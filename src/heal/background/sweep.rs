//! A sweep: every image of the index is looked at, at a polite rate, and healed in the lowest lane if it is gone.
//!
//! Its position is kept in a small file beside the index, so that an interrupted sweep goes on after the next start.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::heal::Healer;
use crate::heal::background::scan::BackgroundScan;
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::ward::Ward;
use tokio::sync::mpsc;

/// Images read from the index ahead of the sweep.
const READ_AHEAD: usize = 256;

/// The position is written down, and the progress told, after so many images.
const NOTE_EVERY: u64 = 500;

const IDLE: u8 = 0;
const SWEEPING: u8 = 1;
/// Asked to end; another one begins only when it has.
const STOPPING: u8 = 2;

impl Healer {
    /// Begins a sweep of the whole index; `false`: there is one already.
    pub fn start_sweep(&self) -> bool {
        let is_new = self.ward.sweeping.load(Ordering::Acquire) == IDLE;
        if is_new {
            let ward = Arc::clone(&self.ward);
            self.ward.home.spawn(async move { ward.sweep_all().await });
        }
        is_new
    }

    /// Ends the sweep, and forgets how far it came; `false`: there is none. Heals under way go on.
    pub fn stop_sweep(&self) -> bool {
        let sweeping = &self.ward.sweeping;
        sweeping.compare_exchange(SWEEPING, STOPPING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// A sweep is under way.
    pub fn is_sweeping(&self) -> bool {
        self.ward.sweeping.load(Ordering::Acquire) != IDLE
    }
}

impl Ward {
    /// Goes on with a sweep that was interrupted, if there is one.
    pub(in crate::heal) async fn resume_sweep(self: Arc<Self>) {
        let file = self.position_file();
        let heal = &self.settings.heal;
        if heal.enabled && heal.sweep && tokio::fs::try_exists(&file).await.unwrap_or(false) {
            tracing::info!(file = %file.display(), "a sweep was interrupted: going on with it");
            self.sweep_all().await;
        }
    }

    /// Sweeps the whole index. One at a time; a second call does nothing.
    pub(in crate::heal) async fn sweep_all(self: &Arc<Self>) {
        let Some(scan) = BackgroundScan::new(self, Priority::Background) else { return };
        if self.sweeping.compare_exchange(IDLE, SWEEPING, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return;
        }
        let file = self.position_file();
        let start = read_position(&file).await;
        note_position(&file, start).await;
        let mut scan = scan.at_sweep_rate();
        let mut images = self.images_from(start);
        while let Some((manifest, key)) = images.recv().await {
            if self.sweeping.load(Ordering::Acquire) == STOPPING {
                break;
            }
            scan.look(&manifest, &key).await;
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
        self.sweeping.store(IDLE, Ordering::Release);
    }

    /// Lookup keys of all images behind the first `skip`, in the order of the index.
    fn images_from(&self, skip: u64) -> mpsc::Receiver<(String, String)> {
        let (tell, told) = mpsc::channel(READ_AHEAD);
        let index = Arc::clone(&self.index);
        tokio::task::spawn_blocking(move || {
            let mut position = 0;
            let read = index.export(&mut |image| {
                position += 1;
                if position <= skip {
                    return ControlFlow::Continue(());
                }
                match tell.blocking_send((image.manifest, image.image)) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            });
            if let Err(error) = read {
                tracing::error!(%error, "the sweep cannot read the index");
            }
        });
        told
    }

    fn position_file(&self) -> PathBuf {
        let mut name = self.settings.index.path.clone().into_os_string();
        name.push(".sweep");
        name.into()
    }
}

async fn read_position(file: &Path) -> u64 {
    let text = tokio::fs::read_to_string(file).await.unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// A position that is lost costs a second look at some images, no more.
async fn note_position(file: &Path, at: u64) {
    if let Err(error) = tokio::fs::write(file, format!("{at}\n")).await {
        tracing::warn!(%error, file = %file.display(), "the sweep's position cannot be written down");
    }
}
