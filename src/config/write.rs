//! From what the program believes back to what a file would say: for `config show`, and for the defaults in
//! the schema. Written as whole struct literals, so that the compiler asks for every new key here, too.

use std::collections::BTreeMap;
use std::path::PathBuf;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::file::{self, File};
use super::leaf::{OneOrMany, Text};
use super::settings::{
    Admin, Cluster, Heal, Health, Index, Presentation, Rewrite, Route, Server, Settings, Source, SourceKind,
    Telemetry, Tls, Upstream,
};
use super::values::{
    Count, Filter, GoodStatus, HostName, HttpUrl, MaybeListen, Prefix, RedisUrl, Secret, Size, Slashed,
    Status, Token,
};

impl From<&Settings> for File {
    fn from(settings: &Settings) -> Self {
        Self {
            server: server(&settings.server),
            admin: admin(&settings.admin),
            upstream: upstream(&settings.upstream),
            routes: settings.routes.iter().map(route).collect(),
            index: index(&settings.index),
            heal: heal(&settings.heal),
            presentation: presentation(&settings.presentation),
            rewrite: rewrite(&settings.rewrite),
            cluster: cluster(&settings.cluster),
            log: file::Log {
                filter: text(Filter(settings.log.filter.clone())),
                format: text(settings.log.format),
                access: text(settings.log.access),
                sample: text(Count(settings.log.sample)),
                client: text(settings.log.client),
                queue: count(settings.log.queue),
            },
            telemetry: telemetry(&settings.telemetry),
        }
    }
}

#[allow(clippy::unnecessary_wraps, reason = "every field of the file's types is an Option")]
fn text<T>(value: T) -> Option<Text<T>> {
    Some(Text(value))
}

fn count(value: usize) -> Option<Text<Count>> {
    text(Count(u32::try_from(value).unwrap_or(u32::MAX)))
}

fn size(value: usize) -> Option<Text<Size>> {
    text(Size(u64::try_from(value).unwrap_or(u64::MAX)))
}

#[allow(clippy::unnecessary_wraps, reason = "every field of the file's types is an Option")]
fn list<T: Clone, U>(values: &[T], wrap: impl Fn(T) -> U) -> Option<Vec<Text<U>>> {
    Some(values.iter().cloned().map(|value| Text(wrap(value))).collect())
}

fn server(server: &Server) -> file::Server {
    file::Server {
        listen: list(&server.listen, |listen| listen).map(OneOrMany),
        public_hosts: list(&server.public_hosts, HostName),
        trusted_proxies: list(&server.trusted_proxies, |network| network),
        name: text(Token(server.name.clone())),
        workers: count(server.workers),
        drain: text(server.drain),
        head_timeout: text(server.head_timeout),
        idle_timeout: text(server.idle_timeout),
        half_closed_timeout: text(server.half_closed_timeout),
        tls_timeout: text(server.tls_timeout),
        request_timeout: text(server.request_timeout),
        max_connections: count(server.max_connections),
        max_connections_per_address: count(server.max_connections_per_address),
        max_upgrades: count(server.max_upgrades),
        max_upgrades_per_client: count(server.max_upgrades_per_client),
        rate: text(Count(server.rate)),
        rate_burst: text(Count(server.rate_burst)),
        http2: Some(file::Http2Bounds {
            max_streams: text(Count(server.http2.max_streams)),
            max_resets: count(server.http2.max_resets),
            ping: text(server.http2.ping),
            ping_timeout: text(server.http2.ping_timeout),
        }),
        max_head_bytes: size(server.max_head_bytes),
        max_uri_bytes: size(server.max_uri_bytes),
        max_body_bytes: size(server.max_body_bytes),
        min_rate: size(server.min_rate),
        max_held_total: size(server.max_held_total),
        tls: server.tls.as_deref().map(tls),
    }
}

