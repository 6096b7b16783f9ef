//! The link to the other nodes: joined or alone, and nothing between. The first command that fails or takes too long cuts
//! the link; from then on no request waits for Redis, until a background probe has shown that Redis works again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use redis::{Cmd, FromRedisValue, PushInfo, PushKind, RedisResult, ScriptInvocation, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::connection::{RedisConnection, connect};
use crate::config::settings::ClusterSettings as Settings;
use crate::observe::{EventKind, Metrics};

/// The first pause before Redis is tried again; doubled as long as it does not last, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Minimum poll interval of waiters.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A connection that lived this long resets the reconnect backoff.
const STABLE_AFTER: Duration = Duration::from_secs(30);

/// The link of this node to Redis.
pub(super) struct RedisLink {
    pub(super) settings: Settings,
    /// Name of this node: chosen anew at each start.
    pub(super) node: String,
    pub(super) metrics: Arc<Metrics>,
    wire: Mutex<Option<(u64, RedisConnection)>>,
    joined: watch::Sender<bool>,
    /// Notified when the link is cut. (`Notify` wakes waiters in the order in which they came; a `watch` does not.)
    lost: Notify,
    /// Tasks that wait for another node: only then there is a heartbeat.
    waiting: watch::Sender<usize>,
    subjects: Mutex<HashMap<String, watch::Sender<String>>>,
    tickets: AtomicU64,
    on_news: Box<dyn Fn(&str) + Send + Sync>,
}

impl std::fmt::Debug for RedisLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("node", &self.node)
            .field("joined", &self.is_joined())
            .finish_non_exhaustive()
    }
}

impl RedisLink {
    /// Creates a link that is alone until [`RedisLink::run`] has joined it. `on_news` gets broadcast messages.
    pub(super) fn new(
        settings: Settings,
        metrics: Arc<Metrics>,
        on_news: Box<dyn Fn(&str) + Send + Sync>,
    ) -> Self {
        Self {
            settings,
            node: format!("{:016x}", fastrand::u64(..)),
            metrics,
            wire: Mutex::new(None),
            joined: watch::channel(false).0,
            lost: Notify::new(),
            waiting: watch::channel(0).0,
            subjects: Mutex::default(),
            tickets: AtomicU64::new(0),
            on_news,
        }
    }

    pub(super) fn is_joined(&self) -> bool {
        *self.joined.borrow()
    }

    /// Changes whenever the link is joined or cut.
    pub(super) fn changes(&self) -> watch::Receiver<bool> {
        self.joined.subscribe()
    }

    /// Ends when the link is cut.
    pub(super) async fn disconnected(&self) {
        let mut lost = std::pin::pin!(self.lost.notified());
        // Registered before the check, so that a notification in between is not lost.
        lost.as_mut().enable();
        if self.is_joined() {
            lost.await;
        }
    }

    /// A name for one taking of something, unlike every other on every node.
    pub(super) fn token(&self) -> String {
        format!("{}/{}", self.node, self.tickets.fetch_add(1, Ordering::Relaxed))
    }

    /// `prefix:{about}:what`: the braces keep what belongs together on one node of a Redis Cluster.
    pub(super) fn key(&self, about: &str, what: &str) -> String {
        format!("{}:{{{about}}}:{what}", self.settings.prefix)
    }

    /// Prefix of the channel of a node, before its name.
    pub(super) fn channels(&self) -> String {
        format!("{}:node:", self.settings.prefix)
    }

    pub(super) fn lease_ms(&self) -> u64 {
        millis(self.settings.lease)
    }

    /// Runs a script; `None`: we are alone, from now on if not before.
    pub(super) async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Option<T> {
        let (number, mut wire) = self.wire()?;
        let asked = script.invoke_async(&mut wire);
        self.answer(number, timeout(self.settings.command_timeout, asked).await)
    }

    /// Sends a command; `None`: we are alone, from now on if not before.
    pub(super) async fn send<T: FromRedisValue>(&self, command: &Cmd) -> Option<T> {
        let (number, mut wire) = self.wire()?;
        let asked = command.query_async(&mut wire);
        self.answer(number, timeout(self.settings.command_timeout, asked).await)
    }

    fn answer<T>(
        &self,
        number: u64,
        answer: Result<RedisResult<T>, tokio::time::error::Elapsed>,
    ) -> Option<T> {
        match answer {
            Ok(Ok(value)) => Some(value),
            Ok(Err(error)) => {
                self.disconnect(number, &error.to_string());
                None
            }
            Err(_) => {
                self.disconnect(number, "no answer within [cluster] command_timeout");
                None
            }
        }
    }

    fn wire(&self) -> Option<(u64, RedisConnection)> {
        self.wire.lock().clone()
    }

    /// Cuts the link with this number, if it is still the one in use.
    fn disconnect(&self, number: u64, why: &str) {
        {
            let mut wire = self.wire.lock();
            if wire.as_ref().is_none_or(|(own, _)| *own != number) {
                return;
            }
            *wire = None;
        }
        self.joined.send_replace(false);
        self.lost.notify_waiters();
        self.metrics.cluster_connected.set(0);
        self.metrics.event(EventKind::ClusterLost);
        tracing::warn!(why, "Redis is lost: this node goes on alone, and tries again behind the scenes");
    }

