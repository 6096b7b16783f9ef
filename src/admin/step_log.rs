//! Steps of the last heals, in memory since the start: rung, answer and duration of each. The history keeps only the end of
//! a heal, and steps are published only once, as live events.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;

use crate::observe::{LiveEvent, Metrics};

/// Heals that are remembered.
const HEALS: usize = 2000;

/// Steps of one heal.
const STEPS: usize = 32;

/// A request of a heal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealRequest {
    /// End of the step, unix milliseconds.
    pub at: i64,
    /// The rung.
    pub rung: &'static str,
    /// Answer of the canvas service.
    pub answer: &'static str,
    /// Reason why the step did not help: the status, or the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Duration in milliseconds.
    pub duration_ms: u64,
}

/// Steps of the last heals. Cheap to clone: clones share their content.
#[derive(Debug, Clone, Default)]
pub struct HealStepLog(Arc<Mutex<StepPages>>);

type HealName = (String, String);

#[derive(Debug, Default)]
struct StepPages {
    steps: HashMap<HealName, Vec<HealRequest>>,
    order: VecDeque<HealName>,
}

impl HealStepLog {
    /// Records steps from live events, until the channel closes.
    pub async fn run(self, metrics: Arc<Metrics>) {
        let mut news = metrics.listen();
        drop(metrics);
        loop {
            match news.recv().await {
                Ok(news) => {
                    if let LiveEvent::HealStep { request, identifier, rung, answer, reason, duration_ms } =
                        news.event
                    {
                        self.record(
                            (request, identifier),
                            HealRequest { at: news.at, rung, answer, reason, duration_ms },
                        );
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Returns the steps of the heal of this image that this request began; none: forgotten, or there were none.
    pub fn steps(&self, request: &str, identifier: &str) -> Vec<HealRequest> {
        let name = (request.to_owned(), identifier.to_owned());
        self.0.lock().steps.get(&name).cloned().unwrap_or_default()
    }

    fn record(&self, name: HealName, step: HealRequest) {
        let mut pages = self.0.lock();
        if let Some(steps) = pages.steps.get_mut(&name) {
            if steps.len() < STEPS {
                steps.push(step);
            }
            return;
        }
        if pages.order.len() == HEALS
            && let Some(oldest) = pages.order.pop_front()
        {
            pages.steps.remove(&oldest);
        }
        pages.order.push_back(name.clone());
        pages.steps.insert(name, vec![step]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_heals_are_forgotten() {
        let step_log = HealStepLog::default();
        let step = HealRequest { at: 1, rung: "visit", answer: "carries", reason: None, duration_ms: 2 };
        for heal in 0..=HEALS {
            for _ in 0..=STEPS {
                step_log.record((heal.to_string(), "a".to_owned()), step.clone());
            }
        }
        assert_eq!(step_log.steps("0", "a"), []);
        assert_eq!(step_log.steps("1", "a").len(), STEPS);
        assert_eq!(step_log.steps("1", "b"), []);
    }
}
