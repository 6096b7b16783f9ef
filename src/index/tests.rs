//! The index as its callers see it, over real files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::Connection;

use super::sources::{RefreshOptions, RefreshReport};
use super::*;
use crate::config::settings::SourceSettings;
use crate::iiif::identifier::base64_of_file_url;
use crate::index::sources::build::Build;
use crate::index::sources::refresh::Refresh;

mod changed;
mod commands;
mod documents;
mod files;
mod filter;
mod history;
mod lacking;
mod log;
mod looking;
mod many;
mod names;

/// A directory of manifests and an index beside it.
struct IndexBench {
    dir: tempfile::TempDir,
}

impl IndexBench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("manifests")).unwrap();
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("index.sqlite3")
    }

    fn open(&self) -> Index {
        Index::open(&self.path(), 1000).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("manifests").join(name)
    }

    /// Writes a manifest whose canvases are `{name}/1`, `{name}/2` … with one image each.
    fn write(&self, name: &str, images: &[&str]) {
        fs::write(self.file(name), manifest(name, images)).unwrap();
    }

    fn sources(&self) -> Vec<SourceSettings> {
        vec![SourceSettings::path(self.dir.path().join("manifests"))]
    }

    fn build(&self, index: &Index) -> RefreshReport {
        Build::new(index, &RefreshOptions::default()).run(&self.sources(), &mut |_, _| {}).unwrap()
    }

    fn refresh(&self, index: &Index) -> RefreshReport {
        self.refresh_with(index, RefreshOptions::default().grace)
    }

    fn refresh_with(&self, index: &Index, grace: Duration) -> RefreshReport {
        Refresh::new(index, &RefreshOptions { grace }).run(&self.sources(), &mut |_, _| {}).unwrap()
    }
}

/// A directory with these manifests and their images, and the index that was built from it.
fn built(manifests: &[(&str, &[&str])]) -> (IndexBench, Index) {
    let bench = IndexBench::new();
    for (name, images) in manifests {
        bench.write(name, images);
    }
    let index = bench.open();
    bench.build(&index);
    (bench, index)
}

fn manifest(name: &str, images: &[&str]) -> String {
    let canvases: Vec<serde_json::Value> = images
        .iter()
        .enumerate()
        .map(|(at, image)| {
            serde_json::json!({
                "@id": canvas_url(name, at + 1), "@type": "sc:Canvas", "label": format!("Page {}", at + 1),
                "images": [{"@type": "oa:Annotation", "motivation": "sc:painting", "resource": {
                    "@type": "dctypes:Image",
                    "service": {"@id": format!("https://images.test/iiif/2/{image}")},
                }}],
            })
        })
        .collect();
    let id = manifest_uri(name);
    serde_json::json!({"@id": id, "@type": "sc:Manifest", "label": name, "sequences": [{"canvases": canvases}]})
        .to_string()
}

fn manifest_uri(name: &str) -> String {
    format!("https://images.test/iiif-service/{name}")
}

fn canvas_url(name: &str, page: usize) -> String {
    format!("https://images.test/iiif-service/canvas/{name}/{page}")
}

/// The canvas URLs of a key's owners.
fn canvases_of(index: &Index, key: &str) -> Vec<String> {
    index.owners(key).unwrap().iter().map(|owner| owner.canvas.clone()).collect()
}

/// Asks until the answer is what it should be, or a second has passed.
fn soon(mut is: impl FnMut() -> bool) -> bool {
    (0..100).any(|_| {
        let good = is();
        if !good {
            std::thread::sleep(Duration::from_millis(10));
        }
        good
    })
}
