//! The Redis between the nodes of a simulated world, in virtual time: the commands and scripts that healing sends, each at
//! one stroke. (`tests/it/cluster_*.rs` has the real one.)

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{Arg, Cmd, Pipeline, PushInfo, PushKind, RedisError, RedisFuture, RedisResult, Value};
use tokio::time::{Instant, sleep};

use super::scripts;

/// One command takes so long.
const LATENCY: Duration = Duration::from_millis(1);

thread_local! {
    static CURRENT: RefCell<Option<Arc<SimulatedRedis>>> = const { RefCell::new(None) };
}

/// `RedisMood` is how it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum RedisMood {
    #[default]
    Well,
    /// Connections are closed, and refused.
    Away,
    /// Commands are taken and never answered.
    Hangs,
}

#[derive(Debug, Clone)]
enum Stored {
    Text(String),
    List(VecDeque<String>),
    Set(BTreeSet<String>),
}

type Ear = Arc<dyn Fn(PushInfo) -> Result<(), ()> + Send + Sync>;

#[derive(Default)]
struct State {
    mood: RedisMood,
    keys: BTreeMap<String, (Stored, Option<Instant>)>,
    /// Channel, connection, who hears.
    ears: Vec<(String, u64, Ear)>,
    connections: u64,
}

/// `SimulatedRedis` is one server.
#[derive(Default)]
pub(crate) struct SimulatedRedis(Mutex<State>);

impl std::fmt::Debug for SimulatedRedis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a Redis in virtual time")
    }
}

/// `SimulatedWire` is a connection to it.
#[derive(Clone)]
pub(super) struct SimulatedWire {
    redis: Arc<SimulatedRedis>,
    number: u64,
    ear: Ear,
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_in(&self, mood: RedisMood) {
        let mut state = self.state();
        state.mood = mood;
        if mood == RedisMood::Away {
            let mut ears = std::mem::take(&mut state.ears);
            drop(state);
            ears.dedup_by_key(|(_, number, _)| *number);
            for (_, _, ear) in ears {
                let _gone = ear(PushInfo { kind: PushKind::Disconnection, data: Vec::new() });
            }
        }
    }

    /// Everything is lost.
    pub(crate) fn flush(&self) {
        self.state().keys.clear();
    }

    pub(super) fn connect(
        self: Arc<Self>,
        hear: impl Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static,
    ) -> RedisResult<SimulatedWire> {
        let number = {
            let mut state = self.state();
            if state.mood == RedisMood::Away {
                return Err(broken("refused"));
            }
            state.connections += 1;
            state.connections
        };
        Ok(SimulatedWire { redis: self, number, ear: Arc::new(hear) })
    }

    /// One command; `Err`: there is no answer.
    async fn answers(&self, words: Vec<String>) -> RedisResult<Value> {
        sleep(LATENCY).await;
        let mood = self.state().mood;
        match mood {
            RedisMood::Away => return Err(broken("closed")),
            RedisMood::Hangs => std::future::pending::<()>().await,
            RedisMood::Well => {}
        }
        let (answer, said) = {
            let mut state = self.state();
            let mut said = Vec::new();
            (state.command(&words, &mut said), said)
        };
        for (channel, text) in said {
            let ears: Vec<_> = self.state().heard_by(&channel);
            for ear in ears {
                let data =
                    vec![Value::BulkString(channel.clone().into()), Value::BulkString(text.clone().into())];
                let _gone = ear(PushInfo { kind: PushKind::Message, data });
            }
        }
        Ok(answer)
    }
}

