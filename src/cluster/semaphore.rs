//! Permits at a canvas service, shared by all nodes: never more requests at once than `heal.concurrency`, whichever node
//! sends them. Requests of viewers come before background requests, on all nodes together; otherwise first come, first
//! served among the nodes. Within a node its lanes decide.

use std::sync::Arc;
use std::time::Duration;

use super::Cluster;
use super::lease::KeyLease;
use super::link::{RedisLink, after, millis};
use super::scripts::{LEAVE, PLACE};
use crate::config::settings::ClusterKind;

/// Result of acquiring a permit.
#[derive(Debug)]
pub enum PermitResult {
    /// Permit was granted. Also while the link to the others is cut.
    Granted(SharedPermit),
    /// Breaker was opened by another node, as the service only fails; time that is left.
    BreakerOpen(Duration),
}

/// The right to run one canvas request. Given to the next when dropped.
#[derive(Debug, Default)]
pub struct SharedPermit {
    _held: Option<HeldPermit>,
}

#[derive(Debug)]
struct HeldPermit {
    link: Arc<RedisLink>,
    permit: String,
    about: String,
    token: String,
    _lease: KeyLease,
}

impl Cluster {
    /// Waits for one of `permits` permits at `service`; `is_first`: before background requests.
    pub async fn acquire(&self, service: &str, permits: usize, is_first: bool) -> PermitResult {
        let link = &self.link;
        let alone = || PermitResult::Granted(SharedPermit::default());
        if !link.is_joined() {
            return alone();
        }
        let (about, token) = (super::about(service), link.token());
        let queue = link.key(&about, if is_first { "first" } else { "queue" });
        // Subscribe before asking: a grant that reaches no subscriber is withdrawn.
        let mut messages = link.listen(&token);
        loop {
            let mut ask = PLACE.key(link.key(&about, "breaker"));
            ask.key(&queue);
            for number in 0..permits {
                ask.key(link.key(&about, &format!("place:{number}")));
            }
            ask.arg(&token).arg(link.lease_ms());
            let Some((state, rest)) = link.run::<(String, String)>(&ask).await else { return alone() };
            match state.as_str() {
                "granted" => return PermitResult::Granted(SharedPermit::held(link, rest, about, token)),
                "open" => return PermitResult::BreakerOpen(Duration::from_millis(rest.parse().unwrap_or(0))),
                _ => {}
            }
            if let Some(news) = messages.next(after(&rest)).await
                && let Some(permit) = news.strip_prefix("granted ").and_then(|news| news.split(' ').next())
            {
                return PermitResult::Granted(SharedPermit::held(link, permit.to_owned(), about, token));
            }
        }
    }

    /// Opens the breaker on all nodes for `time`: the service only fails.
    pub fn open_breaker(&self, service: &str, time: Duration) {
        let key = self.link.key(&super::about(service), "breaker");
        self.send_in_background(redis::cmd("SET").arg(key).arg(1).arg("PX").arg(millis(time)).take());
    }

    /// Closes the breaker on all nodes: the service works again.
    pub fn close_breaker(&self, service: &str) {
        self.send_in_background(
            redis::cmd("DEL").arg(self.link.key(&super::about(service), "breaker")).take(),
        );
    }
}

/// Passes on a permit that was granted to a waiter of this node that is gone.
pub(super) fn decline(link: &Arc<RedisLink>, news: &str) {
    let mut words = news.split(' ');
    if let (Some(token), Some("granted"), Some(permit), Some(about)) =
        (words.next(), words.next(), words.next(), words.next())
    {
        leave(link, permit, about, token);
    }
}

fn leave(link: &Arc<RedisLink>, permit: &str, about: &str, token: &str) {
    let mut leave = LEAVE.key(permit);
    // In a Redis Cluster PUBLISH does not tell how many subscribers received the message.
    let unheard = link.settings.kind == ClusterKind::Cluster;
    leave.key(link.key(about, "first")).key(link.key(about, "queue")).key(link.key(about, "turns"));
    leave.arg(token).arg(link.lease_ms()).arg(link.channels()).arg(u8::from(unheard)).arg(about);
    let link = Arc::clone(link);
    tokio::spawn(async move { link.run::<i64>(&leave).await });
}

impl SharedPermit {
    fn held(link: &Arc<RedisLink>, permit: String, about: String, token: String) -> Self {
        let lease = KeyLease::keep(link, &permit, &token, "");
        Self { _held: Some(HeldPermit { link: Arc::clone(link), permit, about, token, _lease: lease }) }
    }
}

impl Drop for HeldPermit {
    fn drop(&mut self) {
        if tokio::runtime::Handle::try_current().is_ok() {
            leave(&self.link, &self.permit, &self.about, &self.token);
        }
    }
}
