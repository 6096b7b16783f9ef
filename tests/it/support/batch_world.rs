//! What the batch suites share: a testbed with an index on disk and no proxy before it; the commands run as the
//! binary, as people run them.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use testbed::Testbed;

use iiif_mender::index::sources::RefreshOptions;
use iiif_mender::index::sources::build::Build;

use crate::support::world::{folder_of, settings};

/// A testbed, a configuration and an index. Ends with the test.
pub(crate) struct Batch {
    pub(crate) bed: Testbed,
    pub(crate) folder: tempfile::TempDir,
}

/// How a command ended.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// What `--json` printed.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.stdout, self.stderr))
    }

    /// `verdict before → now` of every entry, by image.
    pub(crate) fn verdicts(&self) -> Vec<(String, String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let json = self.json();
        let images = json["images"].as_array().expect("images");
        let mut all: Vec<_> = images
            .iter()
            .map(|entry| {
                let now = if entry["after"].is_null() { &entry["before"] } else { &entry["after"] };
                (text(&entry["image"]), text(&entry["before"]), text(now))
            })
            .collect();
        all.sort();
        all
    }
}

impl Batch {
    pub(crate) fn over(bed: Testbed) -> Self {
        Self::with(bed, "")
    }

    /// `more`: lines of the `[heal]` section.
    pub(crate) fn with(bed: Testbed, more: &str) -> Self {
        let folder = folder_of(&bed);
        let (images, service) = (bed.images.origin(), bed.service.origin());
        write_config(folder.path(), &images, &service, more);
        let checked = settings(folder.path(), &images, &service, "");
        let index = iiif_mender::index::Index::open(&checked.index.path, 1000).expect("an index");
        Build::new(&index, &RefreshOptions::default())
            .run(&checked.index.sources, &mut |_, _| {})
            .expect("indexed");
        Self { bed, folder }
    }

    /// With the ladder that is the default.
    pub(crate) fn with_default_ladder(self) -> Self {
        let path = self.file("config.toml");
        let text = std::fs::read_to_string(&path).expect("a file");
        let text = text.replace("ladder = [\"visit\", \"rebuild\"]\n", "");
        std::fs::write(path, text).expect("a file");
        self
    }

    /// The same with another canvas service.
    pub(crate) fn reconfigure(&mut self, service: &str, more: &str) {
        write_config(self.folder.path(), &self.bed.images.origin(), service, more);
    }

    /// The same with another image server.
    pub(crate) fn reconfigure_images(&self, images: &str) {
        write_config(self.folder.path(), images, &self.bed.service.origin(), "");
    }

    pub(crate) async fn book(pages: u32) -> Self {
        Self::over(Testbed::builder().book("obj/book", pages).page_size(64, 64).start().await)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_iiif-mender"));
        command.arg("--config").arg(self.file("config.toml")).args(args).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs it to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        let ended =
            tokio::time::timeout(std::time::Duration::from_mins(1), self.command(args).output()).await;
        let Output { status, stdout, stderr } = ended.expect("it ends").expect("it starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Ran { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) }
    }
}

fn write_config(folder: &Path, images: &str, service: &str, more: &str) {
    let text = format!(
        r#"
[server]
public_hosts = ["api.library.tamu.edu"]
{}
[[index.sources]]
path = "manifests"
[heal]
ladder = ["visit", "rebuild"]
{more}
"#,
        testbed::routes(images, service)
    );
    std::fs::write(folder.join("config.toml"), text).expect("a file");
}
