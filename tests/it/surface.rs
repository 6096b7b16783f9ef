//! What the crate promises to other programs: everything public in `iiif_mender::iiif`, as a list that is compared, and
//! examples that use it as a stranger would.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::docs::read;

const LIST: &str = "tests/it/surface.txt";

/// Every public item of one file: its declaration up to its body, fields and variants on lines of their own.
fn declared(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let item = line.trim();
        if !item.starts_with("pub ") || item.starts_with("pub mod") {
            continue;
        }
        let mut whole = item.to_owned();
        while !whole.ends_with(['{', ';', ',', '}']) || whole.ends_with(',') && whole.contains(" fn ") {
            let Some(next) = lines.next() else { break };
            whole = format!("{whole} {}", next.trim());
        }
        found.push(whole.trim_end_matches([' ', '{', ';', ',']).to_owned());
        if item.starts_with("pub enum") {
            let variants = lines.by_ref().take_while(|line| *line != "}").map(str::trim);
            let variants = variants.filter(|line| !line.is_empty() && !line.starts_with(['/', '#']));
            found.extend(variants.map(|variant| format!("    {variant}")));
        }
    }
    found
}

fn listed() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/iiif");
    let modules = read("src/iiif/mod.rs");
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let mut list = String::new();
    for file in files.iter().filter(|file| file.is_file()) {
        let module = file.file_stem().expect("a name").to_str().expect("text");
        if module == "mod" || modules.contains(&format!("pub mod {module};")) {
            let path = if module == "mod" { "iiif".to_owned() } else { format!("iiif::{module}") };
            let items = declared(&fs::read_to_string(file).expect("text")).join("\n");
            list = format!("{list}{path}\n{items}\n\n");
        }
    }
    list
}

#[test]
fn the_public_surface_is_the_one_that_was_promised() {
    let now = listed();
    if std::env::var_os("RENEW_SURFACE").is_some() {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(LIST), &now).expect("it can be written");
    }
    assert!(now.contains("pub fn parse(rest: &'a str) -> Option<Self>"), "{now}");
    assert_eq!(
        read(LIST),
        now,
        "what other programs use has changed. Is that meant, and in CHANGELOG.md? RENEW_SURFACE=1 cargo test --test it surface"
    );
}

/// A program of `examples/`. `cargo test` has built it beside the tests; `cargo test --test it` has not.
fn example(name: &str) -> Command {
    let built = Path::new(env!("CARGO_BIN_EXE_iiif-mender")).parent().expect("a folder");
    let program = built.join("examples").join(name);
    if !program.exists() {
        let cargo = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--example", name])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(cargo.expect("cargo").success(), "{name} is not built: cargo build --examples");
    }
    Command::new(program)
}

fn prints(command: &mut Command) -> String {
    let done = command.output().expect("it starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("text")
}

#[tokio::test]
async fn the_examples_do_what_they_say() {
    let folder = tempfile::tempdir().expect("a folder");
    let bed = testbed::Testbed::start().await;
    let manifests = bed.write_manifests(folder.path()).expect("manifests");
    let page = bed.page();
    // The same picture under its other name.
    for name in [&page.identifier, &page.base64_id] {
        assert_eq!(prints(example("who_owns").arg(name).args(&manifests)).trim(), page.canvas_url);
    }

    let said = prints(example("read_request").args(["abc/full/600,/0/default.jpg", "abc/info.json"]));
    assert_eq!(said, "\"abc\": full of it at 600,, turned by 0, as default.jpg\n\"abc\": its info.json\n");

    let broken = folder.path().join("broken.json");
    fs::write(&broken, r#"{"label": "a\ b"}"#).expect("a file");
    let input = Stdio::from(fs::File::open(&broken).expect("a file"));
    assert_eq!(prints(example("mend_json").stdin(input)), r#"{"label": "a\\ b"}"#);
}
