//! Restarts, upgrades and reloads of the real program under load: no request fails.
#![allow(clippy::disallowed_methods, reason = "viewers connect to the proxy; the rule is for the product")]

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use command_fds::{CommandFdExt as _, FdMapping};
use testbed::{Flow, Origin};
use tokio::task::JoinHandle;

use crate::support::edge::{Viewer, field, status};
use crate::support::program::{Serving, folder, program};
use crate::support::world::patiently;

/// So often is everything done.
const TIMES: usize = 20;

/// Viewers who ask without a pause: some on connections that they keep, some on a new one each time.
struct Load {
    ends: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    viewers: Vec<JoinHandle<()>>,
}

impl Load {
    fn on(address: SocketAddr) -> Self {
        let (ends, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let viewers = (0..8).map(|number| {
            let (ends, answered) = (Arc::clone(&ends), Arc::clone(&answered));
            tokio::spawn(async move {
                while !ends.load(Relaxed) {
                    let mut viewer = Viewer::to(address).await;
                    loop {
                        viewer.gets("/loaded").await;
                        // No answer at all, or half of one, fails the test right here.
                        let answer = viewer.until("whole").await;
                        assert_eq!(status(&answer), 200, "{answer}");
                        answered.fetch_add(1, Relaxed);
                        let is_last = field(&answer, "connection") == "close";
                        if is_last || number % 4 == 0 || ends.load(Relaxed) {
                            break;
                        }
                    }
                }
            })
        });
        let viewers = viewers.collect();
        Self { ends, answered, viewers }
    }

    /// Waits until so many more are answered: the load goes on.
    async fn goes_on(&self) {
        let before = self.answered.load(Relaxed);
        patiently("it is answered", || {
            self.answered.load(Relaxed) > before + 20 || self.viewers.iter().any(JoinHandle::is_finished)
        })
        .await;
    }

    async fn ends(self) -> usize {
        self.ends.store(true, Relaxed);
        for viewer in self.viewers {
            viewer.await.expect("every request was answered");
        }
        self.answered.load(Relaxed)
    }
}

fn origin() -> Origin {
    Origin::start(|_| Origin::answer(200, &[], Flow::sized("whole")))
}

fn sends(signal: &str, process: u64) {
    let sent = Command::new("kill").args([signal, &process.to_string()]).status();
    assert!(sent.expect("kill").success());
}

/// Ends a process that is not our own child, however the test ends.
pub(crate) struct Last(pub(crate) u64);

impl Drop for Last {
    fn drop(&mut self) {
        let _gone_already = Command::new("kill").args(["-KILL", &self.0.to_string()]).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_reloads_under_load_lose_no_request() {
    let origin = origin();
    let folder = folder(&origin.url());
    let serving = Serving::start(folder.path());
    let load = Load::on(serving.viewers);
    for time in 0..TIMES {
        let config = folder.path().join("config.toml");
        let text = std::fs::read_to_string(&config).expect("a file");
        let text = text.lines().filter(|line| !line.starts_with("idle_timeout"));
        let text: Vec<&str> = text.collect();
        let changed =
            text.join("\n").replacen("[server]", &format!("[server]\nidle_timeout = \"{}s\"", 60 + time), 1);
        std::fs::write(&config, changed).expect("a file");
        serving.gets("-HUP");
        assert_eq!(serving.says("the configuration was read anew")["changed"], "server.idle_timeout");
        load.goes_on().await;
    }
    assert!(load.ends().await > TIMES * 20);
    std::fs::write(folder.path().join("config.toml"), "[server]\nlissten = 1\n[heal]\nwait = \"soon\"\n")
        .expect("a file");
    serving.gets("-HUP");
    let said = serving.says("the configuration was read anew and is of no use");
    let error = said["error"].as_str().expect("a reason");
    assert!(error.contains("lissten") && error.contains("soon") && error.contains("routes"), "{error}");
    assert_eq!(testbed::get(&format!("http://{}/", serving.viewers)).await.text(), "whole");
    let scrape = testbed::get(&format!("http://{}/metrics", serving.admin)).await.text();
    assert!(scrape.contains("iiif_mender_config_reloads_total{result=\"refused\"} 1\n"), "{scrape}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_successors_under_load_lose_no_request() {
    let origin = origin();
    let folder = folder(&origin.url());
    let mut serving = Serving::start(folder.path());
    let load = Load::on(serving.viewers);
    let mut last = Last(u64::from(serving.child.0.id()));
    for _ in 0..TIMES {
        sends("-USR2", last.0);
        let process = serving.says("the successor serves")["process"].as_u64().expect("a process");
        std::mem::forget(std::mem::replace(&mut last, Last(process)));
        load.goes_on().await;
    }
    assert!(load.ends().await > TIMES * 20);
    assert_eq!(serving.ends().await.code(), Some(0));
    assert_eq!(testbed::get(&format!("http://{}/livez", serving.admin)).await.text(), "alive\n");
}

#[tokio::test]
async fn without_a_successor_it_goes_on_and_says_why() {
    let origin = origin();
    let folder = folder(&origin.url());
    let mut serving = Serving::start(folder.path());
    let config = folder.path().join("config.toml");
    let good = std::fs::read_to_string(&config).expect("a file");
    std::fs::write(&config, "[server]\nlissten = 1\n").expect("a file");
    serving.gets("-USR2");
    let said = serving.says_somewhere("there is no successor");
    assert!(said["error"].as_str().is_some_and(|why| why.contains("ended before")), "{said}");
    assert_eq!(testbed::get(&format!("http://{}/", serving.viewers)).await.text(), "whole");
    std::fs::write(&config, good).expect("a file");
    serving.gets("-TERM");
    assert_eq!(serving.ends().await.code(), Some(0));
}

/// The program on a socket that is ours, as under systemd.
fn activated(folder: &Path, sockets: &[&TcpListener]) -> Serving {
    let mut command = program(folder, &["serve"]);
    let passed = sockets.iter().map(|socket| OwnedFd::from(socket.try_clone().expect("a socket")));
    let mappings = (3..).zip(passed).map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd });
    command.fd_mappings(mappings.collect()).expect("no collision");
    command.env("LISTEN_FDS", sockets.len().to_string());
    Serving::of(command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_restarts_on_an_activated_socket_lose_no_request() {
    let origin = origin();
    let folder = folder(&origin.url());
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let mut serving = activated(folder.path(), &[&socket]);
    assert_eq!(serving.viewers, socket.local_addr().expect("an address"));
    let load = Load::on(serving.viewers);
    for _ in 0..TIMES {
        load.goes_on().await;
        serving.gets("-TERM");
        assert_eq!(serving.ends().await.code(), Some(0));
        serving = activated(folder.path(), &[&socket]);
    }
    load.goes_on().await;
    assert!(load.ends().await > TIMES * 20);
}

#[tokio::test]
async fn a_socket_for_an_address_that_is_none_of_ours_is_a_mistake() {
    let folder = folder("http://127.0.0.1:9");
    let socket = TcpListener::bind("127.0.0.2:0").expect("a socket");
    let address = socket.local_addr().expect("an address").to_string();
    let mut command = program(folder.path(), &["serve"]);
    let parent_fd = socket.into();
    command.fd_mappings(vec![FdMapping { parent_fd, child_fd: 3 }]).expect("no collision");
    let output = command.env("LISTEN_FDS", "1").output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains(&address), "{said}");
}

#[tokio::test]
async fn another_file_is_read_without_being_told_and_the_admin_pages_can_ask_for_it() {
    let (one, other) = (origin(), Origin::fixed(200, "other"));
    let folder = folder(&one.url());
    let serving = Serving::start(folder.path());
    let config = folder.path().join("config.toml");
    let text = std::fs::read_to_string(&config).expect("a file");
    std::fs::write(&config, text.replace(&one.url(), &other.url())).expect("a file");
    assert_eq!(serving.says("the configuration was read anew")["changed"], "routes");
    assert_eq!(testbed::get(&format!("http://{}/", serving.viewers)).await.text(), "other");
    let asks = async || {
        let url = format!("http://{}/api/v1/reload", serving.admin);
        testbed::Client::default()
            .send(http::Method::POST, &url, &[("content-type", "application/json")])
            .await
            .expect("an answer")
    };
    assert_eq!(asks().await.json()["changed"], serde_json::json!([]));
    std::fs::write(&config, text.replace("[server]", "[server]\nlissten = 1\nname = \"a b\""))
        .expect("a file");
    let refused = asks().await;
    assert_eq!(refused.status, 422);
    assert!(refused.text().contains("lissten") && refused.text().contains("a b"), "{}", refused.text());
    std::fs::write(&config, text.replace("[server]", "[server]\nname = \"another\"")).expect("a file");
    let changed = asks().await;
    assert_eq!(changed.json()["changed"], serde_json::json!(["routes", "server.name"]));
}
