//! The Redis between the nodes of a simulated world, in virtual time: the commands and scripts that healing sends, each at
//! one stroke. (`tests/it/cluster_*.rs` has the real one.)

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use redis::aio::ConnectionLike;
use redis::{Arg, Cmd, Pipeline, PushInfo, PushKind, RedisError, RedisFuture, RedisResult, Value};
use tokio::time::{Instant, sleep};

/// Time that a command takes.
const LATENCY: Duration = Duration::from_millis(1);

thread_local! {
    static CURRENT: RefCell<Option<Arc<SimulatedRedis>>> = const { RefCell::new(None) };
}

/// `RedisHealth` is how a [`SimulatedRedis`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum RedisHealth {
    #[default]
    Well,
    /// Connections are closed, and refused.
    Away,
    /// Commands are taken and never answered.
    Hangs,
}

#[derive(Debug, Clone)]
pub(super) enum StoredValue {
    Text(String),
    List(VecDeque<String>),
    Set(BTreeSet<String>),
}

pub(super) type Subscriber = Arc<dyn Fn(PushInfo) -> Result<(), ()> + Send + Sync>;

#[derive(Default)]
pub(super) struct SimulatedState {
    health: RedisHealth,
    keys: BTreeMap<String, (StoredValue, Option<Instant>)>,
    /// Channel, connection, subscriber.
    subscriptions: Vec<(String, u64, Subscriber)>,
    connections: u64,
}

/// `SimulatedRedis` is one server.
#[derive(Default)]
pub(crate) struct SimulatedRedis(Mutex<SimulatedState>);

impl std::fmt::Debug for SimulatedRedis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a Redis in virtual time")
    }
}

/// `SimulatedWire` is a connection to a [`SimulatedRedis`].
#[derive(Clone)]
pub(super) struct SimulatedWire {
    redis: Arc<SimulatedRedis>,
    number: u64,
    on_push: Subscriber,
}

/// The server that nodes of this thread connect to, if there is one.
pub(super) fn current() -> Option<Arc<SimulatedRedis>> {
    CURRENT.with_borrow(Clone::clone)
}

fn broken(what: &'static str) -> RedisError {
    RedisError::from(io::Error::new(io::ErrorKind::BrokenPipe, what))
}

impl SimulatedRedis {
    /// A server for the nodes of this thread; the one before it is forgotten.
    pub(crate) fn of_this_thread() -> Arc<Self> {
        let redis = Arc::new(Self::default());
        CURRENT.set(Some(Arc::clone(&redis)));
        redis
    }

    /// Nodes of this thread connect to sockets again.
    pub(crate) fn ends() {
        CURRENT.set(None);
    }

    fn state(&self) -> MutexGuard<'_, SimulatedState> {
        self.0.lock()
    }

    pub(crate) fn set_health(&self, health: RedisHealth) {
        let mut state = self.state();
        state.health = health;
        if health == RedisHealth::Away {
            let mut subscriptions = std::mem::take(&mut state.subscriptions);
            drop(state);
            subscriptions.dedup_by_key(|(_, number, _)| *number);
            for (_, _, on_push) in subscriptions {
                let _gone = on_push(PushInfo { kind: PushKind::Disconnection, data: Vec::new() });
            }
        }
    }

    /// Removes all keys, as FLUSHALL does.
    pub(crate) fn flush(&self) {
        self.state().keys.clear();
    }

    pub(super) fn connect(
        self: Arc<Self>,
        on_push: impl Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static,
    ) -> RedisResult<SimulatedWire> {
        let number = {
            let mut state = self.state();
            if state.health == RedisHealth::Away {
                return Err(broken("refused"));
            }
            state.connections += 1;
            state.connections
        };
        Ok(SimulatedWire { redis: self, number, on_push: Arc::new(on_push) })
    }

    /// Runs a command; `Err`: no answer.
    async fn run(&self, words: Vec<String>) -> RedisResult<Value> {
        sleep(LATENCY).await;
        let health = self.state().health;
        match health {
            RedisHealth::Away => return Err(broken("closed")),
            RedisHealth::Hangs => std::future::pending::<()>().await,
            RedisHealth::Well => {}
        }
        let (answer, published) = {
            let mut state = self.state();
            let mut published = Vec::new();
            (state.command(&words, &mut published), published)
        };
        for (channel, text) in published {
            let subscriptions: Vec<_> = self.state().subscribers(&channel);
            for on_push in subscriptions {
                let data =
                    vec![Value::BulkString(channel.clone().into()), Value::BulkString(text.clone().into())];
                let _gone = on_push(PushInfo { kind: PushKind::Message, data });
            }
        }
        Ok(answer)
    }
}