fn admin(admin: &Admin) -> file::Admin {
    file::Admin {
        listen: text(MaybeListen(admin.listen)),
        token_file: admin.token_file.clone().map(Text),
        tls: admin.tls.as_ref().map(|pair| tls(std::slice::from_ref(pair))),
        client_ca: admin.client_ca.clone().map(Text),
        max_connections: count(admin.max_connections),
        max_live: count(admin.max_live),
        acts: text(Count(admin.acts)),
        max_body: size(admin.max_body),
        max_entries: text(Count(admin.max_entries)),
    }
}

fn tls(pairs: &[Tls]) -> file::Tls {
    let files = |file: fn(Tls) -> PathBuf| list(pairs, file).map(OneOrMany);
    file::Tls { cert: files(|pair| pair.cert), key: files(|pair| pair.key) }
}

fn upstream(upstream: &Upstream) -> file::Upstream {
    file::Upstream {
        ca: upstream.ca.clone().map(Text),
        client_certificate: upstream.client_certificate.as_ref().map(|pair| tls(std::slice::from_ref(pair))),
        connect_timeout: text(upstream.connect_timeout),
        first_byte_timeout: text(upstream.first_byte_timeout),
        body_timeout: text(upstream.body_timeout),
        pool_idle: text(upstream.pool_idle),
        pool_max_age: text(upstream.pool_max_age),
        max_requests: count(upstream.max_requests),
        queue_wait: text(upstream.queue_wait),
        buffer: size(upstream.buffer),
        http2: text(upstream.http2),
        http2_streams: count(upstream.http2_streams),
        http2_ping: text(upstream.http2_ping),
        health: health(&upstream.health),
    }
}

fn health(health: &Health) -> file::Health {
    file::Health {
        failures: text(Count(health.failures)),
        out: text(health.out),
        out_max: text(health.out_max),
        interval: text(health.interval),
        timeout: text(health.timeout),
        healthy_after: text(Count(health.healthy_after)),
        unhealthy_after: text(Count(health.unhealthy_after)),
        status: text(GoodStatus(health.status)),
    }
}

fn route(route: &Route) -> file::Route {
    file::Route {
        prefix: text(Prefix(route.prefix.clone())),
        upstream: text(route.upstream.clone()),
        kind: text(route.kind),
        connect: list(&route.connect, |address| address).filter(|list| !list.is_empty()).map(OneOrMany),
        health: route.health.clone().map(|path| Text(Prefix(path))),
        connect_timeout: route.connect_timeout.map(Text),
        first_byte_timeout: route.first_byte_timeout.map(Text),
        body_timeout: route.body_timeout.map(Text),
        preserve_host: Some(route.preserve_host),
        hosts: list(&route.hosts, HostName),
    }
}

fn index(index: &Index) -> file::Index {
    file::Index {
        path: text(index.path.clone()),
        learn: Some(index.learn),
        cache: text(Count(u32::try_from(index.cache).unwrap_or(u32::MAX))),
        store: text(index.store),
        refresh: text(index.refresh),
        max_pause: text(index.max_pause),
        history_age: text(index.history_age),
        history_rows: text(Count(index.history_rows)),
        file_url_bases: list(&index.file_url_bases, HttpUrl),
        grace: text(index.grace),
        canvas_rule: Some(file::CanvasRule {
            rest: text(Slashed(index.canvas_rule.rest.clone())),
            files: text(Slashed(index.canvas_rule.files.clone())),
            canvas: text(Slashed(index.canvas_rule.canvas.clone())),
        }),
        sources: index.sources.iter().map(source).collect(),
    }
}

fn source(source: &Source) -> file::Source {
    let common = file::Source {
        enabled: Some(source.enabled),
        interval: source.interval.map(Text),
        warm: source.warm.map(Text),
        ..file::Source::default()
    };
    match &source.kind {
        SourceKind::Path(path) => file::Source { path: text(path.clone()), ..common },
        SourceKind::Url(url) => file::Source {
            url: text(HttpUrl(url.clone())),
            headers: headers(&source.headers),
            concurrency: count(source.concurrency),
            rate: text(Count(source.rate)),
            hosts: list(&source.hosts, HostName),
            ..common
        },
    }
}

