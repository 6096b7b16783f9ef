//! Faithful stand-ins for Cantaloupe and the IR IIIF Service, for tests, benches and the demo only.
//!
//! Start with [`Testbed::start`]. The stand-ins behave as measured in `upstream.md`, section by section; each fault has a
//! name on the handles ([`Service`], [`ImageServer`], [`Redis`], [`Fedora`]) and can be switched while they run. For peers
//! that are not HTTP at all there is [`raw`], for any other origin there is [`Origin`].
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a stand-in that breaks must fail its test"
)]
#![allow(clippy::missing_panics_doc, reason = "a poisoned lock means that the test has failed already")]

mod cantaloupe;
mod client;
mod connection;
mod control;
mod counts;
mod fedora;
mod flow;
mod gate;
mod gateway;
mod generate;
mod geometry;
mod habits;
mod image_server;
mod json;
mod origin;
mod page;
pub mod picture;
pub mod raw;
mod redis;
mod reset;
mod routes;
mod service;
mod shapes;
mod stored;
mod wire;
mod world;

pub use client::{Client, Failure, Fetched, get, get_with};
pub use control::Control;
pub use counts::{Counts, Kind, Ledger, Logged};
pub use fedora::{Fedora, Holding, Leaf, uuid_of};
pub use flow::Flow;
pub use gateway::Gateway;
pub use image_server::ImageServer;
pub use origin::Origin;
pub use page::Page;
pub use redis::Redis;
pub use routes::routes;
pub use service::Service;
pub use stored::Stored;
pub use wire::Seen;
pub use world::{Builder, Testbed};