impl SimulatedWire {
    pub(super) fn subscribe(&self, channel: &str) -> RedisResult<()> {
        let mut state = self.redis.state();
        if state.health == RedisHealth::Away {
            return Err(broken("closed"));
        }
        state.subscriptions.push((channel.to_owned(), self.number, Arc::clone(&self.on_push)));
        Ok(())
    }
}

impl ConnectionLike for SimulatedWire {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        let word = |arg: Arg<&[u8]>| match arg {
            Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        };
        let words = cmd.args_iter().map(word).collect();
        Box::pin(self.redis.run(words))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        _pipeline: &'a Pipeline,
        _offset: usize,
        _count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(std::future::ready(Err(broken("no pipelines here"))))
    }

    fn get_db(&self) -> i64 {
        0
    }
}

pub(super) fn pair(state: &str, rest: &dyn std::fmt::Display) -> Value {
    Value::Array(vec![Value::BulkString(state.to_owned().into()), Value::BulkString(rest.to_string().into())])
}

fn after(ms: &str) -> Instant {
    Instant::now() + Duration::from_millis(ms.parse().expect("milliseconds"))
}

impl SimulatedState {
    pub(super) fn get(&mut self, key: &str) -> Option<&mut StoredValue> {
        let is_over = self.keys.get(key)?.1.is_some_and(|until| Instant::now() >= until);
        if is_over {
            self.keys.remove(key);
        }
        self.keys.get_mut(key).map(|(stored, _)| stored)
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        match self.get(key)? {
            StoredValue::Text(text) => Some(text.clone()),
            other => panic!("{key} is no text: {other:?}"),
        }
    }

    pub(super) fn set(&mut self, key: &str, text: impl Into<String>, ms: &str) {
        self.keys.insert(key.to_owned(), (StoredValue::Text(text.into()), Some(after(ms))));
    }

    pub(super) fn list(&mut self, key: &str) -> &mut VecDeque<String> {
        if self.get(key).is_none() {
            self.keys.insert(key.to_owned(), (StoredValue::List(VecDeque::new()), None));
        }
        match self.get(key) {
            Some(StoredValue::List(list)) => list,
            other => panic!("{key} is no list: {other:?}"),
        }
    }

    pub(super) fn members(&mut self, key: &str) -> &mut BTreeSet<String> {
        if self.get(key).is_none() {
            self.keys.insert(key.to_owned(), (StoredValue::Set(BTreeSet::new()), None));
        }
        match self.get(key) {
            Some(StoredValue::Set(set)) => set,
            other => panic!("{key} is no set: {other:?}"),
        }
    }

    pub(super) fn expire(&mut self, key: &str, ms: &str) -> i64 {
        if self.get(key).is_none() {
            return 0;
        }
        self.keys.get_mut(key).expect("just seen").1 = Some(after(ms));
        1
    }

    /// Milliseconds left; −2: no such key, −1: for ever.
    pub(super) fn left(&mut self, key: &str) -> i64 {
        if self.get(key).is_none() {
            return -2;
        }
        let left = |until: Instant| {
            i64::try_from(until.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(i64::MAX)
        };
        self.keys[key].1.map_or(-1, left)
    }

    pub(super) fn delete(&mut self, key: &str) -> i64 {
        i64::from(self.get(key).is_some() && self.keys.remove(key).is_some())
    }

    pub(super) fn counted(&mut self, key: &str) -> i64 {
        let before = self.text(key).map_or(0, |count| count.parse::<i64>().expect("a number"));
        let until = self.keys.get(key).and_then(|(_, until)| *until);
        self.keys.insert(key.to_owned(), (StoredValue::Text((before + 1).to_string()), until));
        before + 1
    }

    pub(super) fn subscribers(&self, channel: &str) -> Vec<Subscriber> {
        let here = self.subscriptions.iter().filter(|(own, ..)| own == channel);
        here.map(|(_, _, on_push)| Arc::clone(on_push)).collect()
    }

    fn command(&mut self, words: &[String], published: &mut Vec<(String, String)>) -> Value {
        let word: Vec<&str> = words.iter().map(String::as_str).collect();
        match word.as_slice() {
            ["PING"] => Value::SimpleString("PONG".to_owned()),
            ["SET", key, text, "PX", ms] => {
                self.set(key, *text, ms);
                Value::Okay
            }
            ["GET", key] => self.text(key).map_or(Value::Nil, |text| Value::BulkString(text.into())),
            ["DEL", key] => Value::Int(self.delete(key)),
            ["PTTL", key] => Value::Int(self.left(key)),
            ["PUBLISH", channel, text] => {
                published.push(((*channel).to_owned(), (*text).to_owned()));
                Value::Int(0)
            }
            ["EVALSHA", hash, count, rest @ ..] => {
                let (keys, args) = rest.split_at(count.parse().expect("a number"));
                self.script(hash, keys, args, published)
            }
            other => panic!("this Redis knows no {other:?}"),
        }
    }
}
