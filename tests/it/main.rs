//! One binary: a suite a file, a test a sentence. Everything runs against `testbed`, on ports of its own, without sleeps.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp,
    reason = "this is how a test fails (clippy's own exception does not reach the functions around the tests), and a scrape's counts are whole"
)]
#![allow(clippy::cast_precision_loss, reason = "what a scrape counts are small whole numbers")]

mod admin;
mod ahead;
mod architecture;
mod attackers;
mod attackers_http2;
mod batch_jobs;
mod batch_reports;
mod batch_resume;
mod batch_sources;
mod batch_troubles;
mod batch_verdicts;
mod batch_world;
mod caps;
mod certificates;
mod cluster_editions;
mod cluster_flights;
mod cluster_kinds;
mod cluster_learning;
mod cluster_loss;
mod cluster_tls;
mod cluster_trouble;
mod cluster_world;
mod commands;
mod conformance;
mod crowd;
mod damage;
mod deployed;
mod docs;
mod durability;
mod echo;
mod edge;
mod fair_heals;
mod fair_shares;
mod fair_uploads;
mod fair_world;
mod faults;
mod forwarding;
mod framing;
mod fronts;
mod fuzz_smoke;
mod gate;
mod guard;
mod half_closed;
mod handover;
mod healing;
mod heart_batch;
mod heart_cost;
mod heart_faults;
mod heart_missing;
mod heart_probes;
mod heart_viewers;
mod heart_world;
mod held;
mod hostile;
mod http2_upstream;
mod identifiers;
mod ladder;
mod learning;
mod limits;
mod listening;
mod logs;
mod never;
mod oracle;
mod orchestrator;
mod orchestrator_edge;
mod poison;
mod presentation_collapse;
mod presentation_cors;
mod presentation_gateway;
mod presentation_poison;
mod presentation_repair;
mod presentation_rewrite;
mod presentation_wire;
mod process;
mod proxy_protocol;
mod readme;
mod readonly;
mod recorder;
mod reload;
mod request_ids;
mod servers;
mod soak;
mod sources;
mod strictness;
mod surface;
mod systemd;
mod top;
mod toxiproxy;
mod traces;
mod trail;
mod tutorial;
mod unreadable;
mod upgrades;
mod uploads;
mod watching;
mod window;
mod workers;
mod world;
