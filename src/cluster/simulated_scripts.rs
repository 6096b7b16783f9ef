//! Simulation of the scripts: the same effects as their Lua in `scripts.rs`.

use redis::Value;

use super::scripts;
use super::simulated::{SimulatedState, pair};

impl SimulatedState {
    pub(super) fn script(
        &mut self,
        hash: &str,
        keys: &[&str],
        args: &[&str],
        published: &mut Vec<(String, String)>,
    ) -> Value {
        let is = |script: &redis::Script| script.get_hash() == hash;
        if is(&scripts::BOARD) {
            return self.board(keys, args);
        } else if is(&scripts::PLACE) {
            return self.place(keys, args);
        }
        Value::Int(if is(&scripts::DEPART) {
            self.depart(keys, args, published)
        } else if is(&scripts::LAND) {
            self.land(keys, args, published)
        } else if is(&scripts::FORGET) {
            if self.text(keys[0]).is_some_and(|held| held.starts_with('=')) {
                self.delete(keys[0]);
            }
            self.delete(keys[1])
        } else if is(&scripts::RENEW) {
            self.renew(keys, args)
        } else if is(&scripts::LEAVE) {
            self.leave(keys, args, published)
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
            return pair("cooling", &cooling);
        }
        let held = self.text(keys[0]);
        let (state, rest) = held.as_deref().map_or(("", ""), |held| held.split_at(1));
        if held.is_none() || rest == args[0] || (state == "=" && args[3] == "1") {
            self.set(keys[0], format!("?{}", args[0]), args[1]);
            return pair("taken", &"");
        }
        if state == "=" {
            return pair("landed", &rest);
        }
        let state = if state == ">" { "departed" } else { "held" };
        self.members(keys[1]).insert(args[2].to_owned());
        self.expire(keys[1], "600000");
        pair(state, &self.left(keys[0]))
    }

    fn depart(&mut self, keys: &[&str], args: &[&str], published: &mut Vec<(String, String)>) -> i64 {
        if self.text(keys[0]) != Some(format!("?{}", args[0])) {
            return 0;
        }
        self.set(keys[0], format!(">{}", args[0]), args[1]);
        for node in self.members(keys[1]).iter() {
            published.push((format!("{}{node}", args[2]), format!("{} departed", args[3])));
        }
        1
    }

    fn land(&mut self, keys: &[&str], args: &[&str], published: &mut Vec<(String, String)>) -> i64 {
        if self.text(keys[0]).is_some_and(|held| held.get(1..) != Some(args[0])) {
            return 0;
        }
        if args[4].is_empty() {
            self.delete(keys[0]);
        } else {
            self.set(keys[0], format!("={}", args[4]), args[1]);
        }
        for node in self.members(keys[1]).iter() {
            published.push((format!("{}{node}", args[2]), format!("{} landed {}", args[3], args[4])));
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
            return pair("open", &open);
        }
        if let Some(own) = keys[2..].iter().find(|place| self.text(place).as_deref() == Some(token)) {
            return pair("granted", &own);
        }
        let mut first: i64 = args[1].parse().expect("milliseconds");
        for place in &keys[2..] {
            if self.text(place).is_none() {
                self.set(place, token, args[1]);
                self.list(keys[1]).retain(|other| other != token);
                return pair("granted", &place);
            }
            first = first.min(self.left(place));
        }
        let queue = self.list(keys[1]);
        if !queue.iter().any(|other| other == token) {
            queue.push_back(token.to_owned());
        }
        self.expire(keys[1], "600000");
        pair("queued", &first)
    }

    fn leave(&mut self, keys: &[&str], args: &[&str], published: &mut Vec<(String, String)>) -> i64 {
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
            let has_subscriber = !self.subscribers(&channel).is_empty();
            published.push((channel, format!("{waiter} granted {} {}", keys[0], args[4])));
            if has_subscriber || args[3] == "1" {
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
