//! `[admin]`: does it fit itself and the public listeners?

use super::{Report, collide};
use crate::config::Settings;

pub(super) fn operators(settings: &Settings, report: &mut Report<'_>) {
    if let Some(admin) = settings.admin.listen
        && !admin.ip().is_loopback()
        && !settings.admin.asks_who()
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
