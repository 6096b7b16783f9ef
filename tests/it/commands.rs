//! The commands, as people and scripts call them: the real program in a folder of its own.
#![allow(clippy::disallowed_methods, reason = "viewers connect to the proxy; the rule is for the product")]

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Output, Stdio};

use testbed::Origin;
use testbed::raw::{Peer, Step, ok};

use crate::support::edge::{Viewer, status};
use crate::support::program::{KNOWN, Serving, folder, program};
use crate::support::world::patiently;

fn runs(folder: &Path, arguments: &[&str]) -> Output {
    program(folder, arguments).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

#[tokio::test]
async fn serve_with_a_wrong_configuration_tells_every_mistake_and_exits_2() {
    let folder = folder("http://127.0.0.1:9");
    let wrong =
        "[server]\nlisten = \"nowhere\"\nlissten = 1\n[heal]\nwait = \"soon\"\n[[routes]]\nprefix = \"x\"\n";
    std::fs::write(folder.path().join("config.toml"), wrong).expect("a file");
    for command in [&["serve"][..], &["config", "check"], &["index", "stats"]] {
        let output = runs(folder.path(), command);
        let said = text(&output.stderr) + &text(&output.stdout);
        assert_eq!(code(&output), 2, "{said}");
        for mistake in ["nowhere", "lissten", "soon", "prefix", "upstream"] {
            assert!(said.contains(mistake), "{mistake}: {said}");
        }
    }
    let output = runs(folder.path(), &["serve", "--config", "nothing-here.toml"]);
    assert_eq!(code(&output), 2);
    assert!(text(&output.stderr).contains("nothing-here.toml"), "{}", text(&output.stderr));
    assert_eq!(code(&runs(folder.path(), &["serf"])), 2);
}

#[tokio::test]
async fn serve_on_a_taken_port_says_which_and_exits() {
    let folder = folder("http://127.0.0.1:9");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = program(folder.path(), &["serve"]).env("IIIF_MENDER__SERVER__LISTEN", &address).output();
    let output = output.expect("it runs");
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains(&address) && said.contains("listen"), "{said}");
}

#[tokio::test]
async fn serve_ends_well_at_sigterm_and_sigint() {
    for signal in ["-TERM", "-INT"] {
        let upstream = Peer::start(vec![Step::ReadHead, Step::Stall, Step::Write(ok("done"))]).await;
        let folder = folder(&upstream.url());
        let mut serving = Serving::start(folder.path());
        let mut viewer = Viewer::to(serving.viewers).await;
        viewer.gets("/in-flight").await;
        upstream.heads_at_least(1).await;
        serving.gets(signal);
        patiently("new connections are refused", || TcpStream::connect(serving.viewers).is_err()).await;
        upstream.releases();
        let answer = viewer.rest().await.text;
        assert!(status(&answer) == 200 && answer.ends_with("done"), "{answer}");
        assert_eq!(serving.ends().await.code(), Some(0));
    }
}

#[tokio::test]
async fn a_second_signal_does_not_wait_for_requests_in_flight() {
    let upstream = Peer::start(vec![Step::ReadHead, Step::Stall]).await;
    let folder = folder(&upstream.url());
    let mut serving = Serving::start(folder.path());
    let mut viewer = Viewer::to(serving.viewers).await;
    viewer.gets("/in-flight").await;
    upstream.heads_at_least(1).await;
    serving.gets("-INT");
    serving.says("stopping");
    serving.gets("-INT");
    assert_eq!(serving.ends().await.code(), Some(1));
}

#[tokio::test]
async fn the_admin_pages_tell_how_it_is() {
    let origin = Origin::fixed(200, "through");
    let folder = folder(&origin.url());
    let serving = Serving::start(folder.path());
    serving.says("index");
    assert_eq!(testbed::get(&format!("http://{}/x", serving.viewers)).await.text(), "through");
    let page = |path: &str| format!("http://{}{path}", serving.admin);
    assert_eq!(testbed::get(&page("/livez")).await.text(), "alive\n");
    assert_eq!(testbed::get(&page("/readyz")).await.status, 200);
    let metrics = testbed::get(&page("/metrics")).await;
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
    assert!(metrics.text().ends_with('\n'));
    let served = "iiif_mender_requests_total{route=\"plain\",outcome=\"served\",status=\"2xx\"} 1\n";
    assert!(metrics.text().contains(served), "{}", metrics.text());
    assert!(metrics.text().contains("\niiif_mender_upstream_in_flight 0\n"));
    assert_eq!(testbed::get(&page("/else")).await.status, 404);
    let posted = testbed::Client::default().send(http::Method::POST, &page("/livez"), &[]).await;
    let posted = posted.expect("an answer");
    assert_eq!((posted.status, posted.header("allow")), (405, "GET, HEAD"));
    // Viewers do not get them.
    assert_eq!(testbed::get(&format!("http://{}/metrics", serving.viewers)).await.text(), "through");
}

