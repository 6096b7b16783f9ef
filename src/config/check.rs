//! What no single value can get wrong: contradictions between keys, and numbers that make no sense.

mod admin;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::uri::{Authority, Scheme};

use super::error::ConfigError;
use super::least::{LEAST_HEAD, nothing_is_zero};
use super::redis;
use super::settings::{Heal, Listen, Route, RouteKind, Rung, Server, Settings};
use super::sources::Sources;
use super::tree::Tree;

/// Gathers mistakes with their places, and keeps quiet about keys that are already known to be wrong: their
/// values are only stand-ins, and a mistake that follows from a mistake helps nobody.
pub(super) struct Report<'a> {
    pub(super) tree: &'a Tree<'a>,
    pub(super) sources: &'a Sources,
    pub(super) wrong: Vec<String>,
    pub(super) errors: Vec<ConfigError>,
}

impl Report<'_> {
    /// A mistake between the keys at `paths`; shown at the first that is written.
    pub(super) fn at(&mut self, paths: &[&str], message: &str, help: &str) {
        let within = |inner: &str, outer: &str| {
            outer.is_empty()
                || inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let known = |path: &&str| self.wrong.iter().any(|wrong| within(path, wrong) || within(wrong, path));
        if paths.iter().any(known) {
            return;
        }
        let written = paths.iter().find(|path| self.tree.get(path).is_some());
        let Some(path) = written.or_else(|| paths.first()) else { return };
        self.errors.push(self.sources.error(self.tree.span_of(path), message, help));
    }

    /// A key that must be there and is not.
    pub(super) fn missing(&mut self, path: &str, message: &str, help: &str) {
        self.at(&[path], message, help);
        self.wrong.push(path.to_owned());
    }
}

pub(super) fn check(settings: &Settings, report: &mut Report<'_>) {
    listeners(settings, report);
    bounds(&settings.server, report);
    memory(settings, report);
    nothing_is_zero(settings, report);
    routes(settings, report);
    rewriting(settings, report);
    redis::nodes(settings, report);
    if settings.heal.enabled {
        healing(&settings.heal, &settings.routes, report);
    }
}

fn listeners(settings: &Settings, report: &mut Report<'_>) {
    let listen = &settings.server.listen;
    if listen.is_empty() {
        report.at(
            &["server.listen"],
            "there is no address to listen on",
            "write listen = \"127.0.0.1:8080\"",
        );
    }
    for (number, Listen { address, .. }) in listen.iter().enumerate() {
        if listen.iter().take(number).any(|earlier| collide(&earlier.address, address)) {
            report.at(
                &[&format!("server.listen.{number}")],
                &format!("{address} is already taken by an address before it"),
                "take one of them out: 0.0.0.0 and [::] cover every address of their kind",
            );
        }
    }
    if listen.iter().any(|listen| listen.proxy_protocol) && settings.server.trusted_proxies.is_empty() {
        report.at(
            &["server.trusted_proxies", "server.listen"],
            "an address expects PROXY headers, but nobody is trusted to send them",
            "name the proxies before us, such as server.trusted_proxies = [\"10.0.0.5\"]",
        );
    }
    admin::operators(settings, report);
}

/// Whether binding one leaves no room for the other. Port 0 is a fresh port each time.
fn collide(one: &SocketAddr, other: &SocketAddr) -> bool {
    let covers = |a: IpAddr, b: IpAddr| a == b || a.is_unspecified() && a.is_ipv4() == b.is_ipv4();
    one.port() == other.port()
        && one.port() != 0
        && (covers(one.ip(), other.ip()) || covers(other.ip(), one.ip()))
}

fn bounds(server: &Server, report: &mut Report<'_>) {
    if server.max_head_bytes < LEAST_HEAD {
        report.at(
            &["server.max_head_bytes"],
            "request heads need at least 8KiB",
            "write \"8KiB\" or more; 64KiB leaves room for long cookies",
        );
    } else if server.max_uri_bytes > server.max_head_bytes {
        report.at(
            &["server.max_uri_bytes", "server.max_head_bytes"],
            "`server.max_uri_bytes` is more than `server.max_head_bytes`",
            "the request target is a part of the head: lower the one or raise the other",
        );
    }
}

/// One body must fit where all of them must.
fn memory(settings: &Settings, report: &mut Report<'_>) {
    for (one, most) in
        [("heal.max_held", settings.heal.max_held), ("presentation.max_body", settings.presentation.max_body)]
    {
        if most > settings.server.max_held_total {
            report.at(
                &["server.max_held_total", one],
                &format!("`{one}` is more than `server.max_held_total`"),
                "one body could take more than all of them together: lower the one or raise the other",
            );
        }
    }
}

