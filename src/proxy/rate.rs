//! How often one client may ask.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use moka::sync::Cache;

use crate::config::settings::Server;
use crate::upstream::one_client;

/// Clients that are remembered at most; beyond it those that asked longest ago begin anew.
const CLIENTS: u64 = 100_000;

/// A client that did not ask for so long is forgotten: its burst has come back long ago.
const FORGOTTEN: Duration = Duration::from_mins(10);

/// Requests of each client, by its address.
#[derive(Debug)]
pub(super) struct Rates {
    quota: Quota,
    clients: Cache<IpAddr, Arc<DefaultDirectRateLimiter>>,
    clock: DefaultClock,
}

impl Rates {
    /// `None`: there is no bound.
    pub(super) fn of(server: &Server) -> Option<Arc<Self>> {
        let quota = Quota::per_second(NonZeroU32::new(server.rate)?);
        let quota = quota.allow_burst(NonZeroU32::new(server.rate_burst)?);
        let clients = Cache::builder().max_capacity(CLIENTS).time_to_idle(FORGOTTEN).build();
        Some(Arc::new(Self { quota, clients, clock: DefaultClock::default() }))
    }

    /// May this client ask now? `Err`: after this time.
    pub(super) fn check(&self, client: IpAddr) -> Result<(), Duration> {
        let fresh = || Arc::new(RateLimiter::direct(self.quota));
        let own = self.clients.get_with(one_client(client), fresh);
        own.check().map_err(|later| later.wait_time_from(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_own_burst_and_then_its_rate() {
        let rates = Rates::of(&Server { rate: 1, rate_burst: 3, ..Server::default() }).expect("a bound");
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        for _ in 0..3 {
            assert_eq!(rates.check(ip("2001:db8::1")), Ok(()));
        }
        let wait = rates.check(ip("2001:db8::2")).expect_err("the same network");
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(rates.check(ip("2001:db8:0:1::1")), Ok(()));
        assert_eq!(rates.check(ip("192.0.2.1")), Ok(()));
    }

    #[test]
    fn without_a_rate_there_is_no_bound() {
        assert!(Rates::of(&Server::default()).is_none());
    }
}
