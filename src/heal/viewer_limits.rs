//! Limits of viewers who wait for heals, and which of them go behind the others.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;

use crate::config::settings::HealSettings;
use crate::heal::canvas_service::shared_heals::SharedHeals;

/// Time for which a client that begins too many heals goes behind the other readers.
const DEMOTED_FOR: Duration = Duration::from_secs(10);

type ClientRates = Arc<DefaultKeyedRateLimiter<IpAddr>>;

/// `ViewerLimits` limits the viewers who may wait at once (`heal.max_waiting`), and knows the clients that begin too many
/// heals (`heal.per_client`).
#[derive(Debug)]
pub(in crate::heal) struct ViewerLimits {
    max_waiting: usize,
    per_client: u32,
    rates: ClientRates,
    counts: Arc<ViewerCounts>,
    fleet: Arc<SharedHeals>,
}

/// `ViewerCounts` counts viewers, independent of the limits.
#[derive(Debug, Default)]
pub(in crate::heal) struct ViewerCounts {
    waiting: AtomicUsize,
    /// Heals of each client, and the limit for which they are counted.
    rates: Mutex<Option<(u32, ClientRates)>>,
}

/// `WaitingViewer` is one viewer who waits, until it is dropped.
#[derive(Debug)]
pub(in crate::heal) struct WaitingViewer(Arc<ViewerCounts>);

impl Drop for WaitingViewer {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl ViewerLimits {
    pub(in crate::heal) fn new(
        heal: &HealSettings,
        fleet: Arc<SharedHeals>,
        counts: Arc<ViewerCounts>,
    ) -> Self {
        let (max_waiting, per_client) = (heal.max_waiting, heal.per_client);
        let rates = counts.rates(per_client);
        Self { max_waiting, per_client, rates, counts, fleet }
    }

    /// Counts one more viewer who waits; `None`: too many wait.
    pub(in crate::heal) fn wait(&self) -> Option<WaitingViewer> {
        let more = |waiting| (waiting < self.max_waiting).then_some(waiting + 1);
        let entered = self.counts.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        entered.is_ok().then(|| WaitingViewer(Arc::clone(&self.counts)))
    }

    /// Counts a heal of this client. True: the client begins too many, here or on all nodes together.
    pub(in crate::heal) fn is_greedy(&self, client: IpAddr) -> bool {
        self.rates.check_key(&client).is_err() || self.is_over_shared_limit(client)
    }

    /// Counted in the background: the result is for the client's next request.
    fn is_over_shared_limit(&self, client: IpAddr) -> bool {
        let Some(cluster) = self.fleet.connected() else { return false };
        let (cluster, fleet, most) = (Arc::clone(cluster), Arc::clone(&self.fleet), self.per_client);
        tokio::spawn(async move {
            if cluster.heals_of(client).await > Some(most) {
                fleet.demoted.insert(client, (), DEMOTED_FOR);
            }
        });
        self.fleet.demoted.contains(&client)
    }

    /// Forgets clients that were not seen for a while. To be called every minute or so.
    pub(in crate::heal) fn prune(&self) {
        self.rates.retain_recent();
    }
}

impl ViewerCounts {
    /// Rates for this limit. With another limit the count begins anew.
    fn rates(&self, per_client: u32) -> ClientRates {
        let mut rates = self.rates.lock();
        if let Some((limit, rates)) = &*rates
            && *limit == per_client
        {
            return Arc::clone(rates);
        }
        let most = NonZeroU32::new(per_client).unwrap_or(NonZeroU32::MIN);
        let own = Arc::new(RateLimiter::keyed(Quota::per_minute(most)));
        *rates = Some((per_client, Arc::clone(&own)));
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_viewer_who_leaves_makes_room_and_another_limit_counts_those_who_wait_already() {
        let counts = Arc::new(ViewerCounts::default());
        let limits = |max_waiting| ViewerLimits {
            max_waiting,
            per_client: 1,
            rates: counts.rates(1),
            counts: Arc::clone(&counts),
            fleet: Arc::new(SharedHeals::new(None)),
        };
        let (two, one) = (limits(2), limits(1));
        let (first, second) = (two.wait().expect("room"), two.wait().expect("room"));
        assert!(two.wait().is_none() && one.wait().is_none());
        drop(first);
        assert!(one.wait().is_none(), "the second one waits still");
        drop(second);
        assert!(one.wait().is_some());
    }

    #[test]
    fn a_client_that_begins_more_than_its_share_is_greedy_and_another_limit_counts_anew() {
        let counts = Arc::new(ViewerCounts::default());
        let client = IpAddr::from([192, 0, 2, 7]);
        let is_greedy = |per_client: u32| counts.rates(per_client).check_key(&client).is_err();
        assert_eq!([is_greedy(2), is_greedy(2), is_greedy(2)], [false, false, true]);
        assert_eq!([is_greedy(3), is_greedy(3), is_greedy(3), is_greedy(3)], [false, false, false, true]);
    }
}
