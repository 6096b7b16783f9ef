//! The index outlives what may happen to it: kill -9, a full disk, files that are not what they should be.
//!
//! Everything here is done to real processes of the real binary.

mod disk;
mod files;
mod kill;
mod log;
mod together;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use iiif_mender::index::Index;
use serde_json::json;

/// Pages of each manifest.
const PAGES: usize = 4;

/// A folder with a configuration, manifests and an index.
struct Library {
    folder: tempfile::TempDir,
}

impl Library {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("manifests")).unwrap();
        let library = Self { folder };
        library.configure(&library.path());
        library
    }

    /// Lets the index live elsewhere.
    fn configure(&self, index: &Path) {
        let text = format!(
            r#"
            [[routes]]
            prefix = "/iiif/2/"
            upstream = "http://127.0.0.1:9/iiif/2/"
            kind = "image"
            [index]
            path = "{}"
            [[index.sources]]
            path = "manifests"
            [heal]
            enabled = false
            "#,
            index.display()
        );
        fs::write(self.folder.path().join("config.toml"), text).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("index.sqlite3")
    }

    fn manifests(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    fn open(&self) -> Index {
        Index::open(&self.path(), 1000).unwrap()
    }

    /// Writes so many manifests whose identifiers tell of the round.
    fn write(&self, manifests: usize, round: usize) {
        for number in 0..manifests {
            fs::write(self.manifests().join(format!("{number:03}.json")), manifest(number, round)).unwrap();
        }
    }

    /// The binary, with this library's configuration.
    fn mender(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iiif-mender"));
        command.arg("--config").arg(self.folder.path().join("config.toml")).args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Answer {
        Answer::of(&self.mender(words).output().unwrap())
    }
}

/// What a command said.
#[derive(Debug)]
struct Answer {
    exit: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Answer {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { exit: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// It failed with this exit status, and says what is wrong and what to do.
    fn fails(&self, exit: i32, wrong: &str, cure: &str) {
        assert_eq!(self.exit, Some(exit), "{self:?}");
        for text in [wrong, cure] {
            assert!(self.stderr.contains(text), "{text:?} is not in {self:?}");
        }
    }

    fn succeeds(&self) {
        assert_eq!(self.exit, Some(0), "{self:?}");
    }
}

fn key(manifest: usize, round: usize, page: usize) -> String {
    format!("m{manifest}-r{round}-p{page}")
}

fn manifest(number: usize, round: usize) -> String {
    let base = "https://api.library.tamu.edu";
    let canvases: Vec<_> = (0..PAGES)
        .map(|page| {
            json!({
                "@id": format!("{base}/iiif-service/fedora/canvas/m{number}/{page}"), "@type": "sc:Canvas",
                "images": [{"@type": "oa:Annotation", "resource": {"@type": "dctypes:Image",
                    "service": {"@id": format!("{base}/iiif/2/{}", key(number, round, page))}}}],
            })
        })
        .collect();
    json!({"@id": format!("{base}/iiif-service/m{number}"), "@type": "sc:Manifest",
        "sequences": [{"canvases": canvases}]})
    .to_string()
}

fn is_known(index: &Index, key: &str) -> bool {
    !index.owners(key).unwrap().is_empty()
}
