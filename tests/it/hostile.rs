//! Bytes that somebody sends who means harm, or whose program is broken: `tests/hostile/cases/*.toml`.
//!
//! A case says what is sent, which answers come back (statuses, in order), and how many whole requests arrive upstream.
//! Besides, and always: what arrives there is what a strict reader of RFC 9112 takes without a doubt, nothing that was
//! smuggled is among it, and where framing is in doubt the connection ends.
//! `tests/hostile/compare.sh` sends the same bytes to nginx and HAProxy.
#![allow(clippy::disallowed_methods, reason = "viewers connect to the proxy; the rule is for the product")]

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::edge::{Edge, route};
use crate::support::recorder::Recorder;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    send: String,
    /// Statuses that come back; absent: whatever.
    answers: Option<Vec<u16>>,
    /// Whole requests that arrive upstream; absent: none if all answers are errors, else whatever.
    upstream: Option<usize>,
    /// The connection must end.
    #[serde(default)]
    closes: bool,
    /// The sender ends its side behind the bytes.
    #[serde(default)]
    half: bool,
    /// What the heads upstream hold, and what they never do (in small letters).
    #[serde(default)]
    sees: Vec<String>,
    #[serde(default)]
    never: Vec<String>,
}

#[derive(Deserialize)]
struct Cases {
    case: Vec<Case>,
}

/// All cases of a folder, in the order of their files.
pub(crate) fn cases(folder: &str) -> Vec<Case> {
    let folder = format!("{}/{folder}", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    let read = |path| {
        let text = std::fs::read_to_string(path).expect("a file");
        toml::from_str::<Cases>(&text).unwrap_or_else(|error| panic!("{error}")).case
    };
    files.iter().flat_map(read).collect()
}

impl Case {
    /// The bytes: a character is a byte, `{70000*x}` stands for as many of them.
    fn bytes(&self) -> Vec<u8> {
        let mut text = self.send.clone();
        while let Some((from, to, repeated)) = repetition(&text) {
            text.replace_range(from..to, &repeated);
        }
        text.chars().map(|char| u8::try_from(u32::from(char)).expect("a byte")).collect()
    }
}

fn repetition(text: &str) -> Option<(usize, usize, String)> {
    text.match_indices('{').find_map(|(from, _)| {
        let (inside, _) = text[from + 1..].split_once('}')?;
        let (times, what) = inside.split_once('*')?;
        Some((from, from + inside.len() + 2, what.repeat(times.parse().ok()?)))
    })
}

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Back {
    pub(crate) text: String,
    pub(crate) closed: bool,
    reset: bool,
}

impl Back {
    /// The statuses, in order, without those of 1xx.
    pub(crate) fn statuses(&self) -> Vec<u16> {
        let versions = self.text.split("HTTP/1.").skip(1);
        let statuses = versions.filter_map(|rest| rest.get(2..5)?.parse().ok());
        statuses.filter(|status| *status >= 200).collect()
    }
}

/// Sends the bytes on a connection of their own and reads as long as `waits` says that more may come; `None`: enough.
pub(crate) async fn sends(to: SocketAddr, case: &Case, waits: impl Fn(&Back) -> Option<Duration>) -> Back {
    let (mut read, mut write) = TcpStream::connect(to).await.expect("a connection").into_split();
    let (bytes, half) = (case.bytes(), case.half);
    // At the same time: who is refused in the middle gets no farther with sending.
    let sending = tokio::spawn(async move {
        let _refused = write.write_all(&bytes).await;
        if half {
            let _ended = write.shutdown().await;
        }
        write
    });
    let (mut back, mut piece) = (Back::default(), [0; 4096]);
    while let Some(patience) = waits(&back) {
        match tokio::time::timeout(patience, read.read(&mut piece)).await {
            Err(_) => break,
            Ok(Ok(0)) => back.closed = true,
            Ok(Err(_)) => (back.closed, back.reset) = (true, true),
            Ok(Ok(count)) => {
                back.text.push_str(&String::from_utf8_lossy(&piece[..count]));
                continue;
            }
        }
        break;
    }
    sending.abort();
    back
}

/// What is wrong with this, in words.
fn judges(case: &Case, back: &Back, seen: &crate::support::recorder::Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    let statuses = back.statuses();
    if let Some(answers) = &case.answers {
        // Who goes on sending after a refusal may lose it to a reset.
        let lost = statuses.is_empty() && back.reset && answers.iter().all(|status| *status >= 400);
        if statuses != *answers && !lost {
            wrong.push(format!("answers {statuses:?} instead of {answers:?}"));
        }
    }
    let whole = seen.requests.len();
    let only_errors = statuses.iter().all(|status| *status >= 400);
    if whole != case.upstream.unwrap_or(if only_errors { 0 } else { whole }) {
        wrong.push(format!("{whole} requests upstream: {:?}", seen.requests));
    }
    if case.closes && !back.closed {
        wrong.push("the connection stays open".to_owned());
    }
    wrong.extend(seen.doubts.iter().map(|doubt| format!("a strict reader says: {doubt}")));
    let heads = seen.requests.concat();
    wrong.extend(
        case.sees.iter().filter(|text| !heads.contains(*text)).map(|text| format!("no {text:?} in {heads}")),
    );
    let small = heads.to_ascii_lowercase();
    let never = case.never.iter().map(String::as_str).chain(["get /smuggled"]);
    wrong.extend(never.filter(|text| small.contains(text)).map(|text| format!("{text:?} in {heads}")));
    wrong
}

/// Sends each case on a connection of its own to iiif-mender before this recorder; what is wrong, in words.
pub(crate) async fn sends_all(cases: &[Case], edge: &Edge, recorder: &Recorder) -> Vec<String> {
    let mut wrong = Vec::new();
    for case in cases {
        let wanted = case.answers.as_ref().map_or(0, Vec::len);
        let waits = |back: &Back| {
            let count = back.statuses().len();
            // What must come, or must end, has all the time it needs; for what must not come a moment is waited.
            match case {
                _ if case.closes || count < wanted => Some(Duration::from_secs(10)),
                _ if wanted > 0 && back.text.ends_with("ok") => None,
                _ => Some(Duration::from_millis(400)),
            }
        };
        let back = sends(edge.address(), case, waits).await;
        let seen = recorder.takes();
        let judged = judges(case, &back, &seen);
        if !judged.is_empty() {
            wrong.push(format!("{}: {}", case.name, judged.join("; ")));
        }
    }
    wrong
}

/// iiif-mender before a strict reader, with a route of images and a plain one.
pub(crate) async fn before(recorder: &Recorder) -> Edge {
    let routes = [
        route("/iiif/2/", &format!("{}/iiif/2/", recorder.url()), "image", ""),
        route("/", &format!("{}/", recorder.url()), "plain", ""),
    ];
    Edge::routed(&routes.concat(), "heal.enabled = false").await
}

#[tokio::test]
async fn no_bytes_become_two_requests_or_one_that_can_be_read_in_two_ways() {
    let cases = cases("tests/hostile/cases");
    assert!(cases.len() >= 150, "{}", cases.len());
    let recorder = Recorder::start().await;
    let edge = before(&recorder).await;
    let wrong = sends_all(&cases, &edge, &recorder).await;
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert_eq!(edge.get("/still-there").await.status, 200);
    if std::env::var_os("IIIF_MENDER_HOSTILE_COMPARE").is_some() {
        crate::support::recorder::compares(&cases, edge.address(), &recorder).await;
    }
}
