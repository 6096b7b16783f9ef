//! The tutorial is true: its commands are run one after the other, in one shell, and print what it says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use regex::Regex;

use crate::docs::{fenced, read};

/// What gets the program onto the machine: the test has it already. The steps themselves are those of `test.sh`.
const BUILDS_IT: &str = "\
sudo apt-get install -y gcc libc6-dev git curl
curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y
. \"$HOME/.cargo/env\"
git clone \"$REPOSITORY\" iiif-mender   # the address from which you have these pages
cd iiif-mender
cargo build --release --workspace
export PATH=\"$PWD/target/release:$PATH\"";

#[test]
fn every_command_of_the_tutorial_prints_what_stands_there() {
    // Fixed ports read better; on an address of one's own they are nobody else's (Linux: 127/8 is all local).
    let process = std::process::id();
    let [_, high, middle, low] = process.to_be_bytes();
    let address = format!("127.{}.{middle}.{}", 64 + high % 64, low.max(1));
    let text = read("docs/TUTORIAL.md").replace("127.0.0.1", &address);
    let blocks = fenced(&text, "sh");
    assert_eq!(blocks[0], BUILDS_IT, "the first block is not run here: look at it");
    let script = format!("set -e\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n{}\n", blocks[1..].join("\n"));

    let folder = tempfile::tempdir().expect("a folder");
    let shell = Command::new("bash")
        .args(["-c", &script])
        .current_dir(folder.path())
        .env("PATH", path_with_programs())
        .stdin(Stdio::null())
        .output()
        .expect("bash");
    let (out, err) = (String::from_utf8_lossy(&shell.stdout), String::from_utf8_lossy(&shell.stderr));
    let log = fs::read_to_string(folder.path().join("tutorial/serve.log")).unwrap_or_default();
    let expected = masked(&fenced(&text, "text").join("\n"));
    assert_eq!(masked(&out), expected, "{err}\n{log}");
    assert!(shell.status.success(), "{err}\n{log}");
}

/// Without what differs each time, how long things took and how many pages a book saved, and without empty lines.
fn masked(text: &str) -> Vec<String> {
    let times = Regex::new(r"\d+\.\d s\b|dur=\d+|\d+ canvas requests?").expect("a pattern");
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| times.replace_all(line, "(time)").into_owned()).collect()
}

/// `PATH` with the programs of this build before all others.
fn path_with_programs() -> String {
    let built = Path::new(env!("CARGO_BIN_EXE_iiif-mender")).parent().expect("a folder");
    let found = [built.to_owned(), testbed(built)];
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let all = found.into_iter().chain(std::env::split_paths(&rest));
    std::env::join_paths(all).expect("paths without colons").into_string().expect("text")
}

/// The folder of the stand-ins' program. `cargo test --workspace` has built it beside ours; `cargo test --test it` has not.
fn testbed(built: &Path) -> PathBuf {
    if !built.join("iiif-mender-testbed").exists() {
        let cargo = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--package", "iiif-mender-testbed"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(cargo.expect("cargo").success(), "iiif-mender-testbed is not built: cargo build --workspace");
    }
    built.to_owned()
}
