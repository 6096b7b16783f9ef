//! `config check|show|schema|defaults|reference`: their output. Exit codes: 0 all well, 2 the configuration is wrong.
//! Findings of `config check` about the setup, where there is an index, do not change the code.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap::Subcommand;
use miette::GraphicalReportHandler;
use serde_json::json;

use super::defaults::defaults;
use super::error::{ConfigError, ConfigErrors};
use super::load;
use super::origin::ConfigOrigin;
use super::reference::reference;
use super::schema::printed;
use super::settings::{Listen, Settings};
use super::show::show;

/// The exit code for a configuration that cannot be used.
pub const WRONG: u8 = 2;

/// Check or print the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration: every mistake with its line and advice, or a summary.
    Check,
    /// Print the settings in use, each with its origin: file, environment or default.
    Show,
    /// Print the JSON schema of the configuration file, for editors.
    Schema,
    /// Print a configuration file with every key, its default and its meaning.
    Defaults,
    /// Print every key with its type, default and range, as Markdown.
    Reference,
}

impl ConfigCommand {
    /// True for commands that print data: `json` changes their output, or it is JSON anyway.
    pub fn prints_data(self) -> bool {
        matches!(self, Self::Check | Self::Show | Self::Schema)
    }

    /// Runs the command; `env` is `std::env::vars_os()`, `json`: results for machines. Returns the exit code.
    pub fn run<K, V>(
        self,
        origin: Result<ConfigOrigin, ConfigErrors>,
        env: impl IntoIterator<Item = (K, V)>,
        json: bool,
        out: &mut dyn Write,
    ) -> io::Result<u8>
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let file = origin.as_ref().ok().map(|origin| origin.path().to_owned());
        let done = match self {
            Self::Schema => {
                writeln!(out, "{:#}", printed())?;
                return Ok(0);
            }
            Self::Defaults => return out.write_all(defaults().as_bytes()).map(|()| 0),
            Self::Reference => return out.write_all(reference().as_bytes()).map(|()| 0),
            Self::Check if json => origin.and_then(|origin| {
                origin.load(env).map(|settings| result_json(Some(origin.path()), &notes(&settings), &[]))
            }),
            Self::Check => {
                origin.and_then(|origin| origin.load(env).map(|settings| summary(origin.path(), &settings)))
            }
            Self::Show => origin.and_then(|origin| {
                let sources = load::gather(origin.path(), &origin.text()?, env)?;
                let (settings, tree) = load::settings(origin.path(), &sources)?;
                Ok(show(settings, &tree, &sources))
            }),
        };
        match done {
            // Values as `config show` prints them, without the comments that say where each came from.
            Ok(text) if json && self == Self::Show => {
                let shown: serde_json::Value = toml::from_str(&text).unwrap_or_default();
                writeln!(out, "{shown:#}").map(|()| 0)
            }
            Ok(text) => out.write_all(text.as_bytes()).map(|()| 0),
            Err(errors) if json => {
                out.write_all(result_json(file.as_deref(), &[], &errors.0).as_bytes()).map(|()| WRONG)
            }
            Err(errors) => write_errors(&errors, &GraphicalReportHandler::new(), out).map(|()| WRONG),
        }
    }
}

/// Writes every mistake with the text around it.
pub(super) fn write_errors(
    errors: &ConfigErrors,
    handler: &GraphicalReportHandler,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut text = String::new();
    match handler.render_report(&mut text, errors) {
        Ok(()) => out.write_all(text.as_bytes()),
        Err(_) => writeln!(out, "{errors:#}"),
    }
}

/// Output of `config check --json`.
fn result_json(path: Option<&Path>, notes: &[String], errors: &[ConfigError]) -> String {
    let mistake = |error: &ConfigError| {
        let place = error.place.as_ref().map(ToString::to_string);
        json!({ "place": place, "message": error.message, "help": error.help })
    };
    let mistakes: Vec<_> = errors.iter().map(mistake).collect();
    let result = json!({ "file": path, "in_order": errors.is_empty(), "mistakes": mistakes, "notes": notes });
    format!("{result:#}\n")
}

/// Summary of listeners and routes, with notes.
fn summary(path: &Path, settings: &Settings) -> String {
    let scheme = |listen: &Listen| match settings.server.tls {
        Some(_) if !listen.plain => "https",
        _ => "http",
    };
    let listen = settings.server.listen.iter();
    let listen: Vec<String> =
        listen.map(|listen| format!("{} ({})", listen.address, scheme(listen))).collect();
    let admin = settings.admin.listen.map_or_else(|| "off".to_owned(), |address| address.to_string());
    let mut text =
        format!("{} is in order\n\n  listen  {}\n  admin   {admin}\n\n", path.display(), listen.join(", "));
    let width = settings.routes.iter().map(|route| route.prefix.len()).max().unwrap_or(0);
    for route in &settings.routes {
        let kind = route.kind.as_str();
        let url = &route.upstream;
        let mut line = format!(
            "  {kind:<12}  {:<width$}  →  {}://{}{}",
            route.prefix, url.scheme, url.authority, url.path
        );
        if !route.connect.is_empty() {
            let servers: Vec<_> = route.connect.iter().map(ToString::to_string).collect();
            line = format!("{line} at {}", servers.join(", "));
        }
        if !route.hosts.is_empty() {
            line = format!("{line} for {}", route.hosts.join(", "));
        }
        text = format!("{text}{line}\n");
    }
    for note in notes(settings) {
        text = format!("{text}\nnote: {note}\n");
    }
    text
}

/// Notes on settings that are allowed and may still surprise.
fn notes(settings: &Settings) -> Vec<String> {
    let mut notes = Vec::new();
    let ours = |host: &str| settings.server.public_hosts.iter().any(|public| public == host);
    let through_our_name = settings
        .routes
        .iter()
        .find(|route| route.connect.is_empty() && ours(route.upstream.authority.host()));
    if let Some(route) = through_our_name {
        notes.push(format!(
            "{} is also one of our public_hosts: once that name points here, give its routes `connect`, or requests go round in circles",
            route.upstream.authority
        ));
    }
    if settings.heal.skip_header.is_some() && settings.server.trusted_proxies.is_empty() {
        notes.push(
            "heal.skip_header is believed from server.trusted_proxies only, and there are none".to_owned(),
        );
    }
    if settings.server.drain < settings.heal.wait {
        notes.push("server.drain is shorter than heal.wait: viewers who wait for a picture at SIGTERM will not get it".to_owned());
    }
    notes
}
