//! The configuration from the outside: text in, settings or mistakes out.

mod commands;
mod contradictions;
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
    match load(&format!("{text}{ROUTES}"), env) {
        Ok(settings) => settings,
        Err(errors) => panic!("{errors:#}"),
    }
}

/// The mistakes in a whole text, as `place: message (help)`.
fn bad(text: &str, env: Env<'_>) -> Vec<String> {
    let errors = load(text, env).expect_err("this configuration must not be accepted");
    let texts = errors.0.iter().map(|error| {
        assert!(!error.help.is_empty(), "every mistake says what to do: {error}");
        let place = error.place.as_ref().map_or_else(|| "nowhere".to_owned(), ToString::to_string);
        format!("{}: {} ({})", place.trim_start_matches("/etc/mender/"), error.message, error.help)
    });
    texts.collect()
}

/// The only mistake in a piece of configuration; the routes are added.
fn mistake(text: &str) -> String {
    let mistakes = bad(&format!("{text}{ROUTES}"), &[]);
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    mistakes.concat()
}
