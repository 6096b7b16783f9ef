//! The configuration from the outside: text in, settings or mistakes out.

mod accepted;
mod commands;
mod environment;
mod golden;
mod index;
mod mistakes;
mod shipped;

use std::path::Path;

use super::{ConfigErrors, Settings};

/// The least that is in order.
const ROUTES: &str = r#"
[[routes]]
prefix = "/iiif/2/"
upstream = "http://images.test/iiif/2/"
kind = "image"

[[routes]]
prefix = "/iiif-service/"
upstream = "http://canvases.test/iiif-service/"
kind = "presentation"
"#;

type Env<'a> = &'a [(&'a str, &'a str)];

fn load(text: &str, env: Env<'_>) -> Result<Settings, ConfigErrors> {
    Settings::from_text(Path::new("/etc/mender/config.toml"), text, env.iter().copied())
}

/// Settings of a piece of configuration; the routes are added.
fn good(text: &str, env: Env<'_>) -> Settings {
    load(&format!("{text}{ROUTES}"), env).unwrap_or_else(|errors| panic!("{errors:#}"))
}

/// Settings of a whole configuration, without environment variables; relative paths stay as they are.
pub(crate) fn settings_of(text: &str) -> Settings {
    Settings::from_text(Path::new("config.toml"), text, [("", ""); 0])
        .unwrap_or_else(|errors| panic!("{text}\n{errors:#}"))
}
