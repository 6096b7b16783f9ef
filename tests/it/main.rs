//! One binary: a suite a file, a test a sentence. Everything runs against `testbed`, on ports of its own, without sleeps.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp,
    reason = "this is how a test fails (clippy's own exception does not reach the functions around the tests), and a scrape's counts are whole"
)]

mod ahead;
mod docs;
mod echo;
mod gate;
mod healing;
mod ladder;
mod learning;
mod limits;
mod never;
mod orchestrator;
mod poison;
mod presentation_collapse;
mod presentation_cors;
mod presentation_poison;
mod presentation_repair;
mod presentation_rewrite;
mod readme;
mod world;