fn routes(settings: &Settings, report: &mut Report<'_>) {
    let routes = &settings.routes;
    if routes.is_empty() {
        report.at(
            &["routes"],
            "there is no route, so every request would be refused",
            "add at least one:\n[[routes]]\nprefix = \"/iiif/2/\"\nupstream = \"https://api.library.tamu.edu/iiif/2/\"\nkind = \"image\"",
        );
    }
    for (number, route) in routes.iter().enumerate() {
        let (prefix, upstream) = (format!("routes.{number}.prefix"), format!("routes.{number}.upstream"));
        let hosts = format!("routes.{number}.hosts");
        let same = |earlier: &Route| {
            let shared = earlier.hosts.iter().any(|host| route.hosts.contains(host));
            earlier.prefix == route.prefix && (shared || earlier.hosts.is_empty() && route.hosts.is_empty())
        };
        if let Some(first) = routes.iter().take(number).position(same) {
            report.at(
                &[&prefix, &hosts, &format!("routes.{first}.prefix"), &format!("routes.{first}.hosts")],
                &format!("an earlier route has the same prefix `{}` for the same hosts", route.prefix),
                "only one of them could ever be used: take one out, or tell them apart by `hosts`",
            );
        }
        let (front, back) = (route.prefix.ends_with('/'), route.upstream.path.ends_with('/'));
        if front != back {
            let (with, without) = if front { (&prefix, &upstream) } else { (&upstream, &prefix) };
            report.at(
                &[&upstream, &prefix],
                &format!("`{with}` ends with a slash and `{without}` does not"),
                "the prefix is replaced by the path of the upstream, letter by letter: end both with a slash, or neither",
            );
        }
        servers(route, number, report);
        if settings.server.listen.iter().any(|own| leads_to(route, &own.address)) {
            report.at(
                &[&format!("routes.{number}.connect"), &upstream, "server.listen"],
                "this route leads back to our own listener",
                "name the server behind us, or give its address with `connect`",
            );
        }
    }
}

/// The addresses of one route.
fn servers(route: &Route, number: usize, report: &mut Report<'_>) {
    // What was tried for one request is remembered in the bits of one number.
    const MOST: usize = 64;
    let connect = format!("routes.{number}.connect");
    if route.connect.len() > MOST {
        report.at(
            &[&connect],
            &format!("{} servers are more than {MOST}", route.connect.len()),
            "name fewer servers, or a name that DNS resolves to all of them",
        );
    }
    for (at, address) in route.connect.iter().enumerate() {
        if route.connect.iter().take(at).any(|earlier| earlier == address) {
            report.at(
                &[&format!("{connect}.{at}"), &connect],
                &format!("{address} stands in the list twice"),
                "take one of them out",
            );
        }
    }
}

/// Whether the route's requests would arrive at our own listener.
fn leads_to(route: &Route, own: &SocketAddr) -> bool {
    let named = Some(&route.upstream.authority).filter(|_| route.connect.is_empty());
    route.connect.iter().chain(named).any(|target| arrives(route, target, own))
}

fn arrives(route: &Route, target: &Authority, own: &SocketAddr) -> bool {
    let port = target.port_u16().unwrap_or(if route.upstream.scheme == Scheme::HTTPS { 443 } else { 80 });
    let host = target.host().trim_start_matches('[').trim_end_matches(']');
    let address = match host {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => host.parse().ok(),
    };
    let reaches = |address: IpAddr| address == own.ip() || own.ip().is_unspecified() && address.is_loopback();
    port == own.port() && address.is_some_and(reaches)
}

fn rewriting(settings: &Settings, report: &mut Report<'_>) {
    if settings.rewrite.public_url.is_some() && settings.server.public_hosts.is_empty() {
        report.at(
            &["rewrite.public_url", "server.public_hosts"],
            "URLs are to be rewritten, but no host name is said to mean us",
            "name the hosts that stand in the manifests, such as server.public_hosts = [\"api.library.tamu.edu\"]",
        );
    }
}

fn healing(heal: &Heal, routes: &[Route], report: &mut Report<'_>) {
    if heal.ladder.is_empty() {
        report.at(
            &["heal.ladder", "heal.enabled"],
            "healing is on, but its ladder has no rungs",
            "name at least one rung, such as ladder = [\"visit\"], or switch healing off with enabled = false",
        );
    }
    for (number, rung) in heal.ladder.iter().enumerate() {
        if heal.ladder.iter().take(number).any(|earlier| earlier == rung) {
            let path = format!("heal.ladder.{number}");
            report.at(&[&path], "this rung stands in the ladder twice", "take one of them out");
        }
    }
    if heal.statuses.is_empty() {
        report.at(
            &["heal.statuses", "heal.enabled"],
            "healing is on, but no status means \"expired\"",
            "write statuses = [404], or switch healing off with enabled = false",
        );
    }
    for (short, long, why, wrong) in [
        (
            "heal.wait",
            "heal.wait_info",
            "info.json is waited for at least as long as a tile",
            heal.wait > heal.wait_info,
        ),
        (
            "heal.wait_info",
            "heal.timeout",
            "nothing is left to wait for once the canvas request ended",
            heal.wait_info > heal.timeout,
        ),
    ] {
        if wrong {
            report.at(
                &[short, long],
                &format!("`{short}` is longer than `{long}`"),
                &format!("{why}: lower `{short}` or raise `{long}`"),
            );
        }
    }
    let kinds: Vec<String> = (0..routes.len()).map(|number| format!("routes.{number}.kind")).collect();
    let first_image = routes.iter().position(|route| route.kind == RouteKind::Image);
    let asks_canvases = heal.ladder.iter().any(|rung| *rung != Rung::Direct);
    let has_canvases = routes.iter().any(|route| route.kind == RouteKind::Presentation);
    if let Some(first) = first_image.filter(|_| asks_canvases && !has_canvases) {
        let mut paths: Vec<&str> =
            kinds.iter().skip(first).chain(kinds.iter().take(first)).map(String::as_str).collect();
        paths.extend(["heal.ladder", "heal.enabled"]);
        report.at(
            &paths,
            "images cannot be healed: no route leads to the canvas service",
            "add a route with kind = \"presentation\"; or keep to ladder = [\"direct\"]; or switch healing off with heal.enabled = false",
        );
    }
}
