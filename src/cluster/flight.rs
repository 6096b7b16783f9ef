//! Shared flights: one node leads the flight, the other nodes wait for its result.

use std::sync::Arc;
use std::time::Duration;

use super::Cluster;
use super::lease::KeyLease;
use super::link::{RedisLink, after, millis};
use super::scripts::{BOARD, DEPART, FORGET, LAND};

/// Result of joining a flight.
#[derive(Debug)]
pub enum JoinResult {
    /// Lead of the flight: this node sends the request, then publishes the result. Also without a cluster, or while the link to
    /// it is cut.
    Ours(SharedFlight),
    /// Flight of another node that landed with this answer.
    Landed {
        /// Result word of the flight.
        answer: String,
        /// True if the flight had ended before: a new one may be needed.
        before: bool,
    },
    /// A heal failed a short while ago; cool-down that is left.
    Cooling(Duration),
}

/// A flight of ours, made known to the other nodes if there are any. Given back when dropped.
#[derive(Debug, Default)]
pub struct SharedFlight {
    shared: Option<FlightLease>,
}

#[derive(Debug)]
struct FlightLease {
    link: Arc<RedisLink>,
    about: String,
    token: String,
    landed: bool,
    _lease: KeyLease,
}

impl Cluster {
    /// Joins the flight of this name, and waits if another node leads it. `departs` is called when that node's request is
    /// on its way; `anew`: a flight that ended a moment ago is not enough.
    pub async fn join(&self, name: &str, anew: bool, departs: impl Fn()) -> JoinResult {
        let link = &self.link;
        if !link.is_joined() {
            return JoinResult::Ours(SharedFlight::default());
        }
        let (about, token) = (super::about(name), link.token());
        let (flight, waiting, cooling) =
            (link.key(&about, "flight"), link.key(&about, "waiting"), link.key(&about, "cooling"));
        // Subscribe before asking, or the message could come in between.
        let mut messages = link.listen(&about);
        let mut waited = false;
        loop {
            let mut board = BOARD.key(&flight);
            // A node that has waited already accepts the result that lands now.
            let anew = anew && !waited;
            board
                .key(&waiting)
                .key(&cooling)
                .arg(&token)
                .arg(link.lease_ms())
                .arg(&link.node)
                .arg(u8::from(anew));
            let Some((state, rest)) = link.run::<(String, String)>(&board).await else {
                return JoinResult::Ours(SharedFlight::default());
            };
            match state.as_str() {
                "taken" => return JoinResult::Ours(SharedFlight::shared(link, about, token, &flight)),
                "landed" => return JoinResult::Landed { answer: rest, before: !waited },
                "cooling" => {
                    return JoinResult::Cooling(Duration::from_millis(rest.parse().unwrap_or(0)));
                }
                "departed" => departs(),
                _ => {}
            }
            waited = true;
            while let Some(news) = messages.next(after(&rest)).await {
                match news.split_once(' ') {
                    None => departs(),
                    // Empty answer: the flight was given back, and must be tried again.
                    Some((_, "")) => break,
                    Some((_, answer)) => {
                        return JoinResult::Landed { answer: answer.to_owned(), before: false };
                    }
                }
            }
        }
    }

    /// Sets the cool-down after a flight that did not help: no node joins the flight until it ends.
    pub fn set_cooldown(&self, name: &str, pause: Duration) {
        let key = self.link.key(&super::about(name), "cooling");
        self.send_in_background(redis::cmd("SET").arg(key).arg(1).arg("PX").arg(millis(pause)).take());
    }

    /// Clears the cool-down, so that the flight can be tried again at once.
    pub fn clear_cooldown(&self, name: &str) {
        if !self.link.is_joined() {
            return;
        }
        let (link, about) = (Arc::clone(&self.link), super::about(name));
        tokio::spawn(async move {
            let mut forget = FORGET.key(link.key(&about, "flight"));
            forget.key(link.key(&about, "cooling"));
            link.run::<i64>(&forget).await;
        });
    }
}

impl SharedFlight {
    fn shared(link: &Arc<RedisLink>, about: String, token: String, key: &str) -> Self {
        let lease = KeyLease::keep(link, key, &token, ">");
        Self {
            shared: Some(FlightLease { link: Arc::clone(link), about, token, landed: false, _lease: lease }),
        }
    }

    /// Publishes that the request was sent: waiters on other nodes may begin to probe.
    pub fn mark_sent(&self) {
        let Some(shared) = &self.shared else { return };
        let (link, about, token) = (Arc::clone(&shared.link), shared.about.clone(), shared.token.clone());
        tokio::spawn(async move {
            let mut depart = DEPART.key(link.key(&about, "flight"));
            depart.key(link.key(&about, "waiting"));
            depart.arg(&token).arg(link.lease_ms()).arg(link.channels()).arg(&about);
            link.run::<i64>(&depart).await;
        });
    }

    /// Publishes the result to the other nodes, in the background.
    pub fn finish(mut self, answer: &str) {
        if let Some(shared) = &mut self.shared {
            shared.land(answer);
        }
    }
}

impl FlightLease {
    fn land(&mut self, answer: &str) {
        self.landed = true;
        let (link, about) = (Arc::clone(&self.link), self.about.clone());
        let (token, answer) = (self.token.clone(), answer.to_owned());
        tokio::spawn(async move {
            let mut land = LAND.key(link.key(&about, "flight"));
            land.key(link.key(&about, "waiting"));
            land.arg(&token).arg(link.lease_ms()).arg(link.channels()).arg(&about).arg(&answer);
            link.run::<i64>(&land).await;
        });
    }
}

impl Drop for FlightLease {
    fn drop(&mut self) {
        // A flight that failed or made no request is given back at once: other nodes need not wait for the lease.
        if !self.landed && tokio::runtime::Handle::try_current().is_ok() {
            self.land("");
        }
    }
}