fn headers(fields: &HeaderMap) -> Option<BTreeMap<String, Text<HeaderValue>>> {
    let field = |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), Text(value.clone()));
    (!fields.is_empty()).then(|| fields.iter().map(field).collect())
}

fn heal(heal: &Heal) -> file::Heal {
    file::Heal {
        enabled: Some(heal.enabled),
        ladder: list(&heal.ladder, |rung| rung),
        statuses: list(&heal.statuses, Status),
        direct_statuses: list(&heal.direct_statuses, Status),
        wait: text(heal.wait),
        wait_info: text(heal.wait_info),
        timeout: text(heal.timeout),
        concurrency: count(heal.concurrency),
        document_concurrency: count(heal.document_concurrency),
        build_after: text(heal.build_after),
        hang_after: text(heal.hang_after),
        max_waiting: count(heal.max_waiting),
        max_flights: count(heal.max_flights),
        first_asks: count(heal.first_asks),
        first_asks_wait: text(heal.first_asks_wait),
        max_held: size(heal.max_held),
        per_client: text(Count(heal.per_client)),
        cooldown: text(heal.cooldown),
        missing: text(heal.missing),
        alive_for: text(heal.alive_for),
        resources_recheck: text(heal.resources_recheck),
        breaker_failures: text(Count(heal.breaker_failures)),
        breaker_open: text(heal.breaker_open),
        backoff_max: text(heal.backoff_max),
        origins: list(&heal.origins, |network| network),
        identifiers: heal.identifiers.clone().map(Text),
        skip_header: heal.skip_header.clone().map(Text),
        ahead: count(heal.ahead),
        sweep: Some(heal.sweep),
        sweep_rate: text(Count(heal.sweep_rate)),
        mass_expiry: Some(file::MassExpiry {
            ids: count(heal.mass_expiry.ids),
            within: text(heal.mass_expiry.within),
        }),
    }
}

fn presentation(presentation: &Presentation) -> file::Presentation {
    file::Presentation {
        collapse: Some(presentation.collapse),
        max_flights: count(presentation.max_flights),
        max_body: size(presentation.max_body),
        repair: Some(presentation.repair),
        watch: Some(presentation.watch),
        manifests: Some(presentation.manifests),
    }
}

fn rewrite(rewrite: &Rewrite) -> file::Rewrite {
    let public_url = rewrite.public_url.as_ref();
    let written = public_url.map(|url| HttpUrl(format!("{}://{}", url.scheme, url.authority)));
    file::Rewrite { public_url: written.map(Text) }
}

fn telemetry(telemetry: &Telemetry) -> file::Telemetry {
    file::Telemetry {
        otlp: telemetry.otlp.clone().map(Text),
        headers: headers(&telemetry.headers),
        sample: text(Count(telemetry.sample)),
        timeout: text(telemetry.timeout),
        queue: count(telemetry.queue),
    }
}

fn cluster(cluster: &Cluster) -> file::Cluster {
    file::Cluster {
        url: list(&cluster.urls, RedisUrl).filter(|list| !list.is_empty()).map(OneOrMany),
        kind: text(cluster.kind),
        master: text(Token(cluster.master.clone())),
        // SECURITY: what is shown ends up in tickets.
        username: cluster.username.clone().map(|name| Text(Secret(name))),
        password: cluster.password.as_ref().map(|_| Text(Secret("***".to_owned()))),
        prefix: text(Token(cluster.prefix.clone())),
        connect_timeout: text(cluster.connect_timeout),
        command_timeout: text(cluster.command_timeout),
        lease: text(cluster.lease),
        learned: text(Count(u32::try_from(cluster.learned).unwrap_or(u32::MAX))),
        learned_max: text(Size(cluster.learned_max)),
        ca: cluster.ca.clone().map(Text),
        jobs: text(cluster.jobs),
        edition_every: text(cluster.edition_every),
        edition_max: text(Size(cluster.edition_max)),
        edition_lasts: text(cluster.edition_lasts),
    }
}
