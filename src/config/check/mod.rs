//! Checks across keys: contradictions, and numbers that make no sense.

mod cluster;
mod heal;
mod listeners;
mod range;
mod routes;
mod tables;

use super::report::Validator;
use super::settings::{LEAST_HEAD, ServerSettings, Settings};

pub(super) use tables::tables;

/// Checks what the tables cannot check one by one; `tables` ran before.
pub(super) fn check(settings: &Settings, report: &mut Validator<'_>) {
    listeners::listeners(settings, report);
    bounds(&settings.server, report);
    memory(settings, report);
    range::ranges(settings, report);
    routes::routes(settings, report);
    rewriting(settings, report);
    cluster::nodes(settings, report);
    if settings.heal.enabled {
        heal::healing(&settings.heal, &settings.routes, report);
    }
}

fn bounds(server: &ServerSettings, report: &mut Validator<'_>) {
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

/// Limits of a single body must not exceed `server.max_held_total`, the limit of all bodies.
fn memory(settings: &Settings, report: &mut Validator<'_>) {
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

fn rewriting(settings: &Settings, report: &mut Validator<'_>) {
    if settings.rewrite.public_url.is_some() && settings.server.public_hosts.is_empty() {
        report.at(
            &["rewrite.public_url", "server.public_hosts"],
            "URLs are to be rewritten, but no host name is said to mean us",
            "name the hosts that stand in the manifests, such as server.public_hosts = [\"api.library.tamu.edu\"]",
        );
    }
}
