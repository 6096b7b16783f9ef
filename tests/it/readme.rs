//! Every command of the README is run: here, or by the test script.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use testbed::Testbed;

use crate::docs::{fenced, read};
use crate::support::process::Process;

/// Commands that build things, and the line of a script by which continuous integration does the same.
/// (Debug instead of release: the same sources, a third of the time.)
const BY_SCRIPT: [(&str, &str, &str); 3] = [
    ("cargo run --release --example demo", "test.sh", "cargo run --locked --example demo -- --once"),
    ("./test.sh", ".ci/run", "exec ./test.sh"),
    ("cargo build --release", "test.sh", "cargo test --locked --workspace"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_readme_works() {
    let folder = tempfile::tempdir().expect("a folder");
    let manifests = folder.path().join("manifests");
    fs::create_dir(&manifests).expect("a folder");
    Testbed::start().await.write_manifests(&manifests).expect("manifests");
    let blocks = fenced(&read("README.md"), "sh");
    let commands: Vec<_> = blocks.iter().flat_map(|block| block.lines()).collect();
    assert!(commands.len() >= 7, "{commands:?}");
    for command in commands {
        if let Some((_, script, line)) = BY_SCRIPT.iter().find(|(known, ..)| *known == command) {
            assert!(read(script).contains(line), "{script} does not run `{command}`");
        } else if command == "iiif-mender serve" {
            serves_until_told_to_stop(folder.path());
        } else {
            let arguments = command.strip_prefix("iiif-mender ");
            let arguments = arguments.unwrap_or_else(|| panic!("nothing runs `{command}`"));
            let done = mender(folder.path(), arguments).output().expect("it starts");
            assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
        }
    }
}

/// What the shipped file says works before the stand-ins: only its ports are others here.
#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_configuration_heals_before_the_stand_ins() {
    let builder = Testbed::builder().book("obj/minutes", 3).public_base("http://localhost:8080");
    let bed = builder.start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let manifests = folder.path().join("manifests");
    fs::create_dir(&manifests).expect("a folder");
    bed.write_manifests(&manifests).expect("manifests");
    let mut text = read("config.toml").replace("# [[index.sources]]\n# path", "[[index.sources]]\npath");
    for (shipped, here) in [
        ("\"127.0.0.1:8080\"", "\"127.0.0.1:0\"".to_owned()),
        ("\"127.0.0.1:9090\"", "\"127.0.0.1:0\"".to_owned()),
        ("http://127.0.0.1:8182", bed.images.origin()),
        ("http://127.0.0.1:9000", bed.service.origin()),
    ] {
        assert_eq!(text.matches(shipped).count(), 1, "{shipped}");
        text = text.replace(shipped, &here);
    }
    fs::write(folder.path().join("config.toml"), text).expect("a file");
    let built = mender(folder.path(), "index build").output().expect("it starts");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let process = Process::start(folder.path());
    let url = process.url(&bed.page().image_path("full/600,/0/default.jpg"));
    let alive = testbed::get(&url).await;
    assert_eq!(alive.status, 200, "{url} {:?}", alive.headers);
    bed.expires_everything();
    let healed = testbed::get(&url).await;
    assert_eq!(healed.status, 200, "{}", healed.text());
    assert!(healed.header("heal-status").starts_with("healed"), "{:?}", healed.headers);
}

/// The shipped configuration, on ports of its own.
fn mender(folder: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iiif-mender"));
    command.args(arguments.split(' ')).current_dir(folder);
    command
        .env("IIIF_MENDER__SERVER__LISTEN", "127.0.0.1:0")
        .env("IIIF_MENDER__ADMIN__LISTEN", "127.0.0.1:0");
    command
}

fn serves_until_told_to_stop(folder: &Path) {
    let mut serve = mender(folder, "serve").stderr(Stdio::piped()).spawn().expect("it starts");
    let mut said = BufReader::new(serve.stderr.take().expect("a pipe")).lines();
    let serving = said.by_ref().map_while(Result::ok).any(|line| line.contains(r#""message":"serving""#));
    assert!(serving, "it ended before it served");
    let asked = Command::new("kill").args(["-TERM", &serve.id().to_string()]).status().expect("kill");
    assert!(asked.success());
    let rest: Vec<_> = said.map_while(Result::ok).collect();
    assert!(serve.wait().expect("it ends").success(), "{rest:#?}");
}

#[test]
fn continuous_integration_runs_every_step_of_the_test_script() {
    let script = read("test.sh");
    let steps: Vec<_> =
        script.lines().filter_map(|line| line.strip_prefix("step ")?.split(' ').next()).collect();
    assert_eq!(steps, ["format", "lints", "tests", "simulation", "instructions", "docs", "demo", "browser"]);
    assert!(script.contains("long=(simulation instructions demo browser)"), "quick runs all other steps");
    assert!(script.contains("-D warnings"), "warnings are errors");
    assert!(script.contains("HEAL_SIM_SEEDS=10000"), "the simulation is played in earnest");
}
