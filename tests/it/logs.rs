//! The log of the real program: which requests have a line, what stands in it, and what cannot.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use testbed::Origin;

use crate::support::program::{KilledOnDrop, Serving, folder, program};
use crate::support::world::{asks_until, patiently};

/// The program with `[log]` keys of the test's choice.
fn serving(origin: &Origin, log: &str) -> (tempfile::TempDir, Serving) {
    let folder = folder(&origin.url());
    let file = folder.path().join("config.toml");
    let text = std::fs::read_to_string(&file).expect("a file");
    let text = text.replace("[log]\n", &format!("[log]\n{log}\n"));
    std::fs::write(file, text.replace("[server]\n", "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n"))
        .expect("a file");
    let serving = Serving::start(folder.path());
    (folder, serving)
}

#[tokio::test]
async fn a_line_tells_a_request_with_its_id_and_without_its_secrets() {
    let origin = Origin::fixed(200, "fine");
    let (_folder, serving) = serving(&origin, "access = \"all\"");
    let url = format!("http://{}/a/b?x=1&token=hush", serving.viewers);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let fields = [
        ("x-request-id", "front-1"),
        ("traceparent", parent),
        ("authorization", "Bearer hush"),
        ("cookie", "session=hush"),
    ];
    testbed::get_with(&url, &fields).await;
    let line = serving.says("request");
    let expected = serde_json::json!({
        "request": "front-1", "trace": &parent[3..35], "method": "GET", "path": "/a/b",
        "query": "x=1&token=[redacted]", "route": "plain", "outcome": "served", "status": 200,
    });
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&line[name], value, "{line}");
    }
    assert!(line["duration_ms"].is_u64() && !line.to_string().contains("hush"), "{line}");
    origin.goes_down().await;
    testbed::get_with(&url, &fields).await;
    let warned = serving.says("an upstream gave no answer");
    assert_eq!(warned["request"], "front-1");
}

#[tokio::test]
async fn which_requests_have_a_line_is_configured() {
    for (log, expected) in [
        ("access = \"off\"", vec![]),
        ("access = \"errors\"", vec!["/bad"]),
        ("access = \"sampled\"\nsample = 4000000000", vec!["/bad"]),
        ("access = \"sampled\"\nsample = 1", vec!["/good", "/bad"]),
        ("access = \"all\"", vec!["/good", "/bad"]),
    ] {
        let origin = Origin::start(|seen| {
            Origin::answer(if seen.path() == "/bad" { 404 } else { 200 }, &[], testbed::Flow::sized("x"))
        });
        let (_folder, serving) = serving(&origin, log);
        for path in ["/good", "/bad"] {
            testbed::get(&format!("http://{}{path}", serving.viewers)).await;
        }
        serving.gets("-TERM");
        let lines = serving.rest();
        let told = lines.iter().filter(|line| line["message"] == "request");
        let paths: Vec<_> = told.map(|line| line["path"].as_str().expect("a path")).collect();
        assert_eq!(paths, expected, "{log}");
    }
}

