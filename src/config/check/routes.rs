//! Checks of `[[routes]]`: each can be used, and none leads back to us.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::uri::{Authority, Scheme};

use crate::config::report::Validator;
use crate::config::settings::{RouteSettings, Settings};

pub(super) fn routes(settings: &Settings, report: &mut Validator<'_>) {
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
        let same = |earlier: &RouteSettings| {
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
fn servers(route: &RouteSettings, number: usize, report: &mut Validator<'_>) {
    // The servers tried for one request are the bits of one number.
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

/// True if the route's requests would arrive at our own listener.
fn leads_to(route: &RouteSettings, own: &SocketAddr) -> bool {
    let named = Some(&route.upstream.authority).filter(|_| route.connect.is_empty());
    route.connect.iter().chain(named).any(|target| arrives(route, target, own))
}

fn arrives(route: &RouteSettings, target: &Authority, own: &SocketAddr) -> bool {
    let port = target.port_u16().unwrap_or(if route.upstream.scheme == Scheme::HTTPS { 443 } else { 80 });
    let host = target.host().trim_start_matches('[').trim_end_matches(']');
    let address = match host {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => host.parse().ok(),
    };
    let reaches = |address: IpAddr| address == own.ip() || own.ip().is_unspecified() && address.is_loopback();
    port == own.port() && address.is_some_and(reaches)
}
