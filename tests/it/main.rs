//! One binary: a suite a file, a test a sentence. Everything runs against `testbed`, on ports of its own, without sleeps.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is how a test fails; clippy's own exception does not reach the functions around the tests"
)]

mod ahead;
mod healing;
mod learning;
mod presentation_collapse;
mod world;
