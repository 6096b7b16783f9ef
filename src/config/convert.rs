//! From what the file says to what the program believes: defaults are filled in, paths joined to the file's
//! folder. What is missing is reported; whether the whole makes sense is asked in [`check`](super::check).

mod told;

use std::path::{Path, PathBuf};

use http::uri::{Authority, Scheme};

use super::check::Report;
use super::file::{self, File};
use super::leaf::Text;
use super::settings::{
    Admin, CanvasRule, Cluster, Heal, Health, Http2Bounds, Index, MassExpiry, Presentation, Rewrite, Route,
    RouteKind, Server, Settings, Source, SourceKind, Tls, Upstream, UpstreamUrl,
};
use super::values::{Count, Size};
use told::{headers, log, telemetry};

/// Everything with its default filled in; routes stay in the order of the file.
pub(super) fn settings(file: File, folder: &Path, report: &mut Report<'_>) -> Settings {
    Settings {
        server: server(file.server, folder, report),
        admin: admin(file.admin, folder, report),
        upstream: upstream(file.upstream, folder, report),
        routes: file
            .routes
            .into_iter()
            .enumerate()
            .map(|(number, route)| one_route(route, number, report))
            .collect(),
        index: index(file.index, folder, report),
        heal: heal(file.heal),
        presentation: presentation(file.presentation),
        rewrite: rewrite(file.rewrite, report),
        cluster: cluster(file.cluster, folder),
        log: log(file.log),
        telemetry: telemetry(file.telemetry, report),
    }
}

fn or<T>(given: Option<Text<T>>, default: T) -> T {
    given.map_or(default, |given| given.0)
}

fn list<T, U>(given: Option<Vec<Text<T>>>, default: Vec<U>, take: impl Fn(T) -> U) -> Vec<U> {
    given.map_or(default, |given| given.into_iter().map(|one| take(one.0)).collect())
}

fn count(given: Option<Text<Count>>, default: usize) -> usize {
    given.map_or(default, |given| usize::try_from(given.0.0).unwrap_or(usize::MAX))
}

fn size(given: Option<Text<Size>>, default: usize) -> usize {
    given.map_or(default, |given| usize::try_from(given.0.0).unwrap_or(usize::MAX))
}

fn server(file: file::Server, folder: &Path, report: &mut Report<'_>) -> Server {
    let default = Server::default();
    Server {
        listen: file.listen.map_or(default.listen, |list| list.0.into_iter().map(|one| one.0).collect()),
        tls: file.tls.and_then(|tls| pairs(tls, "server.tls", folder, report)),
        public_hosts: list(file.public_hosts, default.public_hosts, |host| host.0),
        trusted_proxies: list(file.trusted_proxies, default.trusted_proxies, |network| network),
        name: file.name.map_or(default.name, |name| name.0.0),
        workers: count(file.workers, default.workers),
        drain: or(file.drain, default.drain),
        head_timeout: or(file.head_timeout, default.head_timeout),
        idle_timeout: or(file.idle_timeout, default.idle_timeout),
        half_closed_timeout: or(file.half_closed_timeout, default.half_closed_timeout),
        tls_timeout: or(file.tls_timeout, default.tls_timeout),
        request_timeout: or(file.request_timeout, default.request_timeout),
        max_connections: count(file.max_connections, default.max_connections),
        max_connections_per_address: count(
            file.max_connections_per_address,
            default.max_connections_per_address,
        ),
        max_upgrades: count(file.max_upgrades, default.max_upgrades),
        max_upgrades_per_client: count(file.max_upgrades_per_client, default.max_upgrades_per_client),
        rate: file.rate.map_or(default.rate, |rate| rate.0.0),
        rate_burst: file.rate_burst.map_or(default.rate_burst, |burst| burst.0.0),
        http2: http2(file.http2.unwrap_or_default()),
        max_head_bytes: size(file.max_head_bytes, default.max_head_bytes),
        max_uri_bytes: size(file.max_uri_bytes, default.max_uri_bytes),
        max_body_bytes: size(file.max_body_bytes, default.max_body_bytes),
        min_rate: size(file.min_rate, default.min_rate),
        max_held_total: size(file.max_held_total, default.max_held_total),
    }
}

fn http2(file: file::Http2Bounds) -> Http2Bounds {
    let default = Http2Bounds::default();
    Http2Bounds {
        max_streams: file.max_streams.map_or(default.max_streams, |count| count.0.0),
        max_resets: count(file.max_resets, default.max_resets),
        ping: or(file.ping, default.ping),
        ping_timeout: or(file.ping_timeout, default.ping_timeout),
    }
}

