//! Rate limit per client.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use moka::sync::Cache;

use crate::config::settings::ServerSettings;
use crate::upstream::one_client;

/// Maximum of clients; of more, those with the oldest requests begin anew.
const CLIENTS: u64 = 100_000;

/// Idle time after which a client is forgotten: its burst is full again long before.
const FORGOTTEN: Duration = Duration::from_mins(10);

/// Requests of each client, by its address and by what it may: under another rate it begins anew.
#[derive(Debug, Clone)]
pub(super) struct ClientRateLimiter {
    clients: Cache<(IpAddr, u32, u32), Arc<DefaultDirectRateLimiter>>,
    clock: DefaultClock,
}

impl ClientRateLimiter {
    pub(super) fn new() -> Self {
        let clients = Cache::builder().max_capacity(CLIENTS).time_to_idle(FORGOTTEN).build();
        Self { clients, clock: DefaultClock::default() }
    }

    /// Checks whether this client may send a request now. `Err`: retry after this time.
    pub(super) fn check(&self, client: IpAddr, server: &ServerSettings) -> Result<(), Duration> {
        // Without a rate there is no bound.
        let bounds = NonZeroU32::new(server.rate).zip(NonZeroU32::new(server.rate_burst));
        let Some((rate, burst)) = bounds else { return Ok(()) };
        let fresh = || Arc::new(RateLimiter::direct(Quota::per_second(rate).allow_burst(burst)));
        let own = self.clients.get_with((one_client(client), server.rate, server.rate_burst), fresh);
        own.check().map_err(|later| later.wait_time_from(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_own_burst_and_then_its_rate() {
        let (rates, server) = (
            ClientRateLimiter::new(),
            ServerSettings { rate: 1, rate_burst: 3, ..ServerSettings::default() },
        );
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        for _ in 0..3 {
            assert_eq!(rates.check(ip("2001:db8::1"), &server), Ok(()));
        }
        let wait = rates.check(ip("2001:db8::2"), &server).expect_err("the same network");
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(rates.check(ip("2001:db8:0:1::1"), &server), Ok(()));
        assert_eq!(rates.check(ip("192.0.2.1"), &server), Ok(()));
    }

    #[test]
    fn without_a_rate_there_is_no_bound_and_under_another_rate_a_client_begins_anew() {
        let (rates, client) = (ClientRateLimiter::new(), IpAddr::from([192, 0, 2, 1]));
        let under = |rate| ServerSettings { rate, rate_burst: 1, ..ServerSettings::default() };
        for _ in 0..1000 {
            assert_eq!(rates.check(client, &under(0)), Ok(()));
        }
        assert_eq!(rates.check(client, &under(1)), Ok(()));
        assert!(rates.check(client, &under(1)).is_err());
        assert_eq!(rates.check(client, &under(2)), Ok(()));
        assert!(rates.check(client, &under(1)).is_err(), "what it asked is not forgotten");
    }
}
