//! What systemd is told (`sd_notify(3)`): that it serves, reads anew, stops, lives, and who takes over.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::program::{Serving, folder, program};

/// Systemd's end of the socket.
struct Systemd {
    socket: UnixDatagram,
}

impl Systemd {
    /// Starts `serve` as a unit of `Type=notify` is started.
    fn starts(folder: &Path, watchdog: Option<Duration>) -> (Self, Serving) {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        let mut command = program(folder, &["serve"]);
        command.env("NOTIFY_SOCKET", &path);
        if let Some(watchdog) = watchdog {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        (Self { socket }, Serving::of(command))
    }

    fn hears(&self) -> String {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).expect("a message");
        String::from_utf8(message[..length].to_vec()).expect("text")
    }

    /// Waits for a message with this line; all lines of it.
    fn hears_of(&self, line: &str) -> Vec<String> {
        loop {
            let lines: Vec<_> = self.hears().lines().map(ToOwned::to_owned).collect();
            if lines.iter().any(|said| said == line) {
                return lines;
            }
        }
    }
}

#[tokio::test]
async fn systemd_is_told_of_the_start_a_reload_a_bad_file_and_the_end() {
    let folder = folder("http://127.0.0.1:9");
    let (systemd, mut serving) = Systemd::starts(folder.path(), None);
    assert!(systemd.hears_of("READY=1").contains(&"STATUS=serving".to_owned()));
    serving.gets("-HUP");
    // Type=notify-reload asks for the time, too.
    let reloading = systemd.hears_of("RELOADING=1");
    assert!(reloading.iter().any(|line| line.starts_with("MONOTONIC_USEC=")), "{reloading:?}");
    assert!(systemd.hears_of("READY=1").contains(&"STATUS=serving".to_owned()));
    std::fs::write(folder.path().join("config.toml"), "[server]\nlissten = 1\n").expect("a file");
    serving.gets("-HUP");
    systemd.hears_of("RELOADING=1");
    let ready = systemd.hears_of("READY=1");
    assert!(ready.iter().any(|line| line.contains("the old one stays")), "{ready:?}");
    serving.gets("-TERM");
    systemd.hears_of("STOPPING=1");
    assert_eq!(serving.ends().await.code(), Some(0));
}

#[tokio::test]
async fn the_watchdog_is_fed_at_half_its_time() {
    let folder = folder("http://127.0.0.1:9");
    let patience = Duration::from_secs(3);
    let (systemd, _serving) = Systemd::starts(folder.path(), Some(patience));
    systemd.hears_of("WATCHDOG=1");
    let began = Instant::now();
    for _ in 0..3 {
        let waited = Instant::now();
        systemd.hears_of("WATCHDOG=1");
        assert!(waited.elapsed() < patience, "systemd would have killed it");
    }
    assert!(began.elapsed() > patience, "far more often than is asked for");
}

#[tokio::test]
async fn at_a_handover_systemd_is_told_of_the_new_main_process_and_of_no_end() {
    let folder = folder("http://127.0.0.1:9");
    let (systemd, mut serving) = Systemd::starts(folder.path(), Some(Duration::from_millis(200)));
    systemd.hears_of("READY=1");
    serving.gets("-USR2");
    let successor = serving.says_somewhere("the successor serves")["process"].as_u64().expect("a process");
    let _killed_with_the_test = crate::handover::Last(successor);
    systemd.hears_of(&format!("MAINPID={successor}"));
    assert_eq!(serving.ends().await.code(), Some(0));
    // "STOPPING=1" would end the whole unit, whoever says it. What was said before stands in the socket's queue.
    systemd.socket.set_nonblocking(true).expect("an option");
    let mut message = [0; 4096];
    let mut fed = false;
    while let Ok(length) = systemd.socket.recv(&mut message) {
        let said = String::from_utf8_lossy(&message[..length]).into_owned();
        assert!(!said.contains("STOPPING"), "{said}");
        fed |= said.contains("WATCHDOG=1");
    }
    systemd.socket.set_nonblocking(false).expect("an option");
    if !fed {
        systemd.hears_of("WATCHDOG=1");
    }
}
