//! A source that asks for a pause gets it, within bounds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::*;

/// Answers 503 with this `Retry-After` so often, then the manifest.
fn busy(times: usize, retry_after: &'static str) -> Origin {
    let left = AtomicUsize::new(times);
    Origin::start(move |_| {
        if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            Origin::answer(503, &[("retry-after", retry_after)], Flow::sized("busy"))
        } else {
            answer(&manifest("a", &["a"]))
        }
    })
}

#[tokio::test]
async fn a_source_that_asks_for_a_pause_is_asked_again_after_it() {
    let origin = busy(2, "1");
    let (bench, began) = (Bench::new(), Instant::now());
    let report = bench.refresh(&source(&origin, "/a")).await;
    assert_eq!((report.problems.len(), report.manifests), (0, 1), "{:?}", report.problems);
    assert_eq!(origin.seen().len(), 3);
    assert!(began.elapsed() >= Duration::from_secs(2));
}

#[tokio::test]
async fn one_that_asks_for_too_much_is_left_until_the_next_time() {
    for (times, retry_after, asked) in [(1, "3600", 1), (100, "1", 3)] {
        let origin = busy(times, retry_after);
        let bench = Bench::with(|settings| settings.index.max_pause = Duration::from_millis(2500));
        let report = bench.refresh(&source(&origin, "/a")).await;
        assert_eq!((report.problems.len(), report.manifests), (1, 0));
        assert!(report.problems[0].message.contains("503"), "{:?}", report.problems);
        assert_eq!(origin.seen().len(), asked, "{retry_after}");
    }
}
