//! Leases: a key stays with a node while the node lives and wants it. Other nodes can take it one lease after the node's
//! last renewal.

use std::sync::Arc;

use tokio::task::AbortHandle;
use tokio::time::interval;

use super::link::RedisLink;
use super::scripts::RENEW;

/// Renews a key of ours until it is dropped.
#[derive(Debug)]
pub(super) struct KeyLease {
    renewing: AbortHandle,
}

impl KeyLease {
    /// Keeps the lease. `before`: prefix of the token where the key must be written anew, because it was flushed.
    pub(super) fn keep(link: &Arc<RedisLink>, key: &str, token: &str, before: &'static str) -> Self {
        let (link, key, token) = (Arc::clone(link), key.to_owned(), token.to_owned());
        let renewing = tokio::spawn(async move {
            let mut every = interval(link.settings.lease / 3);
            every.tick().await;
            loop {
                every.tick().await;
                let mut renew = RENEW.key(&key);
                renew.arg(&token).arg(link.lease_ms()).arg(before);
                // Another node took the lease while Redis was unreachable: one request too many, which cannot be prevented.
                if link.run::<i64>(&renew).await == Some(0) {
                    return;
                }
            }
        });
        Self { renewing: renewing.abort_handle() }
    }
}

impl Drop for KeyLease {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}
