//! `iiif-mender check --live`: what readers do not get, as a running iiif-mender knows it.

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::TopError;
use super::client::{AdminClient, AdminClientError};
use crate::config::Settings;
use crate::observe::{counted, visible};

/// Options of `check` for the list of a running iiif-mender.
#[derive(Debug, Clone, Args)]
pub struct LiveArgs {
    /// List the images that readers do not get now, as a running iiif-mender knows them; nothing is probed
    #[arg(long, conflicts_with_all = [
        "sources", "report", "tiles", "manifests", "probes", "manifest_parallelism", "timeout", "resume", "journal", "setup",
    ])]
    pub live: bool,
    /// With --live: URL of the admin listener (default: the one of the configuration)
    #[arg(long, value_name = "URL", requires = "live")]
    url: Option<String>,
}

/// An image that readers did not get. Fields that an older or newer iiif-mender leaves out are empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LiveImage {
    identifier: String,
    label: Option<String>,
    book: Option<String>,
    reason: String,
    why: String,
    advice: String,
    readers: u64,
    requests: u64,
    referrers: Vec<LiveReferrer>,
}

/// A page that asks for an image.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LiveReferrer {
    url: String,
}

/// Reason of a name that no manifest has.
const UNKNOWN: &str = "unknown";

/// Prints the images; with `json` as the admin listener tells them, all pages in one. True: an image of a manifest is among
/// them. (Names in no manifest are mostly made up by robots.)
pub fn broken(
    args: &LiveArgs,
    settings: &Settings,
    json: bool,
    out: &mut dyn Write,
) -> Result<bool, TopError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let admin = AdminClient::new(args.url.as_deref(), settings)?;
    let items = runtime.block_on(admin.broken())?;
    let is_broken = items.iter().any(|item| item["reason"] != UNKNOWN);
    if json {
        writeln!(out, "{:#}", json!({ "items": items }))?;
    } else {
        write_list(&images(items, admin.name())?, out)?;
    }
    Ok(is_broken)
}

/// The images of a list of the admin listener `name`.
fn images(items: Vec<Value>, name: &str) -> Result<Vec<LiveImage>, AdminClientError> {
    let images = items.into_iter().map(serde_json::from_value).collect::<Result<_, _>>();
    images.map_err(|error| AdminClientError::Strange { name: name.to_owned(), why: error.to_string() })
}

fn write_list(images: &[LiveImage], out: &mut dyn Write) -> io::Result<()> {
    let mut advices = BTreeMap::new();
    for image in images {
        let mut names: Vec<&str> =
            [&image.label, &image.book].into_iter().flatten().map(String::as_str).collect();
        names.push(&image.identifier);
        let (readers, requests) = (counted(image.readers, "reader"), counted(image.requests, "request"));
        writeln!(out, "{:<10}{}", image.reason, visible(&names.join(" · ")))?;
        // For an unknown name `why` says no more than the reason.
        if image.reason != UNKNOWN {
            writeln!(out, "{:10}{}", "", visible(&image.why))?;
        }
        for referrer in &image.referrers {
            writeln!(out, "{:10}asked for by {}", "", visible(&referrer.url))?;
        }
        writeln!(out, "{:10}{readers}, {requests}", "")?;
        advices.insert(image.reason.as_str(), image.advice.as_str());
    }
    if !advices.is_empty() {
        writeln!(out, "\nwhat to do")?;
    }
    for (reason, advice) in advices {
        writeln!(out, "  {reason:<8}  {}", visible(advice))?;
    }
    let unknown = images.iter().filter(|image| image.reason == UNKNOWN).count();
    let known = counted(images.len() - unknown, "image");
    let apart = if images.is_empty() { "" } else { "\n" };
    writeln!(
        out,
        "{apart}{known} of books and {} in no manifest, not seen well since",
        counted(unknown, "name")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_another_shape_is_an_error_and_not_an_empty_row() {
        let whole = json!({ "identifier": "a", "reason": "missing", "more": 1 });
        assert_eq!(images(vec![whole.clone()], "x").expect("an image")[0].identifier, "a");
        let error = images(vec![whole, json!({ "identifier": 7 })], "http://a.test").expect_err("no text");
        assert!(
            error.to_string().starts_with("http://a.test does not answer as an iiif-mender does"),
            "{error}"
        );
    }
}
