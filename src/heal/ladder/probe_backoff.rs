//! Pauses between probes for an image while its canvas is still being built.

use std::time::Duration;

/// UPSTREAM: the image is good again before the canvas request ends (upstream.md "Ways back to life"), so the first probe
/// comes soon, then fewer and fewer.
#[derive(Debug)]
pub(in crate::heal) struct ProbeBackoff {
    next: Duration,
}

const FIRST: Duration = Duration::from_millis(50);
const SLOWEST: Duration = Duration::from_secs(1);

impl Default for ProbeBackoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Iterator for ProbeBackoff {
    type Item = Duration;

    /// The pause before the next probe; the iterator never ends.
    fn next(&mut self) -> Option<Duration> {
        let pause = self.next;
        self.next = (pause * 2).min(SLOWEST);
        Some(pause)
    }
}
