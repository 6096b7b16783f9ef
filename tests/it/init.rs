//! First steps: from nothing to a page that heals, by `init` or without a file.

use std::path::Path;
use std::process::{Command, Output};

use iiif_mender::config::Settings;
use regex::Regex;
use testbed::Testbed;

use crate::docs::{fenced, read};
use crate::support::cluster_world::free_port;
use crate::support::program::{Serving, program};
use crate::support::world::folder_of;

/// What a newcomer has to say about this library.
fn options(bed: &Testbed, port: u16) -> Vec<String> {
    let text = format!(
        "--image-server {}/iiif/2/ --canvas-service {}/iiif-service --public-host api.library.tamu.edu \
         --manifests manifests --listen 127.0.0.1:{port}",
        bed.images.origin(),
        bed.service.origin()
    );
    text.split(' ').map(str::to_owned).collect()
}

fn command(folder: &Path, first: &str, options: &[String]) -> Command {
    let mut command = program(folder, &[first]);
    command.args(options).env("IIIF_MENDER__ADMIN__LISTEN", "127.0.0.1:0");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

/// Opens this manifest as a viewer does, lets everything expire, and asks for the first picture.
async fn a_page_heals(bed: &Testbed, manifest: &str, viewers: &str) {
    let opened = testbed::get(manifest).await;
    assert_eq!(opened.status, 200, "{manifest}: {}", opened.text());
    let image = Regex::new(&format!("{viewers}(/iiif/2/[^\"/]+)")).expect("a pattern");
    let opened = opened.text();
    let image = image.captures(&opened).unwrap_or_else(|| panic!("no image leads through us: {opened}"))[0]
        .to_owned();
    bed.expires_everything();
    let healed = testbed::get(&format!("{image}/full/100,/0/default.jpg")).await;
    assert_eq!(healed.status, 200, "{image}");
    assert!(healed.header("heal-status").starts_with("healed"), "{:?}", healed.headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn init_writes_a_configuration_builds_the_index_and_says_what_to_open() {
    let bed = Testbed::start().await;
    let folder = folder_of(&bed);
    let port = free_port();
    let mut init = command(folder.path(), "init", &options(&bed, port));
    let done = init.output().expect("it runs");
    let said = text(&done.stdout);
    assert_eq!(code(&done), Some(0), "{said} {}", text(&done.stderr));
    for told in ["config.toml is written", "images", "iiif-mender serve"] {
        assert!(said.contains(told), "{told}: {said}");
    }
    let open =
        Regex::new(r"in a viewer: (\S+)").expect("a pattern").captures(&said).expect("a URL")[1].to_owned();
    assert!(open.ends_with("/manifests/obj_minutes.json"), "{open}");

    // What is there stays.
    let before = std::fs::read_to_string(folder.path().join("config.toml")).expect("a file");
    let again = init.output().expect("it runs");
    assert_eq!(code(&again), Some(2));
    assert!(text(&again.stderr).contains("--force"), "{}", text(&again.stderr));
    assert_eq!(std::fs::read_to_string(folder.path().join("config.toml")).expect("a file"), before);
    std::fs::write(folder.path().join("config.toml"), "broken").expect("a file");
    assert_eq!(code(&init.arg("--force").output().expect("it runs")), Some(0));
    assert_eq!(std::fs::read_to_string(folder.path().join("config.toml")).expect("a file"), before);

    let mut serve = command(folder.path(), "serve", &[]);
    serve.env("IIIF_MENDER__LOG__FORMAT", "json");
    let _serving = Serving::of(serve);
    a_page_heals(&bed, &open, &format!("http://127.0.0.1:{port}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_needs_no_file_where_it_is_told_where_everything_is() {
    let bed = Testbed::start().await;
    let folder = folder_of(&bed);
    let port = free_port();
    let mut serve = command(folder.path(), "serve", &options(&bed, port));
    serve.env("IIIF_MENDER__LOG__FORMAT", "json");
    let serving = Serving::of(serve);
    assert!(!folder.path().join("config.toml").exists());
    serving.says("sources looked at");
    let viewers = format!("http://127.0.0.1:{port}");
    a_page_heals(&bed, &format!("{viewers}/manifests/obj_minutes.json"), &viewers).await;
    // Certificates and variables are read anew: there is no file that could be missed.
    serving.gets("-HUP");
    serving.says("the configuration was read anew");
}

#[test]
fn what_is_missing_or_makes_no_sense_is_said_and_nothing_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    for (arguments, says) in [
        (&["init"][..], "--upstream"),
        (&["init", "--upstream", "api.library.tamu.edu"], "https://"),
        (&["serve", "--manifests", "manifests"], "--upstream"),
        (&["serve", "--upstream", "https://lib.example", "--config", "a.toml"], "--config"),
    ] {
        let done = program(folder.path(), arguments).output().expect("it runs");
        let said = text(&done.stderr);
        assert_eq!(code(&done), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
    assert!(std::fs::read_dir(folder.path()).expect("a folder").next().is_none(), "something was written");
}

#[test]
fn without_a_configuration_it_is_said_where_one_was_looked_for() {
    let system = "/etc/iiif-mender/config.toml";
    if Path::new(system).exists() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    for arguments in [&["serve"][..], &["config", "check"], &["index", "stats"], &["check"]] {
        let done = program(folder.path(), arguments).output().expect("it runs");
        let said = (text(&done.stdout) + &text(&done.stderr)).replace(['\n', '│', ' '], "");
        assert_eq!(code(&done), Some(2), "{arguments:?}: {said}");
        for told in ["config.toml", system, "--config", "iiif-menderinit", "--upstream"] {
            assert!(said.contains(told), "{arguments:?}: {told}: {said}");
        }
    }
}

#[test]
fn the_snippet_of_the_manual_is_what_init_writes() {
    let manual = read("docs/OPERATIONS.md");
    let (_, section) = manual.split_once("### Beside it, under another name\n").expect("a section");
    let snippet = fenced(section, "toml").remove(0);
    let command =
        Regex::new("`iiif-mender init ([^`]+)`").expect("a pattern").captures(section).expect("a command");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("manifests")).expect("a folder");
    let mut init = program(folder.path(), &["init"]);
    assert_eq!(code(&init.args(command[1].split(' ')).output().expect("it runs")), Some(0));
    let none: [(String, String); 0] = [];
    let path = folder.path().join("config.toml");
    let written = Settings::load(&path, none.clone()).expect("in order");
    let printed = Settings::from_text(&path, &snippet, none).expect("in order");
    assert_eq!(written, printed);
    for url in ["http://127.0.0.1:8080/manifests/NAME.json", "http://127.0.0.1:8080/manifests/"] {
        assert!(section.contains(url), "which URL is to be opened?");
    }
}