    /// Subscribes to messages about `subject`.
    pub(super) fn listen(self: &Arc<Self>, subject: &str) -> Subscription {
        let (sender, news) = watch::channel(String::new());
        self.subjects.lock().insert(subject.to_owned(), sender);
        Subscription { link: Arc::clone(self), subject: subject.to_owned(), news }
    }

    fn dispatch(&self, number: u64, push: &PushInfo) {
        match (&push.kind, push.data.as_slice()) {
            // In a Redis Cluster one server may disconnect without the others.
            (PushKind::Disconnection, _)
                if self.settings.kind != crate::config::settings::ClusterKind::Cluster =>
            {
                self.disconnect(number, "the connection was closed");
            }
            (PushKind::Message, [_, Value::BulkString(text)]) => {
                let Ok(text) = std::str::from_utf8(text) else { return };
                let is_expected = text.split_once(' ').is_some_and(|(subject, news)| {
                    self.subjects.lock().get(subject).is_some_and(|sender| {
                        sender.send_replace(news.to_owned());
                        true
                    })
                });
                if !is_expected {
                    (self.on_news)(text);
                }
            }
            _ => {}
        }
    }

    /// Joins, watches, joins again; ends when the link has no other owner.
    pub(super) async fn keep_connected(link: Weak<Self>) {
        let (mut number, mut pause) = (0, FIRST_PAUSE);
        let mut told = false;
        while let Some(own) = link.upgrade() {
            number += 1;
            let started = Instant::now();
            match timeout(own.settings.connect_timeout, own.join(number)).await {
                Ok(Ok(())) => {
                    told = false;
                    own.watch().await;
                }
                failed if !told => {
                    told = true;
                    let why = match failed {
                        Ok(Err(error)) => error.to_string(),
                        _ => "no answer within [cluster] connect_timeout".to_owned(),
                    };
                    tracing::warn!(why, "Redis cannot be reached: this node works alone until it can");
                }
                _ => {}
            }
            pause =
                if started.elapsed() > STABLE_AFTER { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            drop(own);
            sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
        }
    }

    /// Connects, and proves that Redis takes writes: a server that is full, still loading or a mere replica would answer
    /// reads.
    async fn join(self: &Arc<Self>, number: u64) -> RedisResult<()> {
        let link = Arc::downgrade(self);
        let on_push = move |push: PushInfo| link.upgrade().map(|link| link.dispatch(number, &push)).ok_or(());
        let mut wire = connect(&self.settings, on_push).await?;
        let () = redis::cmd("SET")
            .arg(self.key(&self.node, "here"))
            .arg("1")
            .arg("PX")
            .arg(self.lease_ms())
            .query_async(&mut wire)
            .await?;
        wire.subscribe(&format!("{}{}", self.channels(), self.node)).await?;
        wire.subscribe(&format!("{}:all", self.settings.prefix)).await?;
        *self.wire.lock() = Some((number, wire));
        self.joined.send_replace(true);
        self.metrics.cluster_connected.set(1);
        self.metrics.event(EventKind::ClusterJoined);
        tracing::info!(node = %self.node, "joined the others by way of Redis");
        Ok(())
    }

    /// Runs until the link is cut. While a task of this node waits for another node, Redis is pinged, so that the task does
    /// not wait for a message that cannot come.
    async fn watch(&self) {
        let mut waiting = self.waiting.subscribe();
        let beat = async {
            loop {
                let _ = waiting.wait_for(|waiting| *waiting > 0).await;
                sleep(self.settings.command_timeout / 2).await;
                let _: Option<Value> = self.send(&redis::cmd("PING")).await;
            }
        };
        tokio::select! {
            biased;
            () = self.disconnected() => {}
            () = beat => {}
        }
    }
}

/// Subscription to one subject; ends when dropped.
pub(super) struct Subscription {
    link: Arc<RedisLink>,
    subject: String,
    news: watch::Receiver<String>,
}

impl Subscription {
    /// Next message; `None`: the timeout passed (the caller should poll), or the link was cut.
    pub(super) async fn next(&mut self, patience: Duration) -> Option<String> {
        let _waiting = WaiterCount::inc(&self.link.waiting);
        tokio::select! {
            biased;
            changed = self.news.changed() => changed.ok().map(|()| self.news.borrow_and_update().clone()),
            () = self.link.disconnected() => None,
            () = sleep(patience) => None,
        }
    }
}

/// Counts a waiter for as long as it lives.
struct WaiterCount<'a>(&'a watch::Sender<usize>);

impl<'a> WaiterCount<'a> {
    fn inc(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_modify(|waiting| *waiting += 1);
        Self(waiting)
    }
}

impl Drop for WaiterCount<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.link.subjects.lock().remove(&self.subject);
    }
}

/// Poll delay without a message: until the lease of the awaited node ends. A live node renews its lease long before, so a
/// poll is rare; a dead node is detected at once. Jitter spreads the polls of the nodes.
pub(super) fn after(left: &str) -> Duration {
    let left = Duration::from_millis(left.parse().unwrap_or(0)).max(MIN_POLL_INTERVAL);
    left + MIN_POLL_INTERVAL.mul_f64(fastrand::f64())
}

/// Milliseconds, at least one: Redis refuses a time to live of zero.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 50)
}
