//! Every default of the configuration, and nothing else. The schema, `config show` and the test of the
//! shipped `config.toml` all read them from here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderMap;

use super::settings::{
    AccessLog, Admin, CanvasRule, Cluster, ClusterKind, Heal, Health, Http2, Http2Bounds, Index, Log,
    LogClient, LogFormat, MassExpiry, Presentation, Rewrite, Rung, Server, Settings, Source, SourceKind,
    Store, Telemetry, Upstream,
};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Everything but routes: those have no default, and a proxy without one is a mistake.
impl Default for Settings {
    fn default() -> Self {
        Self {
            server: Server::default(),
            admin: Admin::default(),
            upstream: Upstream::default(),
            routes: Vec::new(),
            index: Index::default(),
            heal: Heal::default(),
            presentation: Presentation::default(),
            rewrite: Rewrite { public_url: None },
            cluster: Cluster::default(),
            log: Log::default(),
            telemetry: Telemetry::default(),
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![local(8080).into()],
            tls: None,
            public_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            name: "iiif-mender".to_owned(),
            workers: 0,
            // Longer than `heal.wait`, so that a viewer who waits at SIGTERM still gets the picture.
            drain: secs(30),
            head_timeout: secs(10),
            idle_timeout: secs(75),
            half_closed_timeout: secs(5),
            tls_timeout: secs(10),
            // Longer than any heal, and than a whole book as PDF through a slow line.
            request_timeout: secs(60 * 60),
            max_connections: 4096,
            // A reading room behind one address fits in, and nobody takes every place.
            max_connections_per_address: 1024,
            // Far below the open files of a process; a reading room behind one address has a few.
            max_upgrades: 256,
            max_upgrades_per_client: 32,
            rate: 0,
            rate_burst: 200,
            http2: Http2Bounds::default(),
            max_head_bytes: 64 * 1024,
            max_uri_bytes: 8 * 1024,
            max_body_bytes: 64 * 1024 * 1024,
            // A sixth of what the slowest mobile networks still give; what uploads of Apache must reach as well.
            min_rate: 512,
            max_held_total: 256 << 20,
        }
    }
}

impl Default for Http2Bounds {
    fn default() -> Self {
        // Viewers ask for dozens of tiles at once, and take many of them back when the reader zooms on.
        Self { max_streams: 100, max_resets: 256, ping: secs(10), ping_timeout: secs(20) }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: Some(local(9090)),
            token_file: None,
            tls: None,
            client_ca: None,
            max_connections: 64,
            max_live: 16,
            acts: 10,
            max_body: 16 * 1024,
            max_entries: 200,
        }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            ca: None,
            client_certificate: None,
            connect_timeout: secs(5),
            // UPSTREAM: a presentation of many pages is built page by page and takes minutes.
            first_byte_timeout: secs(120),
            body_timeout: secs(60),
            // Below Apache's keep-alive of 5 s, the shortest that is common.
            pool_idle: secs(4),
            pool_max_age: secs(5 * 60),
            max_requests: 256,
            queue_wait: secs(10),
            // Nearly every tile, and the info.json of all.
            buffer: 256 << 10,
            http2: Http2::Off,
            http2_streams: 100,
            http2_ping: secs(20),
            health: Health::default(),
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            failures: 3,
            // A server that is back is used again within a second.
            out: Duration::from_millis(500),
            out_max: secs(30),
            interval: secs(5),
            timeout: secs(2),
            healthy_after: 2,
            unhealthy_after: 3,
            status: 200,
        }
    }
}

impl Default for Index {
    fn default() -> Self {
        Self {
            path: PathBuf::from("iiif-mender.sqlite3"),
            store: Store::Sqlite,
            learn: true,
            sources: Vec::new(),
            cache: 100_000,
            refresh: secs(60 * 60),
            max_pause: secs(60),
            history_age: secs(30 * 24 * 60 * 60),
            history_rows: 100_000,
            file_url_bases: Vec::new(),
            grace: secs(24 * 60 * 60),
            canvas_rule: CanvasRule::default(),
        }
    }
}

impl Default for CanvasRule {
    fn default() -> Self {
        Self {
            rest: "/fcrepo/rest/".to_owned(),
            files: "/files/".to_owned(),
            canvas: "/iiif-service/fedora/canvas/".to_owned(),
        }
    }
}

impl Source {
    pub(super) fn of(kind: SourceKind) -> Self {
        Self {
            kind,
            enabled: true,
            interval: None,
            warm: None,
            headers: HeaderMap::new(),
            // UPSTREAM: the service holds two connections per host, and its viewers need them as well.
            concurrency: 2,
            rate: 10,
            hosts: Vec::new(),
        }
    }
}

impl Default for Heal {
    fn default() -> Self {
        Self {
            enabled: true,
            ladder: vec![Rung::Direct, Rung::Register, Rung::Variant, Rung::Visit, Rung::Rebuild],
            // UPSTREAM: a key that vanishes while the image is being opened makes the answer 501.
            statuses: vec![404, 501],
            wait: secs(25),
            wait_info: secs(110),
            concurrency: 2,
            document_concurrency: 4,
            build_after: Duration::from_millis(250),
            hang_after: secs(10),
            // UPSTREAM: the service's own timeouts are 10 to 30 minutes.
            timeout: secs(10 * 60),
            cooldown: secs(30),
            missing: secs(10 * 60),
            max_waiting: 1000,
            max_flights: 10_000,
            first_asks: 16,
            first_asks_wait: Duration::from_millis(50),
            max_held: 64 * 1024,
            origins: Vec::new(),
            ahead: 8,
            direct_statuses: vec![404, 500, 502, 503, 504],
            identifiers: None,
            skip_header: None,
            per_client: 600,
            breaker_failures: 5,
            breaker_open: secs(1),
            backoff_max: secs(60),
            resources_recheck: secs(60),
            alive_for: secs(60),
            mass_expiry: MassExpiry { ids: 20, within: secs(10) },
            sweep: false,
            sweep_rate: 20,
        }
    }
}

impl Default for Presentation {
    fn default() -> Self {
        Self {
            collapse: true,
            max_flights: 64,
            max_body: 16 << 20,
            repair: true,
            watch: true,
            manifests: false,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: LogFormat::Auto,
            access: AccessLog::Sampled,
            sample: 100,
            client: LogClient::Masked,
            // Some MB when it is full.
            queue: 8192,
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            otlp: None,
            headers: HeaderMap::new(),
            sample: 10,
            timeout: secs(10),
            // About a MB when it is full.
            queue: 2048,
        }
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            kind: ClusterKind::Server,
            master: "mymaster".to_owned(),
            username: None,
            password: None,
            ca: None,
            prefix: "iiif-mender".to_owned(),
            connect_timeout: secs(1),
            // With the heartbeat's pause of half of it: less than 100 ms until a node knows that it is alone.
            command_timeout: Duration::from_millis(50),
            lease: secs(3),
            learned: 100_000,
            learned_max: 64 << 20,
            jobs: secs(24 * 3600),
            edition_every: secs(60),
            edition_max: 1 << 30,
            edition_lasts: secs(7 * 24 * 3600),
        }
    }
}
