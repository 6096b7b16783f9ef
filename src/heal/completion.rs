//! Completion: a value that comes once, and that many wait for. Waiters wake in the order in which they began to wait. A
//! `tokio::sync::watch` wakes them in random order, and equal simulations must run equally.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

/// A new completion: the half that completes it, and the half that waits.
pub(in crate::heal) fn completion<V>() -> (Completer<V>, Completion<V>) {
    let state = Arc::new(CompletionState {
        value: OnceLock::new(),
        is_over: AtomicBool::new(false),
        told: Notify::new(),
    });
    (Completer(Arc::clone(&state)), Completion(state))
}

/// `Completer` gives the value. Dropped without one, the completion ends without a value.
#[derive(Debug)]
pub(in crate::heal) struct Completer<V>(Arc<CompletionState<V>>);

/// `Completion` waits for the value.
#[derive(Debug)]
pub(in crate::heal) struct Completion<V>(Arc<CompletionState<V>>);

#[derive(Debug)]
struct CompletionState<V> {
    value: OnceLock<V>,
    is_over: AtomicBool,
    told: Notify,
}

impl<V> Completer<V> {
    pub(in crate::heal) fn complete(self, value: V) {
        let _ = self.0.value.set(value);
    }
}

impl<V> Drop for Completer<V> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
        self.0.told.notify_waiters();
    }
}

impl<V> Clone for Completion<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V: Clone> Completion<V> {
    /// Waits for the end. `None`: there is no value.
    pub(in crate::heal) async fn wait(&self) -> Option<V> {
        if !self.0.is_over.load(Ordering::Acquire) {
            let mut told = std::pin::pin!(self.0.told.notified());
            told.as_mut().enable();
            // The completion may have ended before `notified` was registered.
            if !self.0.is_over.load(Ordering::Acquire) {
                told.await;
            }
        }
        self.0.value.get().cloned()
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[tokio::test]
    async fn all_who_wait_get_the_value_in_the_order_in_which_they_came() {
        let (completer, completion) = completion();
        let order = Arc::new(Mutex::new(Vec::new()));
        let waiters: Vec<_> = (0..40)
            .map(|number| {
                let (completion, order) = (completion.clone(), Arc::clone(&order));
                tokio::spawn(async move {
                    let value = completion.wait().await;
                    order.lock().push(number);
                    value
                })
            })
            .collect();
        tokio::task::yield_now().await;
        completer.complete(7);
        for waiter in waiters {
            assert_eq!(waiter.await.expect("it ends"), Some(7));
        }
        assert_eq!(*order.lock(), (0..40).collect::<Vec<_>>());
        assert_eq!(completion.wait().await, Some(7), "also who comes later");
    }

    #[tokio::test]
    async fn without_a_value_it_is_over_too() {
        let (completer, completion) = completion::<u32>();
        let waits = tokio::spawn(async move { completion.wait().await });
        tokio::task::yield_now().await;
        drop(completer);
        assert_eq!(waits.await.expect("it ends"), None);
    }
}