#[test]
fn a_file_with_a_line_break_in_its_name_cannot_write_a_line_of_its_own() {
    let folder = folder("http://127.0.0.1:9");
    let evil = folder.path().join("manifests/a\n2026-01-01T00:00:00Z  INFO forged\u{1b}[2J.json");
    std::fs::write(evil, "{").expect("a file");
    let mut text = program(folder.path(), &["serve"]);
    text.env("IIIF_MENDER__LOG__FORMAT", "text").stderr(Stdio::piped());
    let mut child = KilledOnDrop(text.spawn().expect("it starts"));
    let stderr = BufReader::new(child.0.stderr.take().expect("a pipe"));
    let line = stderr.lines().map_while(Result::ok).find(|line| line.contains("forged")).expect("it is told");
    assert!(line.contains("WARN") && line.contains("a source has a problem"), "{line}");
    assert!(line.contains("\\n2026-01-01") && !line.contains('\u{1b}'), "{line}");
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_no_request_and_its_lost_lines_are_counted() {
    let origin = Origin::fixed(200, "fine");
    let folder = folder(&origin.url());
    let port = || std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let (viewers, admin) = (port(), port());
    let mut command = program(folder.path(), &["serve"]);
    command.env("IIIF_MENDER__LOG__ACCESS", "all").env("IIIF_MENDER__LOG__QUEUE", "16");
    command.env("IIIF_MENDER__SERVER__LISTEN", viewers.to_string());
    command.env("IIIF_MENDER__ADMIN__LISTEN", admin.to_string());
    // A pipe holds 64 KiB; nobody ever reads this one.
    let child = KilledOnDrop(command.stderr(Stdio::piped()).spawn().expect("it starts"));
    let client = testbed::Client::default();
    let url = format!("http://{viewers}/{}", "x".repeat(2000));
    asks_until("it answers", async || client.get(&url, &[]).await.is_ok(), |is_there| *is_there).await;
    for _ in 0..200 {
        assert_eq!(client.get(&url, &[]).await.expect("an answer").status, 200);
    }
    let scrape = testbed::get(&format!("http://{admin}/metrics")).await.text();
    let lost = scrape.lines().find_map(|line| line.strip_prefix("iiif_mender_log_lines_lost_total "));
    let lost: u64 = lost.expect("it is counted").parse().expect("a number");
    assert!(lost > 50, "{lost}");
    drop(child);
    patiently("it is gone", || std::net::TcpListener::bind(viewers).is_ok()).await;
}

#[tokio::test]
async fn a_client_stands_in_its_line_as_far_as_it_may_and_no_path_forges_one() {
    let origin = Origin::fixed(404, "gone");
    for (how, shown) in [
        ("", Some("198.51.100.0")),
        ("client = \"masked\"", Some("198.51.100.0")),
        ("client = \"full\"", Some("198.51.100.7")),
        ("client = \"none\"", None),
    ] {
        let (_folder, serving) = serving(&origin, how);
        let evil = "/x\",\"client\":\"203.0.113.9\",\"status\":403,\"duration_ms\":1,authorization:\u{202e}\u{2028}\u{85}/end";
        let request = format!(
            "GET {evil} HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 203.0.113.1, 198.51.100.7\r\nconnection: close\r\n\r\n"
        );
        let viewers = serving.viewers;
        // Not on this thread: the server behind runs here.
        let asked = tokio::task::spawn_blocking(move || {
            #[expect(clippy::disallowed_methods, reason = "a raw client, on a thread of its own")]
            let mut viewer = std::net::TcpStream::connect(viewers).expect("connected");
            viewer.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("set");
            std::io::Write::write_all(&mut viewer, request.as_bytes()).expect("written");
            let mut answer = Vec::new();
            let _cut = std::io::Read::read_to_end(&mut viewer, &mut answer);
            String::from_utf8_lossy(&answer).into_owned()
        });
        let answer = asked.await.expect("an answer");
        if !answer.starts_with("HTTP/1.1 404") {
            // The parser refuses it; then it stands in no line.
            assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
            testbed::get_with(
                &format!("http://{}/plain", serving.viewers),
                &[("x-forwarded-for", "198.51.100.7")],
            )
            .await;
        }
        let line = serving.says("request");
        assert_eq!(line.get("client").and_then(|client| client.as_str()), shown, "{how}: {line}");
        if line["path"] != "/plain" {
            assert!(line["path"].as_str().is_some_and(|path| path.ends_with("/end")), "{line}");
        }
        if how.contains("full") {
            let text = line_as_written(&line);
            assert_eq!(banned(&text).as_deref(), Some("198.51.100.7"), "{text}");
        }
    }
}

/// Whom fail2ban finds in a line with the expressions of the manual: it takes the time out of the line, and then looks.
fn banned(line: &str) -> Option<String> {
    let manual = include_str!("../../docs/OPERATIONS.md");
    let written = |key: &str| manual.lines().find_map(|line| line.strip_prefix(key)).expect("an expression");
    let mut date = written("datepattern = ").to_owned();
    let parts = [("%Y", r"\d{4}"), ("%f", r"\d{1,6}"), ("%z", r"(?:Z|[+-]\d\d:?\d\d)")];
    let two = ["%m", "%d", "%H", "%M", "%S"].map(|part| (part, r"\d\d"));
    for (part, digits) in parts.iter().chain(&two) {
        date = date.replace(&format!("%{part}"), digits);
    }
    let date = regex::Regex::new(&date).expect("an expression");
    assert!(date.is_match(line), "no time in {line}");
    let found = regex::Regex::new(&written("failregex = ").replace("<HOST>", r"([0-9a-fA-F.:]+)"));
    let line = date.replace(line, "");
    Some(found.expect("an expression").captures(&line)?[1].to_owned())
}

/// The fields in the order in which the program writes them: fail2ban reads text.
fn line_as_written(line: &serde_json::Value) -> String {
    let order =
        ["timestamp", "level", "message", "client", "request", "method", "path", "query", "route", "outcome"];
    let rest = ["status", "duration_ms", "target"];
    let pairs = order.iter().chain(&rest).filter(|name| line.get(**name).is_some());
    let pairs: Vec<_> = pairs.map(|name| format!("\"{name}\":{}", line[*name])).collect();
    format!("{{{}}}", pairs.join(","))
}

#[tokio::test]
async fn the_expression_for_fail2ban_finds_who_is_refused_in_real_lines() {
    let origin = Origin::fixed(404, "gone");
    let folder = folder(&origin.url());
    let mut command = program(folder.path(), &["serve"]);
    command.env("IIIF_MENDER__LOG__CLIENT", "full").env("IIIF_MENDER__LOG__ACCESS", "errors");
    let viewers = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    command.env("IIIF_MENDER__SERVER__LISTEN", viewers.to_string());
    let mut child = KilledOnDrop(command.stderr(Stdio::piped()).spawn().expect("it starts"));
    let stderr = BufReader::new(child.0.stderr.take().expect("a pipe"));
    #[expect(clippy::disallowed_methods, reason = "a raw client, in a test")]
    let is_there = || std::net::TcpStream::connect(viewers).is_ok();
    patiently("it serves", is_there).await;
    testbed::get(&format!("http://{viewers}/nothing?status=1")).await;
    let mut lines = stderr.lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("\"request\"") && line.contains("/nothing")).expect("a line");
    assert_eq!(banned(&line).as_deref(), Some("127.0.0.1"), "{line}");
}
