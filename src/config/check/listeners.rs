//! Checks of `[server] listen` and `[admin]` against each other.

use std::net::{IpAddr, SocketAddr};

use crate::config::report::Validator;
use crate::config::settings::{Listen, Settings};

pub(super) fn listeners(settings: &Settings, report: &mut Validator<'_>) {
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
    operators(settings, report);
}

fn operators(settings: &Settings, report: &mut Validator<'_>) {
    if let Some(admin) = settings.admin.listen
        && !admin.ip().is_loopback()
        && !settings.admin.requires_auth()
    {
        report.at(
            &["admin.listen"],
            &format!("anybody who reaches {admin} could act as an operator"),
            "listen on a loopback address such as \"127.0.0.1:9090\", or ask who it is: token_file = \"admin.token\", or tls and client_ca",
        );
    }
    if let Some(admin) = settings.admin.listen
        && let Some(public) =
            settings.server.listen.iter().map(|listen| listen.address).find(|own| collide(own, &admin))
    {
        report.at(
            &["admin.listen", "server.listen"],
            &format!("the admin listener {admin} and the public one {public} are the same"),
            "give the admin listener a port of its own, such as \"127.0.0.1:9090\", or switch it off with \"off\"",
        );
    }
    if settings.admin.client_ca.is_some() && settings.admin.tls.is_none() {
        report.at(
            &["admin.client_ca"],
            "without TLS nobody can show a certificate",
            "add admin.tls = { cert = \"admin.pem\", key = \"admin.key\" }, or leave client_ca out",
        );
    }
}

/// True if binding one address leaves no room for the other. Port 0 is a fresh port each time.
fn collide(one: &SocketAddr, other: &SocketAddr) -> bool {
    let covers = |a: IpAddr, b: IpAddr| a == b || a.is_unspecified() && a.is_ipv4() == b.is_ipv4();
    one.port() == other.port()
        && one.port() != 0
        && (covers(one.ip(), other.ip()) || covers(other.ip(), one.ip()))
}
