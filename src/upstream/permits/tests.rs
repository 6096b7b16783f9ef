use std::net::Ipv4Addr;

use super::*;
use crate::upstream::client::Client;
use crate::upstream::{Clients, MemoryBudget};

const SOON: Duration = Duration::from_secs(5);
const KINDS: [RouteKind; 3] = [RouteKind::Image, RouteKind::Presentation, RouteKind::Plain];

fn client(clients: &Clients, last: u8) -> Arc<Client> {
    clients.get(Ipv4Addr::new(192, 0, 2, last).into())
}

fn clients() -> Clients {
    Clients::new(
        MemoryBudget::new(1000, prometheus_client::metrics::gauge::Gauge::default()),
        100,
        Counter::default(),
    )
}

fn permits(most: usize) -> Arc<Permits> {
    Permits::new(most, Counter::default())
}

async fn now(permits: &Arc<Permits>, kind: RouteKind) -> Option<ClientPermit> {
    permits.acquire(kind, || None, Duration::ZERO).await
}

#[tokio::test(start_paused = true)]
async fn no_kind_takes_what_is_kept_for_the_others() {
    for kind in KINDS {
        let permits = permits(8);
        let mut held = Vec::new();
        while let Some(permit) = now(&permits, kind).await {
            held.push(permit);
        }
        assert_eq!(held.len(), 6);
        for other in KINDS.into_iter().filter(|other| *other != kind) {
            held.extend(now(&permits, other).await);
        }
        assert_eq!((held.len(), permits.taken()), (8, 8));
        drop(held);
        assert_eq!(permits.taken(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn one_permit_is_enough_for_every_kind_in_turn() {
    let permits = permits(0);
    for kind in KINDS {
        let only = now(&permits, kind).await.expect("a permit");
        assert!(now(&permits, RouteKind::Image).await.is_none());
        drop(only);
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_permit_goes_to_the_client_that_holds_the_fewest() {
    let (permits, clients) = (permits(1), clients());
    let (greedy, modest) = (client(&clients, 1), client(&clients, 2));
    let _others =
        [now(greedy.permits(), RouteKind::Image).await, now(greedy.permits(), RouteKind::Image).await];
    let held = now(&permits, RouteKind::Image).await.expect("a permit");
    let waits = |client: &Arc<Client>| {
        let (permits, client) = (Arc::clone(&permits), Arc::clone(client));
        tokio::spawn(async move { permits.acquire(RouteKind::Image, || Some(client as _), SOON).await })
    };
    let (first, second) = (waits(&greedy), waits(&greedy));
    tokio::task::yield_now().await;
    let third = waits(&modest);
    tokio::task::yield_now().await;
    drop(held);
    let permit = third.await.expect("no panic").expect("it goes first");
    assert!(!first.is_finished() && !second.is_finished());
    drop(permit);
    drop(first.await.expect("no panic").expect("next"));
    assert!(second.await.expect("no panic").is_some());
    assert_eq!((permits.taken(), permits.waiting.load(SeqCst)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_leaves_the_queue_and_takes_no_permit() {
    let permits = permits(1);
    let held = now(&permits, RouteKind::Plain).await.expect("a permit");
    for _ in 0..3 {
        assert!(permits.acquire(RouteKind::Plain, || None, RECHECK).await.is_none());
    }
    assert_eq!(permits.waiting.load(SeqCst), 0);
    let gone = tokio::spawn({
        let permits = Arc::clone(&permits);
        async move { permits.acquire(RouteKind::Plain, || None, SOON).await }
    });
    tokio::task::yield_now().await;
    gone.abort();
    drop(held);
    assert!(gone.await.is_err());
    assert_eq!((permits.taken(), permits.waiting.load(SeqCst)), (0, 0));
}

#[tokio::test]
async fn a_transfer_that_waits_for_its_client_ends_when_somebody_waits_for_its_permit() {
    let (permits, clients) = (permits(1), clients());
    let held = now(&permits, RouteKind::Image).await.expect("a permit");
    let transfer = Transfer::new(Some(client(&clients, 1)), ());
    permits.watch(&(Arc::clone(&transfer) as _));
    let ended = tokio::spawn({
        let transfer = Arc::clone(&transfer);
        async move {
            std::future::poll_fn(|cx| transfer.poll_ended(cx)).await;
            drop(held);
        }
    });
    assert!(permits.acquire(RouteKind::Image, || None, 2 * STALLED).await.is_none(), "its client moves");
    transfer.waits_for_client(true);
    assert!(permits.acquire(RouteKind::Image, || None, SOON).await.is_some());
    ended.await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn where_too_many_wait_the_client_that_asks_for_the_most_is_refused() {
    let (permits, clients) = (permits(1), clients());
    let (greedy, modest) = (client(&clients, 1), client(&clients, 2));
    let _load = now(greedy.permits(), RouteKind::Image).await;
    let held = now(&permits, RouteKind::Image).await.expect("a permit");
    let waits = |client: &Arc<Client>| {
        let (permits, client) = (Arc::clone(&permits), Arc::clone(client));
        tokio::spawn(
            async move { permits.acquire(RouteKind::Image, || Some(client as _), SOON).await.is_some() },
        )
    };
    let many: Vec<_> = (0..WAITERS_PER_PERMIT).map(|_| waits(&greedy)).collect();
    tokio::task::yield_now().await;
    let one = waits(&modest);
    tokio::task::yield_now().await;
    assert_eq!(permits.waiting.load(SeqCst), WAITERS_PER_PERMIT);
    assert_eq!(many.iter().filter(|waiter| waiter.is_finished()).count(), 1);
    drop(held);
    assert!(one.await.expect("no panic"));
}
