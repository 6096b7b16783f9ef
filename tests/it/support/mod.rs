//! What the suites stand on: iiif-mender before stand-ins, several nodes, clients that misbehave, the program as a process.

pub(crate) mod attackers;
pub(crate) mod attackers_http2;
pub(crate) mod batch_world;
pub(crate) mod cache_world;
pub(crate) mod cluster_world;
pub(crate) mod edge;
pub(crate) mod fair_world;
pub(crate) mod healing_world;
pub(crate) mod json_schema;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod recorder;
pub(crate) mod tls;
pub(crate) mod toxiproxy;
pub(crate) mod world;
