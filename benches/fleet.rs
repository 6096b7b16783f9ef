//! A fleet on paper, played through: how many keys, how much memory and how many messages a mass expiry costs Redis, and
//! what breaks first. Nothing is measured here but the rules of `src/cluster`; seeded, so that every run says the same.
//!
//! `cargo bench --bench fleet -- [--nodes 1000] [--images 1000000000] [--rate 20000] [--places 32] [--canvas-ms 2000]
//! [--seconds 600] [--seed 1]`

#![allow(clippy::print_stdout, reason = "a bench tells its figures")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures on paper"
)]

use std::collections::{HashMap, HashSet, VecDeque};

/// Commands of the node that asks: missing?, board, place, depart, land, leave, expired.
const HOLDER: u64 = 7;
/// Commands of a node that waits: missing?, board, board again while listening, expired.
const PASSENGER: u64 = 4;
/// A node that waits looks when a lease ends, in seconds: as long as the holder lives, between two and three.
const LOOK: f64 = 2.5;
/// A heartbeat of a node at which anybody waits, in seconds.
const BEAT: f64 = 0.025;
/// Bytes of a key with a short value in Redis 7 (`MEMORY USAGE` of such keys, rounded up).
const KEY: u64 = 160;
/// What one core of Redis does, in simple commands (heartbeats) a second; scripts count as three.
const CORE: f64 = 100_000.0;

struct Asked {
    nodes: HashSet<u32>,
    since: f64,
}

#[derive(Default)]
struct Tally {
    heals: u64,
    commands: u64,
    beats: u64,
    messages: u64,
    most_flights: usize,
    most_waiting: usize,
    longest: f64,
}

fn option(name: &str, default: f64) -> f64 {
    let mut arguments = std::env::args();
    arguments.find(|argument| argument == name);
    arguments.next().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Popularity falls with rank, as it does in libraries: rank is spread evenly over its logarithm.
fn image(random: &mut fastrand::Rng, images: f64) -> u64 {
    images.powf(random.f64()) as u64
}

fn main() {
    let (nodes, images) = (option("--nodes", 1e3), option("--images", 1e9));
    let (rate, places) = (option("--rate", 2e4), option("--places", 32.0));
    let (canvas, seconds) = (option("--canvas-ms", 2e3) / 1e3, option("--seconds", 600.0));
    let mut random = fastrand::Rng::with_seed(option("--seed", 1.0) as u64);
    let mut healed: HashSet<u64> = HashSet::new();
    let mut flights: HashMap<u64, Asked> = HashMap::new();
    let mut queue: VecDeque<u64> = VecDeque::new();
    let mut busy: VecDeque<(f64, u64)> = VecDeque::new();
    let mut tally = Tally::default();
    let step = 0.05;
    let mut now = 0.0;
    while now < seconds {
        for _ in 0..(rate * step) as u64 {
            let (image, node) = (image(&mut random, images), random.u32(..nodes as u32));
            if healed.contains(&image) {
                continue;
            }
            let flight = flights.entry(image).or_insert_with(|| {
                queue.push_back(image);
                Asked { nodes: HashSet::new(), since: now }
            });
            if flight.nodes.insert(node) {
                tally.commands += if flight.nodes.len() == 1 { HOLDER } else { PASSENGER };
            }
        }
        while busy.front().is_some_and(|(ends, _)| *ends <= now) {
            let Some((_, image)) = busy.pop_front() else { break };
            let Some(flight) = flights.remove(&image) else { continue };
            // Departed, landed, and a place handed on.
            tally.messages += 2 * (flight.nodes.len() as u64 - 1) + 1;
            tally.longest = tally.longest.max(now - flight.since);
            tally.heals += 1;
            healed.insert(image);
        }
        while busy.len() < places as usize {
            let Some(image) = queue.pop_front() else { break };
            busy.push_back((now + canvas, image));
        }
        let waiting: usize = flights.values().map(|flight| flight.nodes.len()).sum();
        let beating = flights.values().flat_map(|flight| &flight.nodes).collect::<HashSet<_>>().len();
        tally.commands += (waiting as f64 * step / LOOK) as u64;
        tally.beats += (beating as f64 * step / BEAT) as u64;
        tally.most_flights = tally.most_flights.max(flights.len());
        tally.most_waiting = tally.most_waiting.max(waiting);
        now += step;
    }
    tell(&tally, seconds, places / canvas);
}

fn tell(tally: &Tally, seconds: f64, pace: f64) {
    let a_second = tally.commands as f64 / seconds;
    let beats = tally.beats as f64 / seconds;
    let load = (3.0 * a_second + beats) / CORE;
    let heals = tally.heals.max(1);
    println!("heals                     {:>12}  (the service can do {:.1} a second)", tally.heals, pace);
    println!("commands a heal           {:>12.1}", tally.commands as f64 / heals as f64);
    println!("messages a heal           {:>12.1}", tally.messages as f64 / heals as f64);
    println!("commands a second         {a_second:>12.0}");
    println!("heartbeats a second       {beats:>12.0}");
    println!("load of Redis             {:>10.0} %  (of one core)", load * 100.0);
    println!("flights at most           {:>12}", tally.most_flights);
    println!("nodes that wait, at most  {:>12}", tally.most_waiting);
    println!(
        "memory of Redis, at most  {:>10.1} MB",
        ((tally.most_flights as u64 + tally.most_waiting as u64) * KEY) as f64 / 1e6
    );
    println!("longest wait              {:>10.1} s", tally.longest);
    let first = if load > 1.0 {
        "Redis: too many look and beat"
    } else {
        "the canvas service: viewers wait longer than [heal] wait"
    };
    println!("breaks first: {first}");
}