#[test]
fn the_index_is_built_asked_and_listed() {
    let folder = folder("http://127.0.0.1:9");
    let stats = runs(folder.path(), &["index", "stats", "--json"]);
    assert_eq!((code(&stats), json(&stats)["images"].as_u64()), (0, Some(0)));
    let built = runs(folder.path(), &["index", "build", "--json"]);
    assert_eq!((code(&built), json(&built)["manifests"].as_u64()), (0, Some(1)), "{}", text(&built.stderr));
    let stats = json(&runs(folder.path(), &["index", "stats", "--json"]));
    let counts = ["manifests", "canvases", "images"].map(|key| stats[key].as_u64());
    assert_eq!(counts, [Some(1); 3]);
    let listed = json(&runs(folder.path(), &["index", "list", "--json"]));
    assert_eq!(listed[0]["label"], "a");
    let tile = format!("https://us.example/iiif/2/{KNOWN}/full/200,/0/default.jpg");
    for image in [KNOWN, &tile] {
        let owners = runs(folder.path(), &["index", "lookup", image, "--json"]);
        let found = json(&owners);
        assert_eq!((code(&owners), found.as_array().map(Vec::len)), (0, Some(1)));
        assert_eq!(found[0]["canvas"], "https://us.example/iiif-service/fedora/canvas/a");
        assert_eq!(found[0]["manifest"], "https://us.example/iiif-service/fedora/presentation/a");
    }
    let exported = runs(folder.path(), &["index", "export", "--json"]);
    assert_eq!(text(&exported.stdout).lines().count(), 1);
    assert_eq!(json(&exported)["image"], KNOWN);
}

#[test]
fn an_unknown_image_is_exit_1_and_an_empty_list() {
    let folder = folder("http://127.0.0.1:9");
    runs(folder.path(), &["index", "build"]);
    let unknown = runs(folder.path(), &["index", "lookup", "00000000-0000-3000-8000-000000000000", "--json"]);
    assert_eq!((code(&unknown), json(&unknown)), (1, serde_json::json!([])));
    assert_eq!(code(&runs(folder.path(), &["index", "lookup", "nobody"])), 1);
}

#[test]
fn the_configuration_is_checked_shown_and_described() {
    let folder = folder("http://127.0.0.1:9");
    let checked = runs(folder.path(), &["config", "check"]);
    assert_eq!(code(&checked), 0);
    assert!(text(&checked.stdout).contains("in order"));
    let shown = runs(folder.path(), &["config", "show"]);
    assert!(text(&shown.stdout).contains("[heal]"));
    // What is shown is a configuration again.
    std::fs::write(folder.path().join("shown.toml"), &shown.stdout).expect("a file");
    let again = runs(folder.path(), &["config", "check", "--config", "shown.toml"]);
    assert_eq!(code(&again), 0, "{}", text(&again.stdout));
    let schema = json(&runs(folder.path(), &["config", "schema"]));
    assert!(schema["properties"]["routes"].is_object());
}

#[test]
fn completions_and_the_manual_page_name_the_commands() {
    let folder = tempfile::tempdir().expect("a directory");
    for shell in ["bash", "zsh", "fish"] {
        let script = runs(folder.path(), &["completions", shell]);
        assert!(code(&script) == 0 && text(&script.stdout).contains("serve"), "{shell}");
    }
    let page = runs(folder.path(), &["man"]);
    assert!(code(&page) == 0 && text(&page.stdout).contains(".TH iiif-mender 1"));
}

