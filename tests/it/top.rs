//! `iiif-mender top`: what a running iiif-mender does, in a terminal.

use std::process::{Command, Output};
use std::time::Duration;

use expectrl::Expect as _;

use crate::support::world::World;

fn top(arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("iiif-mender"));
    command.current_dir(std::env::temp_dir()).args(["--config", "/nonexistent.toml", "top"]).args(arguments);
    command
}

async fn told(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().expect("it runs")).await.expect("a thread")
}

fn admin(world: &World) -> String {
    format!("http://{}", world.app.admin.expect("an admin listener"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_look_shows_what_was_healed() {
    let world = World::start().await;
    let page = world.bed.page();
    world.bed.expires_everything();
    assert_eq!(world.get(&page.image_path("full/64,/0/default.jpg")).await.status, 200);
    let told = told(top(&["--once", "--url", &admin(&world)])).await;
    assert!(told.status.success(), "{told:?}");
    let text = String::from_utf8_lossy(&told.stdout);
    let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
    assert!(line("canvas requests").split_whitespace().any(|word| word == "1"), "{text}");
    assert!(text.contains("healed") && text.contains("images"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_is_what_the_admin_listener_tells() {
    let world = World::start().await;
    let told = told(top(&["--json", "--url", &admin(&world)])).await;
    assert!(told.status.success(), "{told:?}");
    let json: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
    assert!(json["uptime_seconds"].is_u64() && json["now"].is_object(), "{json}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_asked_is_named_with_what_to_do() {
    let told_silent = told(top(&["--once", "--url", "http://127.0.0.1:9"])).await;
    assert_eq!(told_silent.status.code(), Some(1));
    let text = String::from_utf8_lossy(&told_silent.stderr).into_owned();
    assert!(text.contains("127.0.0.1:9") && text.contains("[admin] listen"), "{text}");
    let world = World::start().await;
    let viewers = format!("http://{}", world.app.addresses[0]);
    let told_other = told(top(&["--once", "--url", &viewers])).await;
    let text = String::from_utf8_lossy(&told_other.stderr).into_owned();
    assert!(text.contains("answers") || text.contains("does not answer as"), "{text}");
    let told_pipe = told(top(&["--url", &admin(&world)])).await;
    assert!(String::from_utf8_lossy(&told_pipe.stderr).contains("--once"), "{told_pipe:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_left_with_q_and_the_terminal_is_as_before() {
    let world = World::start().await;
    let url = admin(&world);
    let seen = tokio::task::spawn_blocking(move || {
        let mut session =
            expectrl::Session::spawn(top(&["--url", &url, "--every", "1"])).expect("a terminal");
        session.get_process_mut().set_window_size(100, 30).expect("a size");
        session.set_expect_timeout(Some(Duration::from_mins(1)));
        // Blanks are not drawn: the screen is blank already.
        let first = session.expect("viewers").expect("it draws");
        session.send("q").expect("a key");
        let last = session.expect(expectrl::Eof).expect("it ends");
        [first.as_bytes(), last.as_bytes()].concat()
    })
    .await
    .expect("a thread");
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.contains("\u{1b}[?1049h") && seen.contains("\u{1b}[?1049l"), "the other screen, and back");
}
