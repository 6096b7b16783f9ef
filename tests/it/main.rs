//! One binary: a suite a file, a test a sentence. Everything runs against `testbed`, on ports of its own; what several suites need is in `support`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp,
    reason = "this is how a test fails (clippy's own exception does not reach the functions around the tests), and a scrape's counts are whole"
)]
#![allow(clippy::cast_precision_loss, reason = "what a scrape counts are small whole numbers")]

mod admin;
mod admin_access;
mod ahead;
mod architecture;
mod batch_jobs;
mod batch_reports;
mod batch_resume;
mod batch_sources;
mod batch_troubles;
mod batch_verdicts;
mod cache;
mod cache_flights;
mod cache_healing;
mod cache_keys;
mod cache_purge;
mod certificates;
mod cluster_editions;
mod cluster_flights;
mod cluster_kinds;
mod cluster_learning;
mod cluster_loss;
mod cluster_tls;
mod cluster_trouble;
mod commands;
mod conformance;
mod connection_limits;
mod damage;
mod deployed;
mod docs;
mod durability;
mod echo;
mod fair_connections;
mod fair_heals;
mod fair_shares;
mod fair_uploads;
mod faults;
mod forwarding;
mod framing;
mod fuzz_smoke;
mod guard;
mod half_closed;
mod handover;
mod healing;
mod healing_batch;
mod healing_cost;
mod healing_faults;
mod healing_liars;
mod healing_missing;
mod healing_probes;
mod healing_services;
mod healing_viewers;
mod hostile;
mod http2_upstream;
mod identifiers;
mod info_gate;
mod ladder;
mod learn_from_traffic;
mod limits;
mod listening;
mod logs;
mod memory_budget;
mod not_healed;
mod oracle;
mod poison;
mod presentation_codings;
mod presentation_collapse;
mod presentation_cors;
mod presentation_crowd;
mod presentation_gateway;
mod presentation_poison;
mod presentation_repair;
mod presentation_rewrite;
mod presentation_shorter;
mod presentation_wire;
mod proxy_protocol;
mod readme;
mod readonly;
mod reload;
mod request_id_trail;
mod request_ids;
mod reverse_proxies;
mod servers;
mod snapshot;
mod soak;
mod sources;
mod strictness;
mod support;
mod surface;
mod systemd;
mod ten_thousand_viewers;
mod top;
mod traces;
mod tutorial;
mod unreadable;
mod upgrades;
mod uploads;
mod watching;
mod workers;
