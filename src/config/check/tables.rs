//! Checks of each table, made also where the file's syntax is broken.

use crate::config::report::Validator;
use crate::config::settings::{Settings, SourceSettings, TlsFiles};

pub(in crate::config) fn tables(settings: &Settings, report: &mut Validator<'_>) {
    let files = [
        ("server.tls", &settings.server.tls),
        ("admin.tls", &settings.admin.tls),
        ("upstream.client_certificate", &settings.upstream.client_certificate),
    ];
    for (key, files) in files {
        if let Some(files) = files {
            pairs(key, files, report);
        }
    }
    for number in 0..settings.routes.len() {
        route(number, report);
    }
    for number in 0..settings.index.sources.len() {
        source(number, report);
    }
}

fn pairs(key: &str, files: &TlsFiles, report: &mut Validator<'_>) {
    let (cert, private) = (format!("{key}.cert"), format!("{key}.key"));
    if let Some(lacking) = [&cert, &private].into_iter().find(|path| report.tree.get(path).is_none()) {
        report.missing(
            lacking,
            &format!("`{key}` needs both a certificate and its key"),
            "write { cert = \"server.pem\", key = \"server.key\" }, or leave it out to do without",
        );
    } else if files.cert.is_empty() || files.cert.len() != files.key.len() {
        report.at(
            &[&cert, &private],
            &format!("there are not as many certificates as keys in `{key}`"),
            "give each certificate its key, in the same order: cert = [\"a.pem\", \"b.pem\"], key = [\"a.key\", \"b.key\"]",
        );
    }
}

/// A route without prefix or upstream goes on with a stand-in that no caller ever sees.
fn route(number: usize, report: &mut Validator<'_>) {
    for (key, help) in [
        ("prefix", "write which paths belong here, such as prefix = \"/iiif/2/\""),
        (
            "upstream",
            "write where its requests go, such as upstream = \"https://api.library.tamu.edu/iiif/2/\"",
        ),
    ] {
        let path = format!("routes.{number}.{key}");
        if report.tree.get(&path).is_none() {
            report.missing(&path, &format!("this route has no `{key}`"), help);
        }
    }
}

fn source(number: usize, report: &mut Validator<'_>) {
    let help = "write path = \"…\" for a directory or file, or url = \"…\" for a manifest or collection";
    let here = format!("index.sources.{number}");
    let says = |report: &Validator<'_>, key: &str| report.tree.get(&format!("{here}.{key}")).is_some();
    match (says(report, "path"), says(report, "url")) {
        (true, true) => report.at(
            &[&here],
            "this source has both a path and a URL",
            &format!("{help}; two sources for both"),
        ),
        (false, false) => report.missing(&here, "this source has neither a path nor a URL", help),
        (false, true) => {}
        (true, false) => {
            for key in SourceSettings::FOR_URLS {
                if says(report, key) {
                    report.at(
                        &[&format!("{here}.{key}")],
                        &format!("`{key}` means nothing for a path"),
                        "take it out, or write url = \"…\" in place of path",
                    );
                }
            }
        }
    }
}
