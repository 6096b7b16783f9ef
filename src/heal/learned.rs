//! Learned abilities of a server. A missing ability is checked again after a while.

use parking_lot::Mutex;
use tokio::time::Instant;

/// `ServerSupport` is whether a server does something, and how.
#[derive(Debug)]
pub(in crate::heal) struct ServerSupport<T = ()>(Mutex<SupportState<T>>);

/// `SupportAnswer` is the present knowledge about the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum SupportAnswer<T> {
    /// Unknown, or not known any more.
    Nothing,
    /// The server does it, in this way.
    Does(T),
    DoesNot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SupportState<T> {
    Unknown,
    Does(T),
    DoesNot { until: Instant },
}

impl<T> Default for ServerSupport<T> {
    fn default() -> Self {
        Self(Mutex::new(SupportState::Unknown))
    }
}

impl<T: Copy> ServerSupport<T> {
    pub(in crate::heal) fn known(&self, now: Instant) -> SupportAnswer<T> {
        match *self.0.lock() {
            SupportState::Does(how) => SupportAnswer::Does(how),
            SupportState::DoesNot { until } if now < until => SupportAnswer::DoesNot,
            SupportState::Unknown | SupportState::DoesNot { .. } => SupportAnswer::Nothing,
        }
    }

    /// Notes that the server does what is asked for here.
    pub(in crate::heal) fn does(&self, how: T) {
        *self.0.lock() = SupportState::Does(how);
    }

    /// Notes that the server does not. From `until` on the answer is unknown: another server may be there by
    /// then.
    pub(in crate::heal) fn does_not(&self, until: Instant) {
        *self.0.lock() = SupportState::DoesNot { until };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_a_server_does_not_do_is_found_out_anew_and_what_it_does_is_known() {
        let (learned, now) = (ServerSupport::default(), Instant::now());
        assert_eq!(learned.known(now), SupportAnswer::Nothing);
        learned.does_not(now + Duration::from_secs(1));
        let later = now + Duration::from_secs(1);
        assert_eq!(
            (learned.known(now), learned.known(later)),
            (SupportAnswer::DoesNot, SupportAnswer::Nothing)
        );
        learned.does(7);
        assert_eq!(learned.known(now + Duration::from_hours(1)), SupportAnswer::Does(7));
    }
}
