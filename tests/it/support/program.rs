//! The real program in a folder of its own: a command, or a running `serve` whose log is read.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::edge::manifest;
use super::world::patiently;

/// The one image of the manifest in [`folder`].
pub(crate) const KNOWN: &str = "88c02c4f-cb78-3d8d-a4a5-2463f29a6565";

/// A folder with a configuration and one manifest.
pub(crate) fn folder(upstream: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a directory");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\npublic_hosts = [\"us.example\"]\n[admin]\nlisten = \"127.0.0.1:0\"\nsetup_check = \"0s\"\n\
         [log]\nformat = \"json\"\n\
         [[routes]]\nprefix = \"/iiif/2/\"\nupstream = \"{upstream}/iiif/2/\"\nkind = \"image\"\n\
         [[routes]]\nprefix = \"/iiif-service/\"\nupstream = \"{upstream}/iiif-service/\"\nkind = \"presentation\"\n\
         [[routes]]\nprefix = \"/\"\nupstream = \"{upstream}/\"\n\
         [[index.sources]]\npath = \"manifests\"\n"
    );
    std::fs::write(folder.path().join("config.toml"), text).expect("a file");
    std::fs::create_dir(folder.path().join("manifests")).expect("a directory");
    let canvas = "https://us.example/iiif-service/fedora/canvas/a";
    std::fs::write(folder.path().join("manifests/a.json"), manifest("a", canvas, KNOWN)).expect("a file");
    folder
}

/// The program, to be run in a folder, with nothing of ours in its environment.
pub(crate) fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("iiif-mender"));
    let ours = std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.to_string_lossy().starts_with("IIIF_MENDER"));
    ours.for_each(|name| {
        command.env_remove(name);
    });
    command.current_dir(folder).args(arguments).stdin(Stdio::null()).env("RUST_BACKTRACE", "0");
    command
}

/// A process that is killed with the test.
pub(crate) struct KilledOnDrop(pub(crate) Child);

impl KilledOnDrop {
    /// Sends a signal (`-HUP`).
    pub(crate) fn gets(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.0.id().to_string()]).status();
        assert!(sent.expect("kill").success());
    }

    /// Kills the process, as `kill -9` does.
    pub(crate) fn dies(&mut self) {
        self.0.kill().expect("it was alive");
        self.0.wait().expect("it ends");
    }
}

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// A running `serve`.
pub(crate) struct Serving {
    pub(crate) child: KilledOnDrop,
    lines: mpsc::Receiver<String>,
    /// Lines that were passed over.
    passed: RefCell<Vec<serde_json::Value>>,
    pub(crate) viewers: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Serving {
    pub(crate) fn start(folder: &Path) -> Self {
        Self::of(program(folder, &["serve"]))
    }

    /// The same for a command of the test's own.
    pub(crate) fn of(command: Command) -> Self {
        let mut serving = Self::of_viewers(command);
        serving.admin = serving.address("admin pages");
        serving
    }

    /// The same, whose admin pages may come later.
    pub(crate) fn of_viewers(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let (told, lines) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        // Read to its end, so that the program never waits for a reader.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _nobody_listens_any_more = told.send(line);
            }
        });
        let mut serving = Self {
            child: KilledOnDrop(child),
            lines,
            passed: RefCell::default(),
            viewers: ([0, 0, 0, 0], 0).into(),
            admin: ([0, 0, 0, 0], 0).into(),
        };
        serving.viewers = serving.address("serving");
        serving
    }

    /// Waits for a log line with this message.
    pub(crate) fn says(&self, message: &str) -> serde_json::Value {
        self.waits_for(message, |line| serde_json::from_str(line).expect("a line of JSON"))
    }

    /// The same among lines that need not be ours.
    pub(crate) fn says_somewhere(&self, message: &str) -> serde_json::Value {
        self.waits_for(message, |line| serde_json::from_str(line).unwrap_or_default())
    }

    fn waits_for(&self, message: &str, read: impl Fn(&str) -> serde_json::Value) -> serde_json::Value {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(20));
            let line = read(&line.unwrap_or_else(|error| panic!("never said {message:?}: {error}")));
            if line["message"].as_str().is_some_and(|said| said.starts_with(message)) {
                return line;
            }
            self.passed.borrow_mut().push(line);
        }
    }

    /// All lines from the start until it ends, but those that were waited for.
    pub(crate) fn all(&self) -> Vec<serde_json::Value> {
        let mut all = self.passed.take();
        all.extend(self.rest());
        all
    }

    /// All lines until it ends.
    pub(crate) fn rest(&self) -> Vec<serde_json::Value> {
        self.lines.iter().map(|line| serde_json::from_str(&line).expect("a line of JSON")).collect()
    }

    fn address(&self, message: &str) -> SocketAddr {
        self.says(message)["address"].as_str().and_then(|address| address.parse().ok()).expect("an address")
    }

    pub(crate) fn gets(&self, signal: &str) {
        self.child.gets(signal);
    }

    pub(crate) async fn ends(&mut self) -> ExitStatus {
        let mut ended = None;
        patiently("it ends", || {
            ended = self.child.0.try_wait().expect("a child");
            ended.is_some()
        })
        .await;
        ended.expect("it ended")
    }
}
