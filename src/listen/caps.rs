//! How many connections there are: in all, and of one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::proxy::of_one_client;

/// The places of one kind of listener.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    /// How many there are.
    all: Mutex<usize>,
    addresses: Addresses,
}

/// Connections by address; an address without any is not listed.
type Addresses = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// One place. Free again when dropped.
pub(super) type Place = OwnedSemaphorePermit;

/// One connection among those of its address.
#[derive(Debug)]
pub(super) struct Seat {
    address: Option<IpAddr>,
    addresses: Addresses,
}

impl Places {
    pub(super) fn new(all: usize) -> Self {
        let all = all.min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(all)), all: Mutex::new(all), addresses: Addresses::default() }
    }

    /// Waits for a place.
    pub(super) async fn take(&self) -> Option<Place> {
        Arc::clone(&self.free).acquire_owned().await.ok()
    }

    /// A place, if one is free.
    pub(super) fn try_take(&self) -> Option<Place> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// From now on so many. Who has one keeps it.
    pub(super) fn resize(&self, all: usize) {
        let all = all.min(Semaphore::MAX_PERMITS);
        let before = std::mem::replace(&mut *lock(&self.all), all);
        self.free.add_permits(all.saturating_sub(before));
        let fewer = u32::try_from(before.saturating_sub(all)).unwrap_or(u32::MAX);
        if fewer > 0 {
            let free = Arc::clone(&self.free);
            // They are taken away as they become free.
            tokio::spawn(async move {
                if let Ok(places) = free.acquire_many_owned(fewer).await {
                    places.forget();
                }
            });
        }
    }

    /// A seat among the connections of this address, if it has fewer than `most`.
    pub(super) fn seat(&self, address: IpAddr, most: usize) -> Option<Seat> {
        if most == usize::MAX {
            return Some(Seat { address: None, addresses: Arc::clone(&self.addresses) });
        }
        let address = of_one_client(address);
        let mut addresses = lock(&self.addresses);
        let count = addresses.entry(address).or_insert(0);
        // One that is listed has a connection, so nothing is left behind here.
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Seat { address: Some(address), addresses: Arc::clone(&self.addresses) })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut addresses = lock(&self.addresses);
        if let Some(count) = addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&address);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_has_so_many_seats_and_a_network_of_64_bits_is_one() {
        let places = Places::new(10);
        let first = places.seat(ip("192.0.2.1"), 2).expect("one");
        let _second = places.seat(ip("::ffff:192.0.2.1"), 2).expect("two");
        assert!(places.seat(ip("192.0.2.1"), 2).is_none());
        assert!(places.seat(ip("192.0.2.2"), 2).is_some());
        drop(first);
        assert!(places.seat(ip("192.0.2.1"), 2).is_some());
        let _six = places.seat(ip("2001:db8::1"), 1).expect("one");
        assert!(places.seat(ip("2001:db8::ffff:1"), 1).is_none());
        assert!(places.seat(ip("2001:db8:0:1::1"), 1).is_some());
    }

    #[test]
    fn nobody_is_listed_who_has_no_connection() {
        let places = Places::new(10);
        drop(places.seat(ip("192.0.2.1"), 2));
        let _exempt = places.seat(ip("192.0.2.1"), usize::MAX).expect("exempt");
        assert!(lock(&places.addresses).is_empty());
    }

    #[tokio::test]
    async fn places_become_more_and_fewer() {
        let places = Places::new(1);
        let first = places.take().await.expect("a place");
        places.resize(3);
        let (second, third) = (places.take().await, places.take().await);
        assert!(second.is_some() && third.is_some());
        places.resize(1);
        drop((first, second));
        while places.free.available_permits() != 0 {
            tokio::task::yield_now().await;
        }
        drop(third);
        assert!(places.take().await.is_some());
    }
}
