//! Data of the live dashboard: current counts and gauges, samples of the last half hour, and events as they happen.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::broadcast;

/// A point every so often.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// Number of points: half an hour.
const POINTS: usize = 360;

/// Events that a slow listener may lag behind before it loses some.
const QUEUE: usize = 256;

/// Sample of the last half hour. Counts are those since the sample before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Unix milliseconds.
    pub at: i64,
    /// Requests of viewers.
    pub requests: u64,
    /// Answers with an image that had to be brought back.
    pub healed: u64,
    /// Answers without the requested image: missing, cooling, pending, failed.
    pub broken: u64,
    /// Requests that we answered ourselves.
    pub refused: u64,
    /// Requests to the canvas services that make them work.
    pub canvas_requests: u64,
    /// Viewers waiting at that time.
    pub waiting: i64,
    /// Heals under way then.
    pub flights: i64,
    /// Viewers' connections then.
    pub connections: i64,
}

/// Event of the live feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublishedEvent {
    /// Unix milliseconds.
    pub at: i64,
    /// Content of the event.
    #[serde(flatten)]
    pub event: LiveEvent,
}

/// Kinds of live events. `request` is the id of the request that caused the event, as in the log and the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LiveEvent {
    /// A heal began.
    HealStarted {
        /// Id of the request that began the heal.
        request: String,
        /// Lookup key of the image.
        identifier: String,
        /// Lane of the heal.
        lane: &'static str,
    },
    /// A request of a heal ended.
    HealStep {
        /// Id of the request that began the heal.
        request: String,
        /// Lookup key of the image.
        identifier: String,
        /// The rung.
        rung: &'static str,
        /// Answer of the canvas service.
        answer: &'static str,
        /// Reason why the step did not help, in words: the status, or the error.
        reason: Option<String>,
        /// Duration in milliseconds.
        duration_ms: u64,
    },
    /// A heal ended.
    HealEnded {
        /// Id of the request that began the heal.
        request: String,
        /// Lookup key of the image.
        identifier: String,
        /// Lane of the heal.
        lane: &'static str,
        /// Verdict of the heal.
        verdict: &'static str,
        /// The rung that helped, or `none`.
        rung: &'static str,
        /// Duration in milliseconds.
        duration_ms: u64,
        /// Viewers who waited for the heal.
        waiting: u32,
        /// Reason why the image is not back; `None`: it is.
        reason: Option<String>,
    },
    /// A breaker opened or closed.
    Breaker {
        /// Host and port of the service.
        upstream: String,
        /// True while the breaker is open: the service is left alone.
        open: bool,
    },
    /// Very many images are gone at once.
    MassExpiry {
        /// Manifests that are being read, and are healed first.
        manifests: usize,
    },
}

/// Totals at some moment, from which points are made.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) requests: u64,
    pub(super) healed: u64,
    pub(super) broken: u64,
    pub(super) refused: u64,
    pub(super) canvas_requests: u64,
}

/// Samples of the last minutes, and the subscribers.
#[derive(Debug)]
pub(super) struct LiveFeed {
    past: Mutex<SampleHistory>,
    news: broadcast::Sender<PublishedEvent>,
}

#[derive(Debug, Default)]
struct SampleHistory {
    last: Totals,
    points: VecDeque<Sample>,
}

impl Default for LiveFeed {
    fn default() -> Self {
        Self { past: Mutex::default(), news: broadcast::channel(QUEUE).0 }
    }
}

impl LiveFeed {
    /// Makes a point of the difference to the last totals; `gauges` carries the rest.
    pub(super) fn sample(&self, now: Totals, gauges: Sample) {
        let mut past = self.past.lock();
        let last = std::mem::replace(&mut past.last, now);
        if past.points.len() == POINTS {
            past.points.pop_front();
        }
        past.points.push_back(Sample {
            at: now_ms(),
            requests: now.requests.saturating_sub(last.requests),
            healed: now.healed.saturating_sub(last.healed),
            broken: now.broken.saturating_sub(last.broken),
            refused: now.refused.saturating_sub(last.refused),
            canvas_requests: now.canvas_requests.saturating_sub(last.canvas_requests),
            ..gauges
        });
    }

    pub(super) fn points(&self) -> Vec<Sample> {
        self.past.lock().points.iter().copied().collect()
    }

    /// Publishes to subscribers; without subscribers the event is not built.
    pub(super) fn publish(&self, event: impl FnOnce() -> LiveEvent) {
        if self.news.receiver_count() > 0 {
            let _ = self.news.send(PublishedEvent { at: now_ms(), event: event() });
        }
    }

    pub(super) fn listen(&self) -> broadcast::Receiver<PublishedEvent> {
        self.news.subscribe()
    }
}

/// Unix milliseconds.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_differences_and_the_oldest_go() {
        let live = LiveFeed::default();
        for requests in 1..=(POINTS as u64 + 2) {
            live.sample(Totals { requests: requests * 10, ..Totals::default() }, Sample::default());
        }
        let points = live.points();
        assert_eq!(points.len(), POINTS);
        assert!(points.iter().all(|point| point.requests == 10));
    }

    #[test]
    fn news_are_made_for_listeners_only() {
        let live = LiveFeed::default();
        live.publish(|| unreachable!("nobody listens"));
        let mut listener = live.listen();
        live.publish(|| LiveEvent::MassExpiry { manifests: 3 });
        assert_eq!(listener.try_recv().expect("news").event, LiveEvent::MassExpiry { manifests: 3 });
    }
}
