//! One binary: a suite a file, a test a sentence. Everything runs against `testbed`, on ports of its own, without sleeps.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is how a test fails; clippy's own exception does not reach the functions around the tests"
)]
#![allow(clippy::float_cmp, reason = "the numbers of a scrape are counts")]

mod ahead;
mod architecture;
mod commands;
mod edge;
mod faults;
mod forwarding;
mod guard;
mod healing;
mod learning;
mod listening;
mod world;