fn admin(file: file::Admin, folder: &Path, report: &mut Report<'_>) -> Admin {
    let default = Admin::default();
    let most = |given: Option<Text<Count>>, default: u32| given.map_or(default, |given| given.0.0);
    Admin {
        listen: file.listen.map_or(default.listen, |listen| listen.0.0),
        token_file: file.token_file.map(|path| folder.join(path.0)),
        tls: file.tls.and_then(|tls| both_files(tls, "admin.tls", folder, report)),
        client_ca: file.client_ca.map(|path| folder.join(path.0)),
        max_connections: count(file.max_connections, default.max_connections),
        max_live: count(file.max_live, default.max_live),
        acts: most(file.acts, default.acts),
        max_body: size(file.max_body, default.max_body),
        max_entries: most(file.max_entries, default.max_entries),
    }
}

fn both_files(tls: file::Tls, key: &str, folder: &Path, report: &mut Report<'_>) -> Option<Tls> {
    pairs(tls, key, folder, report)?.into_iter().next()
}

fn pairs(tls: file::Tls, key: &str, folder: &Path, report: &mut Report<'_>) -> Option<Vec<Tls>> {
    let lacking = match (&tls.cert, &tls.key) {
        (None, _) => "cert",
        (_, None) => "key",
        _ => "",
    };
    if !lacking.is_empty() {
        report.missing(
            &format!("{key}.{lacking}"),
            &format!("`{key}` needs both a certificate and its key"),
            "write { cert = \"server.pem\", key = \"server.key\" }, or leave it out to do without",
        );
    }
    let (certs, keys) = (tls.cert?.0, tls.key?.0);
    if certs.is_empty() || certs.len() != keys.len() {
        report.at(
            &[&format!("{key}.cert"), &format!("{key}.key")],
            &format!("there are not as many certificates as keys in `{key}`"),
            "give each certificate its key, in the same order: cert = [\"a.pem\", \"b.pem\"], key = [\"a.key\", \"b.key\"]",
        );
    }
    let pair = |(cert, key): (Text<PathBuf>, Text<PathBuf>)| Tls {
        cert: folder.join(cert.0),
        key: folder.join(key.0),
    };
    Some(certs.into_iter().zip(keys).map(pair).collect())
}

fn upstream(file: file::Upstream, folder: &Path, report: &mut Report<'_>) -> Upstream {
    let default = Upstream::default();
    let certificate = file.client_certificate;
    Upstream {
        ca: file.ca.map(|path| folder.join(path.0)),
        client_certificate: certificate
            .and_then(|tls| both_files(tls, "upstream.client_certificate", folder, report)),
        connect_timeout: or(file.connect_timeout, default.connect_timeout),
        first_byte_timeout: or(file.first_byte_timeout, default.first_byte_timeout),
        body_timeout: or(file.body_timeout, default.body_timeout),
        pool_idle: or(file.pool_idle, default.pool_idle),
        pool_max_age: or(file.pool_max_age, default.pool_max_age),
        max_requests: count(file.max_requests, default.max_requests),
        queue_wait: or(file.queue_wait, default.queue_wait),
        buffer: size(file.buffer, default.buffer),
        http2: or(file.http2, default.http2),
        http2_streams: count(file.http2_streams, default.http2_streams),
        http2_ping: or(file.http2_ping, default.http2_ping),
        health: health(file.health),
    }
}

fn health(file: file::Health) -> Health {
    let default = Health::default();
    Health {
        failures: file.failures.map_or(default.failures, |count| count.0.0),
        out: or(file.out, default.out),
        out_max: or(file.out_max, default.out_max),
        interval: or(file.interval, default.interval),
        timeout: or(file.timeout, default.timeout),
        healthy_after: file.healthy_after.map_or(default.healthy_after, |count| count.0.0),
        unhealthy_after: file.unhealthy_after.map_or(default.unhealthy_after, |count| count.0.0),
        status: file.status.map_or(default.status, |status| status.0.0),
    }
}

