//! Stress tests of flights, lanes and breaker on many threads, thousands of times. Plain tokio and real threads: the races
//! that matter here lie between two short locks, and are met many times a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use futures_util::future::join_all;
use tokio::task::yield_now;

use crate::heal::canvas_service::circuit_breaker::{BreakerState, CircuitBreaker};
use crate::heal::canvas_service::priority_semaphore::{Priority, PrioritySemaphore};
use crate::heal::flight_priority::FlightPriority;
use crate::heal::single_flight::SingleFlight;

const THREADS: usize = 4;

/// Fails on a timeout: a lost wake-up would hang.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("a wake-up was lost")
}

/// `PermitGuard` counts the holders of permits.
struct PermitGuard<'a>(&'a AtomicUsize);

impl Drop for PermitGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn never_more_places_than_there_are_and_every_waiter_gets_one() {
    let lanes = PrioritySemaphore::new(2);
    let (inside, most, served) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let visitors = (0..6_000usize).map(|number| {
        let (lanes, inside) = (Arc::clone(&lanes), Arc::clone(&inside));
        let (most, served) = (Arc::clone(&most), Arc::clone(&served));
        tokio::spawn(async move {
            let urgency = FlightPriority::new(Priority::ALL[number % 3]);
            let permit = urgency.acquire(&lanes).await;
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // The guard is dropped before the permit, also where the task is aborted in between.
            let inside = PermitGuard(&inside);
            yield_now().await;
            drop(inside);
            served.fetch_add(1, Ordering::SeqCst);
            drop(permit);
        })
    });
    let visitors: Vec<_> = visitors.collect();
    // Every tenth visitor leaves, at any point of its way.
    for leaving in visitors.iter().step_by(10) {
        leaving.abort();
    }
    soon(join_all(visitors)).await;
    assert!(most.load(Ordering::SeqCst) <= 2, "{} at once", most.load(Ordering::SeqCst));
    assert!(served.load(Ordering::SeqCst) >= 5_400);
    assert_eq!((lanes.waiting(), lanes.free()), ([0; 3], 2), "nothing leaked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_promotion_is_never_lost_between_lane_and_queue() {
    for _ in 0..300 {
        let lanes = PrioritySemaphore::new(1);
        let held = lanes.acquire(|_| Priority::Viewer).await;
        let waiters: Vec<_> = (0..THREADS)
            .flat_map(|_| {
                let urgency = FlightPriority::new(Priority::Background);
                let (own, lanes) = (Arc::clone(&urgency), Arc::clone(&lanes));
                let waits = tokio::spawn(async move { drop(own.acquire(&lanes).await) });
                [waits, tokio::spawn(async move { urgency.raise(Priority::Viewer) })]
            })
            .collect();
        soon(async {
            while lanes.waiting().iter().sum::<usize>() < THREADS
                || !waiters.iter().skip(1).step_by(2).all(tokio::task::JoinHandle::is_finished)
            {
                yield_now().await;
            }
        })
        .await;
        assert_eq!(lanes.waiting(), [THREADS, 0, 0], "a viewer stands in the sweep lane");
        drop(held);
        soon(join_all(waiters)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_lane_starves_while_viewers_never_end() {
    let lanes = PrioritySemaphore::new(1);
    let held = lanes.acquire(|_| Priority::Viewer).await;
    let sweeper = tokio::spawn({
        let lanes = Arc::clone(&lanes);
        async move { drop(lanes.acquire(|_| Priority::Background).await) }
    });
    while lanes.waiting()[Priority::Background as usize] == 0 {
        yield_now().await;
    }
    let stop = Arc::new(AtomicUsize::new(0));
    let viewers = (0..50).map(|_| {
        let (lanes, stop) = (Arc::clone(&lanes), Arc::clone(&stop));
        tokio::spawn(async move {
            while stop.load(Ordering::Relaxed) == 0 {
                drop(lanes.acquire(|_| Priority::Viewer).await);
                yield_now().await;
            }
        })
    });
    let viewers: Vec<_> = viewers.collect();
    drop(held);
    soon(sweeper).await.expect("it got its place");
    stop.store(1, Ordering::Relaxed);
    soon(join_all(viewers)).await;
    assert_eq!(lanes.free(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_flights_about_few_things_all_land_and_tell_everybody() {
    let flights = Arc::new(SingleFlight::<usize, usize>::here());
    let (flying, runs) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let passengers = (0..10_000usize).map(|number| {
        let (flights, flying, runs) = (Arc::clone(&flights), Arc::clone(&flying), Arc::clone(&runs));
        tokio::spawn(async move {
            let about = number % 7;
            let mut handle = flights.join_or_start(&about, Priority::ALL[number % 3], |_| {
                let flying = Arc::clone(&flying);
                async move {
                    runs.fetch_add(1, Ordering::SeqCst);
                    assert!(flying.fetch_add(1, Ordering::SeqCst) < 7, "two flights about one thing");
                    yield_now().await;
                    flying.fetch_sub(1, Ordering::SeqCst);
                    about
                }
            });
            assert_eq!(handle.wait().await, Some(about));
        })
    });
    for passenger in soon(join_all(passengers.collect::<Vec<_>>())).await {
        passenger.expect("it landed");
    }
    assert_eq!(flights.len(), 0, "nothing leaked");
    assert!(runs.load(Ordering::SeqCst) >= 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_open_breaker_lets_one_try_at_a_time_and_one_good_answer_closes_it() {
    let open_for = Duration::from_hours(1);
    for _ in 0..500 {
        let breaker = Arc::new(CircuitBreaker::new(1, open_for));
        let start = Instant::now();
        assert!(breaker.record_failure(start));
        let tries = (0..8).map(|_| {
            let breaker = Arc::clone(&breaker);
            tokio::spawn(async move { usize::from(breaker.try_acquire(start + open_for).is_ok()) })
        });
        let passed: usize = join_all(tries).await.into_iter().map(|passed| passed.expect("no panic")).sum();
        assert_eq!(passed, 1);
        breaker.record_success();
        assert_eq!(breaker.state(start), BreakerState::Closed);
    }
}
