//! Eviction: which connection is closed for a new one when all permits are taken.
//!
//! SECURITY: connections that send nothing, or that do not take their answers, cost nothing to open. A client that holds
//! many of them must not shut out one that comes with its first.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{AbortHandle, Id};

use super::activity::{ConnectionActivity, RequestProgress};
use crate::upstream::Client;

/// The open connections of one socket.
#[derive(Debug, Default)]
pub(super) struct OpenConnections(HashMap<Id, OpenConnection>);

/// An open connection.
#[derive(Debug)]
pub(super) struct OpenConnection {
    pub(super) activity: Arc<ConnectionActivity>,
    pub(super) task: AbortHandle,
}

/// Rank of a connection, compared with a newcomer: the first is evicted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum EvictionRank {
    /// At rest, of a client that has more connections.
    RestingOfMore,
    /// Stuck, of the same client or of one that has more connections.
    Stuck,
    /// In flight, of a client that has [far more](FAR_MORE) connections.
    MovingOfFarMore,
    /// At rest, of a client that has as many connections.
    RestingOfEqual,
}

/// Factor of connections over the newcomer's at which a client may lose one that is being answered. A browser opens six
/// connections to a host.
const FAR_MORE: usize = 8;

/// Order of eviction: rank, then the client with the most connections, then the longest time without a change.
type EvictionOrder = (EvictionRank, std::cmp::Reverse<usize>, std::cmp::Reverse<Duration>);

impl OpenConnections {
    pub(super) fn add(&mut self, connection: OpenConnection) {
        self.0.insert(connection.task.id(), connection);
    }

    /// Removes a connection whose task ended.
    pub(super) fn remove(&mut self, task: Id) {
        self.0.remove(&task);
    }

    /// True if a connection would be closed for a client that has none yet.
    pub(super) fn can_evict(&self) -> bool {
        let now = Instant::now();
        self.0.values().any(|open| open.order(None, 1, now).is_some())
    }

    /// Closes a connection for another one of `client`, if one ranks lower.
    #[cfg(test)]
    fn evict(&mut self, client: Option<&Arc<Client>>) -> bool {
        self.evict_up_to(1, client) == 1
    }

    /// Closes at most `most` connections of lower rank for another one of `client`. Returns how many were closed.
    pub(super) fn evict_up_to(&mut self, most: usize, client: Option<&Arc<Client>>) -> usize {
        let now = Instant::now();
        let own = client.map_or(1, |client| client.connections());
        let orders = self.0.iter().filter_map(|(id, open)| Some((open.order(client, own, now)?, *id)));
        let first: Vec<_> = if most == 1 {
            orders.min_by_key(|(order, _)| *order).into_iter().collect()
        } else {
            let mut orders: Vec<_> = orders.collect();
            orders.sort_unstable_by_key(|(order, _)| *order);
            orders.truncate(most);
            orders
        };
        let closed = first.iter().filter_map(|(_, id)| self.0.remove(id)).map(|open| open.task.abort());
        closed.count()
    }
}

