//! `iiif-mender purge`: removes cached answers from a running iiif-mender.

use std::io::Write;

use clap::{ArgGroup, Args};
use serde::Deserialize;
use serde_json::json;

use super::client::AdminClient;
use super::{AdminClientError, TopError};
use crate::config::Settings;

/// Options of `purge`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["identifier", "manifest", "all"]))]
pub struct PurgeArgs {
    /// Image, by its identifier, percent-decoded
    #[arg(long, value_name = "IDENTIFIER")]
    identifier: Option<String>,
    /// All images of an indexed manifest, by its id
    #[arg(long, value_name = "URL")]
    manifest: Option<String>,
    /// Every cached answer
    #[arg(long)]
    all: bool,
    /// URL of the admin listener (default: the one of the configuration)
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// Answer of the admin listener.
#[derive(Debug, Deserialize)]
struct PurgeResult {
    purged: u64,
}

/// Purges, and prints the number of removed answers.
pub fn purge(args: &PurgeArgs, settings: &Settings, json: bool, out: &mut dyn Write) -> Result<(), TopError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done: Result<PurgeResult, AdminClientError> = runtime.block_on(async {
        let admin = AdminClient::new(args.url.as_deref(), settings)?;
        match (&args.identifier, &args.manifest) {
            (Some(identifier), _) => admin.act("cache/purge", &json!({ "identifier": identifier })).await,
            (_, Some(manifest)) => admin.act("cache/purge", &json!({ "manifest": manifest })).await,
            (None, None) => admin.act("cache/clear", &json!({})).await,
        }
    });
    let PurgeResult { purged } = done?;
    if json {
        writeln!(out, "{}", json!({ "purged": purged }))?;
    } else {
        writeln!(out, "{purged} answers are kept no longer")?;
    }
    Ok(())
}
