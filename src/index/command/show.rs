//! Output of the index commands, for people and for machines.

use std::borrow::Cow;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::{Duration, UNIX_EPOCH};

use indicatif::{HumanBytes, HumanCount};

use super::{CommandError, Exit, write_json, write_json_line};
use crate::iiif::Identifier;
use crate::index::history::{HistoryEntry, HistoryFilter, HistoryPage};
use crate::index::{Index, IndexError, Owner};

pub(super) fn lookup(
    index: &Index,
    image: &str,
    json: bool,
    out: &mut dyn Write,
) -> Result<Exit, CommandError> {
    let owners = find(index, image)?;
    if json {
        write_json(out, &owners)?;
    } else {
        for owner in &owners {
            writeln!(out, "canvas    {}\nmanifest  {}", owner.canvas, owner.manifest)?;
            if let Some(label) = &owner.label {
                writeln!(out, "label     {label}")?;
            }
            writeln!(out)?;
        }
    }
    if owners.is_empty() {
        let _ = writeln!(io::stderr().lock(), "no manifest in the index names {image}");
        return Ok(Exit::Broken);
    }
    Ok(Exit::Well)
}

/// Finds the image that a person may paste: a canvas, an image or info.json URL, or the identifier alone.
fn find(index: &Index, image: &str) -> Result<Vec<Owner>, IndexError> {
    let image = image.trim();
    let canvases = index.canvas(image.split('#').next().unwrap_or(image))?;
    if !canvases.is_empty() {
        return Ok(canvases);
    }
    let key = index.key_in_url(image).unwrap_or_else(|| Identifier::new(image).key().into_owned());
    // An identifier may be given as it stands in a path or as it is stored.
    for key in [Cow::Owned(key), Cow::Borrowed(image)] {
        let owners = index.owners(&key)?;
        if !owners.is_empty() {
            return Ok(owners.to_vec());
        }
    }
    Ok(Vec::new())
}

pub(super) fn list(index: &Index, json: bool, out: &mut dyn Write) -> Result<Exit, CommandError> {
    let all = index.list()?;
    if json {
        write_json(out, &all)?;
        return Ok(Exit::Well);
    }
    writeln!(out, "{:>10} {:>10}  manifest", "canvases", "images")?;
    for listed in &all {
        let (canvases, images) = (HumanCount(listed.canvases), HumanCount(listed.images));
        let label = listed.label.as_deref().map(|label| format!("  {label}")).unwrap_or_default();
        let gone = if listed.vanished.is_some() { "  (gone from its source)" } else { "" };
        writeln!(
            out,
            "{:>10} {:>10}  {}{label}{gone}",
            canvases.to_string(),
            images.to_string(),
            listed.uri
        )?;
    }
    Ok(Exit::Well)
}

pub(super) fn stats(index: &Index, json: bool, out: &mut dyn Write) -> Result<Exit, CommandError> {
    let stats = index.stats()?;
    if json {
        write_json(out, &stats)?;
        return Ok(Exit::Well);
    }
    let counts = [
        ("manifests", stats.manifests),
        ("canvases", stats.canvases),
        ("images", stats.images),
        ("files", stats.files),
        ("sources", stats.sources),
        ("vanished", stats.vanished),
    ];
    for (name, count) in counts {
        writeln!(out, "{name:<10} {:>13}", HumanCount(count).to_string())?;
    }
    writeln!(out, "{:<10} {:>13}  {}", "size", HumanBytes(stats.bytes).to_string(), stats.path.display())?;
    Ok(Exit::Well)
}

pub(super) fn export(index: &Index, json: bool, out: &mut dyn Write) -> Result<Exit, CommandError> {
    let mut failed = None;
    index.export(&mut |exported| {
        let written = if json {
            write_json_line(out, &exported)
        } else {
            writeln!(out, "{}\t{}\t{}", exported.image, exported.canvas, exported.manifest)
        };
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    match failed {
        // `| head` has closed the pipe.
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Well),
        Some(error) => Err(error.into()),
        None => Ok(Exit::Well),
    }
}

pub(super) fn history(
    index: &Index,
    limit: u32,
    json: bool,
    out: &mut dyn Write,
) -> Result<Exit, CommandError> {
    let entries =
        index.history(&HistoryFilter::default(), HistoryPage { limit, ..HistoryPage::default() })?;
    if json {
        write_json(out, &entries)?;
        return Ok(Exit::Well);
    }
    for HistoryEntry { heal, .. } in &entries {
        let ended = UNIX_EPOCH + Duration::from_millis(u64::try_from(heal.at).unwrap_or(0));
        writeln!(
            out,
            "{}  {:<7}  {:<8}  {:<6}  {:>7} ms  {:>3} waiting  {}  {}  {}  {}",
            humantime::format_rfc3339_seconds(ended),
            heal.verdict,
            heal.rung.as_deref().unwrap_or("-"),
            heal.lane,
            heal.duration_ms,
            heal.waiting,
            heal.identifier,
            heal.canvas.as_deref().unwrap_or("-"),
            heal.request.as_deref().unwrap_or("-"),
            heal.reason.as_deref().unwrap_or("-"),
        )?;
        if let Some(reason) = &heal.reason {
            writeln!(out, "                      {reason}")?;
        }
    }
    Ok(Exit::Well)
}