impl OpenConnection {
    /// Order of eviction; `None`: not to be closed for a connection of `client`, which has `own` of them.
    fn order(&self, client: Option<&Arc<Client>>, own: usize, now: Instant) -> Option<EvictionOrder> {
        if self.task.is_finished() {
            return None;
        }
        let (progress, since) = self.activity.progress(now);
        let whose = self.activity.client();
        let is_own = matches!((whose, client), (Some(Some(one)), Some(other)) if Arc::ptr_eq(one, other));
        // A connection whose PROXY header has not come counts as the first connection of its client.
        let count = whose.map_or(Some(1), |whose| whose.map(|client| client.connections()));
        let has_more = count.is_none_or(|count| count > own);
        let has_far_more = count.is_some_and(|count| count > own.saturating_mul(FAR_MORE));
        let rank = match progress {
            RequestProgress::Resting if has_more => EvictionRank::RestingOfMore,
            RequestProgress::Stuck if is_own || count.is_some() && has_more => EvictionRank::Stuck,
            RequestProgress::Moving if has_far_more => EvictionRank::MovingOfFarMore,
            RequestProgress::Resting if count == Some(own) => EvictionRank::RestingOfEqual,
            _ => return None,
        };
        let count = count.unwrap_or(0);
        Some((rank, std::cmp::Reverse(count), std::cmp::Reverse(since)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::listen::in_flight::InFlight;
    use crate::upstream::{ClientConnection, Clients};

    /// Connections of clients at 10.0.0.0/24, on paper.
    struct EvictWorld {
        clients: Clients,
        open: OpenConnections,
        held: Vec<ClientConnection>,
        tasks: Vec<tokio::task::JoinHandle<()>>,
    }

    impl EvictWorld {
        fn new() -> Self {
            Self {
                clients: Clients::default(),
                open: OpenConnections::default(),
                held: Vec::new(),
                tasks: Vec::new(),
            }
        }

        fn client(&self, number: u8) -> Arc<Client> {
            self.clients.get(IpAddr::V4(Ipv4Addr::new(10, 0, 0, number)))
        }

        /// Adds a connection of this client; returns its number and its activity.
        fn connects(&mut self, number: u8) -> (usize, Arc<ConnectionActivity>) {
            let client = self.client(number);
            self.held.push(client.connect(usize::MAX).expect("no bound"));
            let task = tokio::spawn(std::future::pending());
            let activity = ConnectionActivity::of_a_test();
            let connection = OpenConnection { activity: Arc::clone(&activity), task: task.abort_handle() };
            activity.belongs_to(Some(client));
            self.open.add(connection);
            self.tasks.push(task);
            (self.tasks.len() - 1, activity)
        }

        async fn is_gone(&mut self, number: usize) -> bool {
            tokio::task::yield_now().await;
            self.tasks[number].is_finished()
        }
    }

    #[tokio::test]
    async fn who_has_the_most_goes_first_at_rest_then_stuck_and_in_flight_only_where_it_has_far_more() {
        let mut world = EvictWorld::new();
        let (polite, _) = world.connects(1);
        let mut many = Vec::new();
        for _ in 0..FAR_MORE + 2 {
            let (number, activity) = world.connects(2);
            let asked = InFlight::start(&activity, http::Version::HTTP_11, false);
            many.push((number, activity, asked));
        }
        let (resting, _) = world.connects(2);
        let newcomer = world.client(3);
        world.held.push(newcomer.connect(usize::MAX).expect("no bound"));
        assert!(world.open.can_evict() && world.open.evict(Some(&newcomer)));
        assert!(world.is_gone(resting).await, "at rest, of the client that has most");
        many[2].1.is_stuck_since(1);
        assert!(world.open.evict(Some(&newcomer)));
        assert!(world.is_gone(many[2].0).await, "stuck");
        assert!(world.open.evict(Some(&newcomer)), "in flight, of one who has far more");
        assert!(!world.is_gone(polite).await);
        world.held.push(newcomer.connect(usize::MAX).expect("no bound"));
        assert!(!world.open.evict(Some(&newcomer)), "at rest, of one who has fewer");
        world.held.pop();
        world.held.retain(|held| Arc::ptr_eq(held.client(), &newcomer) || held.client().connections() == 1);
        assert!(world.open.evict(Some(&newcomer)));
        assert!(world.is_gone(polite).await, "at rest, of one who has as many");
    }

    #[tokio::test]
    async fn a_client_gives_up_what_is_stuck_or_at_rest_for_its_own_and_nothing_else() {
        let mut world = EvictWorld::new();
        let (first, activity) = world.connects(1);
        let (second, other) = world.connects(1);
        let asked = [
            InFlight::start(&activity, http::Version::HTTP_11, false),
            InFlight::start(&other, http::Version::HTTP_11, false),
        ];
        let own = world.client(1);
        assert!(!world.open.evict(Some(&own)), "both are being answered");
        activity.is_stuck_since(1);
        assert!(world.open.evict(Some(&own)) && world.is_gone(first).await);
        drop(asked);
        other.mark_flushed();
        assert!(world.open.evict(Some(&own)) && world.is_gone(second).await);
        assert!(!world.open.can_evict());
    }

    #[tokio::test]
    async fn an_answer_that_is_not_taken_yet_and_another_protocol_do_not_rest() {
        let mut world = EvictWorld::new();
        let (first, activity) = world.connects(1);
        let newcomer = world.client(2);
        world.held.push(newcomer.connect(usize::MAX).expect("no bound"));
        let asked = InFlight::start(&activity, http::Version::HTTP_11, false);
        activity.record_write(Some(1000));
        activity.record_write(None);
        // hyper has taken the rest of the body.
        drop(asked);
        assert!(!world.open.can_evict() && !world.open.evict(Some(&newcomer)), "most of it is unwritten");
        activity.record_write(Some(1000));
        assert!(!world.open.can_evict(), "and so it is when some of it was taken");
        activity.mark_flushed();
        assert!(world.open.evict(Some(&newcomer)) && world.is_gone(first).await);
        let (_, activity) = world.connects(3);
        drop(InFlight::start(&activity, http::Version::HTTP_11, false));
        activity.mark_flushed();
        assert!(world.open.can_evict());
        activity.is_switched_in_a_test();
        assert!(!world.open.can_evict());
    }

    #[tokio::test]
    async fn who_came_through_a_proxy_counts_as_himself() {
        let mut world = EvictWorld::new();
        let (pulses, client) =
            ([ConnectionActivity::of_a_test(), ConnectionActivity::of_a_test()], world.client(1));
        for activity in &pulses {
            world.held.push(client.connect(usize::MAX).expect("no bound"));
            let task = tokio::spawn(std::future::pending());
            world.open.add(OpenConnection { activity: Arc::clone(activity), task: task.abort_handle() });
            world.tasks.push(task);
        }
        let asked =
            pulses.each_ref().map(|activity| InFlight::start(activity, http::Version::HTTP_11, false));
        pulses[1].is_stuck_since(1);
        assert!(!world.open.evict(None), "nobody knows whose they are");
        for activity in &pulses {
            activity.belongs_to(Some(Arc::clone(&client)));
        }
        assert!(world.open.evict(None) && world.is_gone(1).await, "stuck, and of one who has two");
        drop(asked);
    }
}
