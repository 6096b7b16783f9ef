//! Sizes of canvases, read from manifests in local files.
//!
//! The index does not hold them: they are needed only for the placeholder of an image that is gone.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use serde_json::Value;

use crate::iiif::json_repair::repair_json;
use crate::index::Index;
use crate::upstream::coding::unpacked;

/// Manifests whose canvases are remembered, at most.
const MANIFESTS: u64 = 64;

/// Manifests are read again after this time.
const LIFE: Duration = Duration::from_mins(5);

/// Longer manifests are not read.
const LONGEST: u64 = 16 << 20;

/// Widths and heights by canvas URL.
type SizesByCanvas = HashMap<String, (u32, u32)>;

/// `CanvasSizes` remembers the sizes of the canvases of a few manifests.
#[derive(Debug)]
pub(super) struct CanvasSizes(Cache<String, Arc<SizesByCanvas>>);

impl Default for CanvasSizes {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MANIFESTS).time_to_live(LIFE).build())
    }
}

impl Index {
    /// Width and height of a canvas, where its manifest is a local file that has them. Reads that file, once for all
    /// concurrent callers.
    pub fn canvas_size(&self, manifest: &str, canvas: &str) -> Option<(u32, u32)> {
        let read = || {
            let stored = self.stored(manifest).ok().flatten();
            let value = stored.and_then(|stored| read(&stored.file).ok()).unwrap_or_default();
            let mut found = SizesByCanvas::new();
            collect(&value, &mut found);
            Arc::new(found)
        };
        self.sizes.0.get_with(manifest.to_owned(), read).get(canvas).copied()
    }
}

fn read(file: &Path) -> io::Result<Value> {
    let mut bytes = Vec::new();
    unpacked(BufReader::new(File::open(file)?))?.take(LONGEST).read_to_end(&mut bytes)?;
    // The canvas service's JSON may be broken (`repair_json`); its sizes can be read nevertheless.
    let repaired = repair_json(&bytes);
    Ok(serde_json::from_slice(repaired.as_deref().unwrap_or(&bytes))?)
}

fn collect(value: &Value, found: &mut SizesByCanvas) {
    match value {
        Value::Object(object) => {
            let text = |name: &str| object.get(name).and_then(Value::as_str);
            let side = |name: &str| {
                object.get(name).and_then(Value::as_u64).and_then(|side| u32::try_from(side).ok())
            };
            let is_canvas = text("@type").or(text("type")).is_some_and(|kind| kind.ends_with("Canvas"));
            if let (true, Some(id), Some(width), Some(height)) =
                (is_canvas, text("@id").or(text("id")), side("width"), side("height"))
                && width > 0
                && height > 0
            {
                found.insert(id.to_owned(), (width, height));
            }
            object.values().for_each(|value| collect(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canvases_of_both_versions_tell_their_sizes_and_odd_ones_tell_none() {
        let text = r#"{"sequences": [{"canvases": [
            {"@id": "a", "@type": "sc:Canvas", "width": 3, "height": 4, "images": [{"@id": "i", "width": 9, "height": 9}]},
            {"@id": "b", "@type": "sc:Canvas", "width": 0, "height": 4},
            {"@id": "c", "@type": "sc:Canvas", "width": 4294967296, "height": 4},
            {"@id": "d", "@type": "sc:Canvas", "width": -1, "height": 1.5}]}],
            "items": [{"id": "e", "type": "Canvas", "width": 5, "height": 6}]}"#;
        let mut found = SizesByCanvas::new();
        collect(&serde_json::from_str(text).expect("JSON"), &mut found);
        assert_eq!(found, HashMap::from([("a".to_owned(), (3, 4)), ("e".to_owned(), (5, 6))]));
    }

    #[test]
    fn a_file_is_read_packed_or_broken_and_a_bad_one_is_no_harm() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("m.json");
        std::fs::write(
            &file,
            r#"{"label": "a\ b", "@id": "a", "@type": "sc:Canvas", "width": 3, "height": 4}"#,
        )
        .expect("a file");
        let sizes = |file: &Path| {
            let mut found = SizesByCanvas::new();
            collect(&read(file).unwrap_or_default(), &mut found);
            found.len()
        };
        assert_eq!(sizes(&file), 1);
        std::fs::write(&file, "{").expect("a file");
        assert_eq!((sizes(&file), sizes(&folder.path().join("none"))), (0, 0));
    }
}