impl SimulatedWire {
    pub(super) fn subscribe(&self, channel: &str) -> RedisResult<()> {
        let mut state = self.redis.state();
        if state.mood == RedisMood::Away {
            return Err(broken("closed"));
        }
        state.ears.push((channel.to_owned(), self.number, Arc::clone(&self.ear)));
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
        Box::pin(self.redis.answers(words))
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

fn pair(state: &str, rest: impl ToString) -> Value {
    Value::Array(vec![Value::BulkString(state.to_owned().into()), Value::BulkString(rest.to_string().into())])
}

fn after(ms: &str) -> Option<Instant> {
    Some(Instant::now() + Duration::from_millis(ms.parse().expect("milliseconds")))
}

impl State {
    fn get(&mut self, key: &str) -> Option<&mut Stored> {
        let is_over = self.keys.get(key)?.1.is_some_and(|until| Instant::now() >= until);
        if is_over {
            self.keys.remove(key);
        }
        self.keys.get_mut(key).map(|(stored, _)| stored)
    }

    fn text(&mut self, key: &str) -> Option<String> {
        match self.get(key)? {
            Stored::Text(text) => Some(text.clone()),
            other => panic!("{key} is no text: {other:?}"),
        }
    }

    fn set(&mut self, key: &str, text: impl Into<String>, ms: &str) {
        self.keys.insert(key.to_owned(), (Stored::Text(text.into()), after(ms)));
    }

    fn list(&mut self, key: &str) -> &mut VecDeque<String> {
        if self.get(key).is_none() {
            self.keys.insert(key.to_owned(), (Stored::List(VecDeque::new()), None));
        }
        match self.get(key) {
            Some(Stored::List(list)) => list,
            other => panic!("{key} is no list: {other:?}"),
        }
    }

    fn members(&mut self, key: &str) -> &mut BTreeSet<String> {
        if self.get(key).is_none() {
            self.keys.insert(key.to_owned(), (Stored::Set(BTreeSet::new()), None));
        }
        match self.get(key) {
            Some(Stored::Set(set)) => set,
            other => panic!("{key} is no set: {other:?}"),
        }
    }

    fn expire(&mut self, key: &str, ms: &str) -> i64 {
        if self.get(key).is_none() {
            return 0;
        }
        self.keys.get_mut(key).expect("just seen").1 = after(ms);
        1
    }

    /// Milliseconds left; −2: no such key, −1: for ever.
    fn left(&mut self, key: &str) -> i64 {
        if self.get(key).is_none() {
            return -2;
        }
        let left = |until: Instant| {
            i64::try_from(until.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(i64::MAX)
        };
        self.keys[key].1.map_or(-1, left)
    }

    fn delete(&mut self, key: &str) -> i64 {
        i64::from(self.get(key).is_some() && self.keys.remove(key).is_some())
    }

    fn counted(&mut self, key: &str) -> i64 {
        let before = self.text(key).map_or(0, |count| count.parse::<i64>().expect("a number"));
        let until = self.keys.get(key).and_then(|(_, until)| *until);
        self.keys.insert(key.to_owned(), (Stored::Text((before + 1).to_string()), until));
        before + 1
    }

    fn heard_by(&self, channel: &str) -> Vec<Ear> {
        let here = self.ears.iter().filter(|(own, ..)| own == channel);
        here.map(|(_, _, ear)| Arc::clone(ear)).collect()
    }

    fn command(&mut self, words: &[String], said: &mut Vec<(String, String)>) -> Value {
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
                said.push(((*channel).to_owned(), (*text).to_owned()));
                Value::Int(0)
            }
            ["EVALSHA", hash, count, rest @ ..] => {
                let (keys, args) = rest.split_at(count.parse().expect("a number"));
                self.script(hash, keys, args, said)
            }
            other => panic!("this Redis knows no {other:?}"),
        }
    }

    fn script(
        &mut self,
        hash: &str,
        keys: &[&str],
        args: &[&str],
        said: &mut Vec<(String, String)>,
    ) -> Value {
        let is = |script: &redis::Script| script.get_hash() == hash;
        if is(&scripts::BOARD) {
            return self.board(keys, args);
        } else if is(&scripts::PLACE) {
            return self.place(keys, args);
        }
        Value::Int(if is(&scripts::DEPART) {
            self.depart(keys, args, said)
        } else if is(&scripts::LAND) {
            self.land(keys, args, said)
        } else if is(&scripts::FORGET) {
            if self.text(keys[0]).is_some_and(|held| held.starts_with('=')) {
                self.delete(keys[0]);
            }
            self.delete(keys[1])
        } else if is(&scripts::RENEW) {
            self.renew(keys, args)
        } else if is(&scripts::LEAVE) {
            self.leave(keys, args, said)
        } else if is(&scripts::COUNT) {
            let count = self.counted(keys[0]);
            if count == 1 {
                self.expire(keys[0], args[0]);
            }
            count
        } else if is(&scripts::EXPIRED) {
            self.expired(keys, args)
        } else if is(&scripts::LEARN) {
            1 // Indexes are of no world here.
        } else {
            panic!("this Redis knows no such script")
        })
    }

    fn board(&mut self, keys: &[&str], args: &[&str]) -> Value {
        let cooling = self.left(keys[2]);
        if cooling > 0 {
            return pair("cooling", cooling);
        }
        let held = self.text(keys[0]);
        let (state, rest) = held.as_deref().map_or(("", ""), |held| held.split_at(1));
        if held.is_none() || rest == args[0] || (state == "=" && args[3] == "1") {
            self.set(keys[0], format!("?{}", args[0]), args[1]);
            return pair("taken", "");
        }
        if state == "=" {
            return pair("landed", rest);
        }
        let state = if state == ">" { "departed" } else { "held" };
        self.members(keys[1]).insert(args[2].to_owned());
        self.expire(keys[1], "600000");
        pair(state, self.left(keys[0]))
    }

    fn depart(&mut self, keys: &[&str], args: &[&str], said: &mut Vec<(String, String)>) -> i64 {
        if self.text(keys[0]) != Some(format!("?{}", args[0])) {
            return 0;
        }
        self.set(keys[0], format!(">{}", args[0]), args[1]);
        for node in self.members(keys[1]).iter() {
            said.push((format!("{}{node}", args[2]), format!("{} departed", args[3])));
        }
        1
    }

    fn land(&mut self, keys: &[&str], args: &[&str], said: &mut Vec<(String, String)>) -> i64 {
        if self.text(keys[0]).is_some_and(|held| held.get(1..) != Some(args[0])) {
            return 0;
        }
        if args[4].is_empty() {
            self.delete(keys[0]);
        } else {
            self.set(keys[0], format!("={}", args[4]), args[1]);
        }
        for node in self.members(keys[1]).iter() {
            said.push((format!("{}{node}", args[2]), format!("{} landed {}", args[3], args[4])));
        }
        self.delete(keys[1]);
        1
    }

    fn renew(&mut self, keys: &[&str], args: &[&str]) -> i64 {
        match self.text(keys[0]) {
            None => {
                self.set(keys[0], format!("{}{}", args[2], args[0]), args[1]);
                1
            }
            Some(held) if held != args[0] && held.get(1..) != Some(args[0]) => 0,
            Some(_) => self.expire(keys[0], args[1]),
        }
    }

    fn place(&mut self, keys: &[&str], args: &[&str]) -> Value {
        let token = args[0];
        let open = self.left(keys[0]);
        if open > 0 {
            self.list(keys[1]).retain(|other| other != token);
            return pair("open", open);
        }
        if let Some(own) = keys[2..].iter().find(|place| self.text(place).as_deref() == Some(token)) {
            return pair("granted", own);
        }
        let mut first: i64 = args[1].parse().expect("milliseconds");
        for place in &keys[2..] {
            if self.text(place).is_none() {
                self.set(place, token, args[1]);
                self.list(keys[1]).retain(|other| other != token);
                return pair("granted", place);
            }
            first = first.min(self.left(place));
        }
        let queue = self.list(keys[1]);
        if !queue.iter().any(|other| other == token) {
            queue.push_back(token.to_owned());
        }
        self.expire(keys[1], "600000");
        pair("queued", first)
    }

    fn leave(&mut self, keys: &[&str], args: &[&str], said: &mut Vec<(String, String)>) -> i64 {
        self.list(keys[1]).retain(|other| other != args[0]);
        self.list(keys[2]).retain(|other| other != args[0]);
        if self.text(keys[0]).as_deref() != Some(args[0]) {
            return 0;
        }
        loop {
            let turn = self.counted(keys[3]);
            self.expire(keys[3], "600000");
            let (a, b) = if turn % 4 == 0 { (keys[2], keys[1]) } else { (keys[1], keys[2]) };
            let waiter = self.list(a).pop_front().or_else(|| self.list(b).pop_front());
            let Some(waiter) = waiter else {
                self.delete(keys[0]);
                return 1;
            };
            self.set(keys[0], waiter.as_str(), args[1]);
            let node = waiter.split('/').next().unwrap_or_default();
            let channel = format!("{}{node}", args[2]);
            let is_heard = !self.heard_by(&channel).is_empty();
            said.push((channel, format!("{waiter} granted {} {}", keys[0], args[4])));
            if is_heard || args[3] == "1" {
                return 1;
            }
        }
    }

    fn expired(&mut self, keys: &[&str], args: &[&str]) -> i64 {
        if self.get(keys[1]).is_some() {
            self.expire(keys[1], args[3]);
            return 0;
        }
        self.members(keys[0]).insert(args[0].to_owned());
        if self.left(keys[0]) < 0 {
            self.expire(keys[0], args[1]);
        }
        if self.members(keys[0]).len() < args[2].parse().expect("a number") {
            return 0;
        }
        self.set(keys[1], "1", args[3]);
        self.delete(keys[0]);
        1
    }
}
