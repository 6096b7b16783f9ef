//! Rate limit for failed tokens, per address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::upstream::one_client;

/// Wrong tokens that an address may show within [`WINDOW`].
const WRONG: u32 = 10;

/// Time until the count of wrong tokens of an address begins anew, from the first one.
const WINDOW: Duration = Duration::from_mins(1);

/// Addresses that are remembered at most; beyond that the oldest is forgotten.
const ADDRESSES: usize = 4096;

/// Wrong tokens by address. An address with too many is refused until its window is over, even with the right token:
/// otherwise guessing could go on during the wait.
#[derive(Debug, Default)]
pub(super) struct TokenAttempts(Mutex<HashMap<IpAddr, FailedAttempts>>);

#[derive(Debug, Clone, Copy)]
struct FailedAttempts {
    first: Instant,
    count: u32,
}

impl TokenAttempts {
    /// Returns how long this address must wait before a token of its is looked at.
    pub(super) fn holds(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let wrong = self.0.lock().get(&one_client(address)).copied()?;
        let left = WINDOW.checked_sub(now.saturating_duration_since(wrong.first))?;
        (wrong.count >= WRONG && !left.is_zero()).then_some(left)
    }

    /// Records a wrong token from this address.
    pub(super) fn record_wrong(&self, address: IpAddr, now: Instant) {
        let mut all = self.0.lock();
        let address = one_client(address);
        let is_over = |wrong: &FailedAttempts| now.saturating_duration_since(wrong.first) >= WINDOW;
        if !all.contains_key(&address) && all.len() >= ADDRESSES {
            all.retain(|_, wrong| !is_over(wrong));
            let oldest = all.iter().min_by_key(|(_, wrong)| wrong.first).map(|(address, _)| *address);
            if let Some(oldest) = oldest.filter(|_| all.len() >= ADDRESSES) {
                all.remove(&oldest);
            }
        }
        let wrong = all.entry(address).or_insert(FailedAttempts { first: now, count: 0 });
        if is_over(wrong) {
            *wrong = FailedAttempts { first: now, count: 0 };
        }
        wrong.count = wrong.count.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_that_guesses_is_not_listened_to_until_its_window_is_over() {
        let (attempts, now) = (TokenAttempts::default(), Instant::now());
        for _ in 0..WRONG {
            assert_eq!(attempts.holds(ip("2001:db8::1"), now), None);
            attempts.record_wrong(ip("2001:db8::1"), now);
        }
        let later = now + Duration::from_secs(20);
        assert_eq!(attempts.holds(ip("2001:db8::2"), later), Some(Duration::from_secs(40)));
        assert_eq!(attempts.holds(ip("2001:db8:0:1::1"), later), None);
        // Guesses during the wait do not prolong it: others behind the same address get in after it.
        attempts.record_wrong(ip("2001:db8::1"), later);
        assert_eq!(attempts.holds(ip("2001:db8::1"), now + WINDOW), None);
        attempts.record_wrong(ip("2001:db8::1"), now + WINDOW);
        assert_eq!(attempts.holds(ip("2001:db8::1"), now + WINDOW), None);
    }

    #[test]
    fn only_so_many_addresses_are_remembered() {
        let (attempts, now) = (TokenAttempts::default(), Instant::now());
        for at in 0..ADDRESSES + 100 {
            let bits = u32::try_from(at).expect("few");
            let address = IpAddr::V4(bits.into());
            (0..WRONG).for_each(|_| attempts.record_wrong(address, now + Duration::from_micros(bits.into())));
        }
        assert_eq!(attempts.0.lock().len(), ADDRESSES);
        assert!(attempts.holds(ip("0.0.0.1"), now).is_none(), "the oldest is forgotten");
        assert!(attempts.holds(IpAddr::V4(4190.into()), now).is_some());
    }
}