#[test]
fn every_command_that_prints_data_prints_json_and_the_others_refuse() {
    let folder = folder("http://127.0.0.1:9");
    for command in [
        &["index", "build"][..],
        &["index", "add", "manifests"],
        &["index", "refresh"],
        &["index", "learn-files"],
        &["index", "lookup", KNOWN],
        &["index", "list"],
        &["index", "stats"],
        &["index", "export"],
        &["index", "history"],
        &["index", "remove", "manifests"],
        &["check"],
        &["heal"],
        &["heal", "--dry-run"],
        &["config", "check"],
        &["config", "show"],
        &["config", "schema"],
    ] {
        let done = runs(folder.path(), &[command, &["--json"]].concat());
        serde_json::from_slice::<serde_json::Value>(&done.stdout)
            .unwrap_or_else(|error| panic!("{command:?}: {error}: {done:?}"));
    }
    for command in [
        &["serve"][..],
        &["man"],
        &["completions", "bash"],
        &["config", "defaults"],
        &["config", "reference"],
    ] {
        let done = runs(folder.path(), &[command, &["--json"]].concat());
        assert_eq!((code(&done), text(&done.stdout).as_str()), (2, ""), "{command:?}");
        assert!(text(&done.stderr).contains("prints no data"), "{command:?}: {done:?}");
    }
}

#[test]
fn config_check_tells_every_mistake_as_json() {
    let folder = folder("http://127.0.0.1:9");
    let good = runs(folder.path(), &["config", "check", "--json"]);
    assert_eq!((code(&good), &json(&good)["in_order"]), (0, &true.into()));
    std::fs::write(folder.path().join("bad.toml"), "[heal]\nwiat = '1s'\ntimeout = 7\n").expect("a file");
    let bad = runs(folder.path(), &["config", "check", "--json", "--config", "bad.toml"]);
    let told = json(&bad);
    assert_eq!((code(&bad), &told["in_order"]), (2, &false.into()));
    let places: Vec<_> =
        told["mistakes"].as_array().expect("a list").iter().map(|one| &one["place"]).collect();
    assert!(places.iter().any(|place| **place == "bad.toml:2:1"), "{told}");
}

#[test]
fn a_reader_who_stops_early_is_no_failure() {
    let folder = folder("http://127.0.0.1:9");
    runs(folder.path(), &["index", "build"]);
    for command in [
        &["completions", "bash"][..],
        &["man"],
        &["config", "schema"],
        &["config", "show"],
        &["index", "export"],
        &["index", "list"],
    ] {
        let mut child = program(folder.path(), command)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
        assert!(child.wait().expect("it ends").success() && said.is_empty(), "{command:?}: {said}");
    }
}

#[test]
fn every_command_has_a_page_of_the_manual_and_its_help_tells_the_exit_status() {
    let folder = tempfile::tempdir().expect("a directory");
    let done = runs(folder.path(), &["man", "--to", "man1"]);
    assert!(done.status.success(), "{done:?}");
    let help = String::from_utf8(runs(folder.path(), &["--help"]).stdout).expect("text");
    let (_, list) = help.split_once("Commands:\n").expect("commands");
    let names =
        list.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    let names: Vec<_> = names.filter(|name| *name != "help").collect();
    assert!(names.len() >= 8, "{help}");
    for name in ["", "serve"].into_iter().chain(names.iter().copied()) {
        let file = if name.is_empty() { "iiif-mender.1".to_owned() } else { format!("iiif-mender-{name}.1") };
        let page = std::fs::read_to_string(folder.path().join("man1").join(&file)).expect(&file);
        for section in ["NAME", "SYNOPSIS", "EXIT STATUS", "FILES", "ENVIRONMENT", "EXAMPLES", "SEE ALSO"] {
            assert!(
                page.contains(&format!(".SH {section}\n")) || page.contains(&format!(".SH \"{section}\"")),
                "{file}: {section}"
            );
        }
        // What a page refers to is there.
        for other in page.split("(1)").filter_map(|text| text.rsplit([' ', '\n', 'B']).next()) {
            let other = other.replace('\\', "");
            if other.starts_with("iiif-mender") {
                assert!(folder.path().join("man1").join(format!("{other}.1")).exists(), "{file}: {other}");
            }
        }
        let arguments: Vec<_> = [name, "--help"].into_iter().filter(|word| !word.is_empty()).collect();
        let help = String::from_utf8(runs(folder.path(), &arguments).stdout).expect("text");
        assert!(help.contains("Exit status:\n  0: "), "{name}: {help}");
    }
    let help = text(&runs(folder.path(), &["index", "lookup", "--help"]).stdout);
    assert!(help.contains("Exit status:\n  0: ") && help.contains("\n  1: "), "{help}");
    assert_eq!(std::fs::read_dir(folder.path().join("man1")).expect("pages").count(), names.len() + 1);
}