/// A route without prefix or upstream is reported, and goes on with a stand-in that no caller ever sees.
fn one_route(file: file::Route, number: usize, report: &mut Report<'_>) -> Route {
    if file.prefix.is_none() {
        report.missing(
            &format!("routes.{number}.prefix"),
            "this route has no `prefix`",
            "write which paths belong here, such as prefix = \"/iiif/2/\"",
        );
    }
    if file.upstream.is_none() {
        report.missing(
            &format!("routes.{number}.upstream"),
            "this route has no `upstream`",
            "write where its requests go, such as upstream = \"https://api.library.tamu.edu/iiif/2/\"",
        );
    }
    Route {
        prefix: file.prefix.map_or_else(|| "/".to_owned(), |prefix| prefix.0.0),
        upstream: file.upstream.map_or_else(stand_in, |url| url.0),
        kind: or(file.kind, RouteKind::Plain),
        connect: file.connect.map_or_else(Vec::new, |list| list.0.into_iter().map(|one| one.0).collect()),
        health: file.health.map(|path| path.0.0),
        connect_timeout: file.connect_timeout.map(|time| time.0),
        first_byte_timeout: file.first_byte_timeout.map(|time| time.0),
        body_timeout: file.body_timeout.map(|time| time.0),
        preserve_host: file.preserve_host.unwrap_or(false),
        hosts: list(file.hosts, Vec::new(), |host| host.0),
    }
}

fn stand_in() -> UpstreamUrl {
    UpstreamUrl {
        scheme: Scheme::HTTP,
        authority: Authority::from_static("missing.invalid"),
        path: "/".to_owned(),
    }
}

fn index(file: file::Index, folder: &Path, report: &mut Report<'_>) -> Index {
    let default = Index::default();
    let sources = file.sources.into_iter().enumerate();
    let rule = file.canvas_rule.unwrap_or_default();
    Index {
        path: folder.join(or(file.path, default.path)),
        store: or(file.store, default.store),
        learn: file.learn.unwrap_or(default.learn),
        sources: sources.filter_map(|(number, source)| one_source(source, number, folder, report)).collect(),
        cache: file.cache.map_or(default.cache, |count| u64::from(count.0.0)),
        refresh: or(file.refresh, default.refresh),
        max_pause: or(file.max_pause, default.max_pause),
        history_age: or(file.history_age, default.history_age),
        history_rows: file.history_rows.map_or(default.history_rows, |count| count.0.0),
        file_url_bases: list(file.file_url_bases, default.file_url_bases, |base| {
            if base.0.ends_with('/') { base.0 } else { format!("{}/", base.0) }
        }),
        grace: or(file.grace, default.grace),
        canvas_rule: CanvasRule {
            rest: rule.rest.map_or(default.canvas_rule.rest, |text| text.0.0),
            files: rule.files.map_or(default.canvas_rule.files, |text| text.0.0),
            canvas: rule.canvas.map_or(default.canvas_rule.canvas, |text| text.0.0),
        },
    }
}

fn one_source(file: file::Source, number: usize, folder: &Path, report: &mut Report<'_>) -> Option<Source> {
    let help = "write path = \"…\" for a directory or file, or url = \"…\" for a manifest or collection";
    let here = format!("index.sources.{number}");
    let kind = match (file.path, file.url) {
        (Some(path), None) => SourceKind::Path(folder.join(path.0)),
        (None, Some(url)) => SourceKind::Url(url.0.0),
        (Some(_), Some(_)) => {
            report.at(
                &[&here],
                "this source has both a path and a URL",
                &format!("{help}; two sources for both"),
            );
            return None;
        }
        (None, None) => {
            report.missing(&here, "this source has neither a path nor a URL", help);
            return None;
        }
    };
    let is_path = matches!(kind, SourceKind::Path(_));
    let for_urls = [
        ("headers", file.headers.is_some()),
        ("concurrency", file.concurrency.is_some()),
        ("rate", file.rate.is_some()),
        ("hosts", file.hosts.is_some()),
    ];
    for (key, _) in for_urls.into_iter().filter(|(_, given)| is_path && *given) {
        report.at(
            &[&format!("{here}.{key}")],
            &format!("`{key}` means nothing for a path"),
            "take it out, or write url = \"…\" in place of path",
        );
    }
    let default = Source::of(kind);
    Some(Source {
        enabled: file.enabled.unwrap_or(default.enabled),
        interval: file.interval.map(|interval| interval.0),
        warm: file.warm.map(|warm| warm.0).filter(|warm| !warm.is_zero()),
        headers: headers(file.headers.unwrap_or_default(), &here, report),
        concurrency: count(file.concurrency, default.concurrency),
        rate: file.rate.map_or(default.rate, |rate| rate.0.0),
        hosts: list(file.hosts, Vec::new(), |host| host.0),
        ..default
    })
}

