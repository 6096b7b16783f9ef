//! Reloads of the configuration: requests for one, and its result.

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::error::ConfigErrors;
use super::settings::Settings;

/// Changes by another configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigChanges {
    /// Keys that have another value now, such as `heal.wait`.
    pub keys: Vec<String>,
    /// Keys that have another value in the file, but not here before a restart.
    pub after_restart: Vec<String>,
    /// The certificates are others, or were read for the first time.
    pub certificates: bool,
}

impl ConfigChanges {
    /// True if the settings are the same.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Reasons why a reload failed; the settings in use stay.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Mistakes in the file or the environment, all at once.
    #[error("{0:#}")]
    Config(#[from] ConfigErrors),
    /// Valid settings that cannot be used: an address that cannot be bound, a certificate that cannot be read.
    #[error("{0}")]
    Unusable(String),
    /// No reader for the request: the proxy was not started from a file, or it is stopping.
    #[error(
        "the configuration is not read anew here: this proxy was not started from a file, or is stopping"
    )]
    Nobody,
}

/// Handle for reloads of the configuration. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reload(mpsc::Sender<ReloadReply>);

/// Sender of the result to the caller that waits for a reload.
pub type ReloadReply = oneshot::Sender<Result<ConfigChanges, ReloadError>>;

impl Reload {
    /// Creates the requesting and the answering end.
    pub fn new() -> (Self, mpsc::Receiver<ReloadReply>) {
        let (ask, asked) = mpsc::channel(1);
        (Self(ask), asked)
    }

    /// Reads file and environment, and applies them. On an error everything stays as it was.
    pub async fn reload(&self) -> Result<ConfigChanges, ReloadError> {
        let (answer, answered) = oneshot::channel();
        self.0.send(answer).await.map_err(|_| ReloadError::Nobody)?;
        answered.await.map_err(|_| ReloadError::Nobody)?
    }
}

/// Keeps the old values of keys that hold only after a restart (`x-reload` at the field).
pub fn keep_until_restart(settings: &mut Settings, old: &Settings) {
    settings.keep_until_restart(old);
}

/// The keys whose values differ, in the order of their names.
pub fn differences(one: &Settings, other: &Settings) -> Vec<String> {
    let value = |settings| serde_json::to_value(settings).unwrap_or_default();
    let mut found = Vec::new();
    compare(&value(one), &value(other), "", &mut found);
    found
}

fn compare(one: &Value, other: &Value, path: &str, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let mut keys: Vec<&String> = one.keys().chain(other.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                let of = |table: &serde_json::Map<String, Value>| table.get(key).cloned().unwrap_or_default();
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&of(one), &of(other), &path, found);
            }
        }
        _ if one == other => {}
        _ => found.push(path.to_owned()),
    }
}
