//! Memory for bodies: how many bytes may be held at once, by all clients together and by one of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use prometheus_client::metrics::gauge::Gauge;

/// A holder of memory of the budget. A share keeps its holder alive, so that a client who comes again finds what it holds.
pub trait Holder: std::fmt::Debug + Send + Sync {
    /// The bytes that it holds.
    fn bytes(&self) -> &AtomicUsize;
}

/// Memory for bodies that are held: a limit in bytes for all of them together. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    budget_state: Arc<BudgetState>,
    /// The client that holds the bodies. A client may have 1/4.
    client: Option<Arc<dyn Holder>>,
}

#[derive(Debug)]
struct BudgetState {
    most: AtomicUsize,
    taken: AtomicUsize,
    /// Bytes of these that wait for their client. At most half of the budget: with all of it taken by clients who do not
    /// read, no document could be learned or repaired.
    waiting: AtomicUsize,
    shown: Gauge,
}

/// Permit for bytes of a [`MemoryBudget`]; given back when it is dropped.
#[derive(Debug)]
pub struct BudgetPermit {
    budget: MemoryBudget,
    bytes: usize,
    is_waiting: bool,
}

/// Bytes and their share.
struct BudgetedBytes {
    bytes: Bytes,
    _share: BudgetPermit,
}

impl AsRef<[u8]> for BudgetedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl MemoryBudget {
    /// Creates a budget of `most` bytes; `shown` is the gauge of bytes taken.
    pub fn new(most: usize, shown: Gauge) -> Self {
        let most = AtomicUsize::new(most);
        let budget_state =
            BudgetState { most, taken: AtomicUsize::new(0), waiting: AtomicUsize::new(0), shown };
        Self { budget_state: Arc::new(budget_state), client: None }
    }

    /// Replaces the limit; bytes that are taken stay taken.
    pub fn resize(&self, most: usize) {
        self.budget_state.most.store(most, Relaxed);
    }

    /// Budget for the bodies of one client: at most 1/4 of the whole.
    #[must_use]
    pub fn of(&self, client: Option<Arc<dyn Holder>>) -> Self {
        Self { budget_state: Arc::clone(&self.budget_state), client }
    }

    /// Takes `bytes`; `None`: too many.
    pub fn take(&self, bytes: usize) -> Option<BudgetPermit> {
        self.try_take(bytes, self.client.clone(), false)
    }

    /// Takes `bytes` that are here already and wait for this client to take or send more.
    pub(super) fn take_waiting(&self, bytes: usize, client: Arc<dyn Holder>) -> Option<BudgetPermit> {
        self.try_take(bytes, Some(client), true)
    }

    fn try_take(
        &self,
        bytes: usize,
        client: Option<Arc<dyn Holder>>,
        is_waiting: bool,
    ) -> Option<BudgetPermit> {
        let budget_state = &*self.budget_state;
        let most = budget_state.most.load(Relaxed);
        add(&budget_state.taken, bytes, most)?;
        if is_waiting && add(&budget_state.waiting, bytes, most / 2).is_none() {
            budget_state.taken.fetch_sub(bytes, Relaxed);
            return None;
        }
        if let Some(client) = &client
            && add(client.bytes(), bytes, most / 4).is_none()
        {
            budget_state.taken.fetch_sub(bytes, Relaxed);
            if is_waiting {
                budget_state.waiting.fetch_sub(bytes, Relaxed);
            }
            return None;
        }
        budget_state.shown.inc_by(shown(bytes));
        Some(BudgetPermit { budget: self.of(client), bytes, is_waiting })
    }

    /// Bytes that are taken now.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        self.budget_state.taken.load(Relaxed)
    }

    /// Counts `bytes` that are in memory already, whatever the sum becomes.
    pub fn count(&self, bytes: usize) -> BudgetPermit {
        self.budget_state.taken.fetch_add(bytes, Relaxed);
        self.budget_state.shown.inc_by(shown(bytes));
        if let Some(client) = &self.client {
            client.bytes().fetch_add(bytes, Relaxed);
        }
        BudgetPermit { budget: self.clone(), bytes, is_waiting: false }
    }
}

/// Adds `bytes` (or any other unit) to `taken`; `None`: the sum would exceed `most`.
pub(super) fn add(taken: &AtomicUsize, bytes: usize, most: usize) -> Option<()> {
    let fits = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= most);
    taken.fetch_update(Relaxed, Relaxed, fits).ok().map(drop)
}

impl BudgetPermit {
    /// Splits off the share of some of the bytes, as far as the permit goes.
    #[must_use]
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { budget: self.budget.clone(), bytes, is_waiting: self.is_waiting }
    }

    /// Binds the share to `bytes`: the share is given back when the last clone of them is dropped.
    pub fn keep(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(BudgetedBytes { bytes, _share: self })
    }
}

impl Drop for BudgetPermit {
    fn drop(&mut self) {
        if let Some(client) = &self.budget.client {
            client.bytes().fetch_sub(self.bytes, Relaxed);
        }
        if self.is_waiting {
            self.budget.budget_state.waiting.fetch_sub(self.bytes, Relaxed);
        }
        self.budget.budget_state.taken.fetch_sub(self.bytes, Relaxed);
        self.budget.budget_state.shown.dec_by(shown(self.bytes));
    }
}

fn shown(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_lasts_as_long_as_anybody_has_a_piece_of_its_bytes() {
        let shown = Gauge::default();
        let budget = MemoryBudget::new(10, shown.clone());
        let kept = budget.take(6).expect("it fits").keep(Bytes::from_static(b"012345"));
        let piece = kept.slice(2..3);
        drop(kept);
        assert!(budget.take(5).is_none());
        assert_eq!((shown.get(), &piece[..]), (6, &b"2"[..]));
        drop(piece);
        assert_eq!(shown.get(), 0);
        let mut rest = budget.take(6).expect("it fits");
        let part = rest.split(2);
        assert_eq!((shown.get(), rest.split(9).bytes), (6, 4));
        drop(rest);
        assert_eq!(shown.get(), 2);
        drop(part);
        assert_eq!(shown.get(), 0);
        let both = [budget.take(5).expect("it fits"), budget.take(5).expect("it fits")];
        assert_eq!(shown.get(), 10);
        let over = budget.count(7);
        assert_eq!(shown.get(), 17);
        drop((both, over));
        assert_eq!(shown.get(), 0);
    }
}