fn heal(file: file::Heal) -> Heal {
    let default = Heal::default();
    let mass_expiry = file.mass_expiry.unwrap_or_default();
    Heal {
        enabled: file.enabled.unwrap_or(default.enabled),
        ladder: list(file.ladder, default.ladder, |rung| rung),
        statuses: list(file.statuses, default.statuses, |status| status.0),
        wait: or(file.wait, default.wait),
        wait_info: or(file.wait_info, default.wait_info),
        concurrency: count(file.concurrency, default.concurrency),
        document_concurrency: count(file.document_concurrency, default.document_concurrency),
        build_after: or(file.build_after, default.build_after),
        hang_after: or(file.hang_after, default.hang_after),
        timeout: or(file.timeout, default.timeout),
        cooldown: or(file.cooldown, default.cooldown),
        missing: or(file.missing, default.missing),
        max_waiting: count(file.max_waiting, default.max_waiting),
        max_flights: count(file.max_flights, default.max_flights),
        first_asks: count(file.first_asks, default.first_asks),
        first_asks_wait: or(file.first_asks_wait, default.first_asks_wait),
        max_held: size(file.max_held, default.max_held),
        origins: list(file.origins, default.origins, |network| network),
        ahead: count(file.ahead, default.ahead),
        direct_statuses: list(file.direct_statuses, default.direct_statuses, |status| status.0),
        identifiers: file.identifiers.map(|pattern| pattern.0),
        skip_header: file.skip_header.map(|name| name.0),
        per_client: file.per_client.map_or(default.per_client, |count| count.0.0),
        breaker_failures: file.breaker_failures.map_or(default.breaker_failures, |count| count.0.0),
        breaker_open: or(file.breaker_open, default.breaker_open),
        backoff_max: or(file.backoff_max, default.backoff_max),
        resources_recheck: or(file.resources_recheck, default.resources_recheck),
        alive_for: or(file.alive_for, default.alive_for),
        mass_expiry: MassExpiry {
            ids: count(mass_expiry.ids, default.mass_expiry.ids),
            within: or(mass_expiry.within, default.mass_expiry.within),
        },
        sweep: file.sweep.unwrap_or(default.sweep),
        sweep_rate: file.sweep_rate.map_or(default.sweep_rate, |text| text.0.0),
    }
}

fn presentation(file: file::Presentation) -> Presentation {
    let default = Presentation::default();
    Presentation {
        collapse: file.collapse.unwrap_or(default.collapse),
        max_flights: count(file.max_flights, default.max_flights),
        max_body: size(file.max_body, default.max_body),
        repair: file.repair.unwrap_or(default.repair),
        watch: file.watch.unwrap_or(default.watch),
        manifests: file.manifests.unwrap_or(default.manifests),
    }
}

fn rewrite(file: file::Rewrite, report: &mut Report<'_>) -> Rewrite {
    let url = file.public_url.map(|url| url.0.0);
    let public_url = url.and_then(|url| {
        let read = <UpstreamUrl as super::leaf::Leaf>::read(&url).ok().filter(|url| url.path == "/");
        if read.is_none() {
            report.at(
                &["rewrite.public_url"],
                &format!("`{url}` is more than a scheme and a host"),
                "write only where viewers reach this proxy, such as \"https://iiif.example.edu\"; paths stay as they are",
            );
        }
        read
    });
    Rewrite { public_url }
}

fn cluster(file: file::Cluster, folder: &Path) -> Cluster {
    let default = Cluster::default();
    Cluster {
        urls: file.url.map_or(default.urls, |list| list.0.into_iter().map(|url| url.0.0).collect()),
        kind: or(file.kind, default.kind),
        master: file.master.map_or(default.master, |name| name.0.0),
        username: file.username.map(|name| name.0.0),
        password: file.password.map(|password| password.0.0),
        prefix: file.prefix.map_or(default.prefix, |prefix| prefix.0.0),
        connect_timeout: or(file.connect_timeout, default.connect_timeout),
        command_timeout: or(file.command_timeout, default.command_timeout),
        lease: or(file.lease, default.lease),
        learned: file.learned.map_or(default.learned, |count| u64::from(count.0.0)),
        learned_max: file.learned_max.map_or(default.learned_max, |size| size.0.0),
        ca: file.ca.map(|path| folder.join(path.0)),
        jobs: or(file.jobs, default.jobs),
        edition_every: or(file.edition_every, default.edition_every),
        edition_max: file.edition_max.map_or(default.edition_max, |size| size.0.0),
        edition_lasts: or(file.edition_lasts, default.edition_lasts),
    }
}

/// The folder against which relative paths are read: that of the configuration file, as with nginx, so that a
/// deployment means the same wherever it is started from.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}
