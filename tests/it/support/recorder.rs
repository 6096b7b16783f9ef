//! An upstream that reads as strictly as RFC 9112 allows, and keeps what it read; and others before it, to compare with.
#![allow(clippy::print_stdout, reason = "figures, for those who ask with --nocapture")]

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::cluster_world::free_port;
use super::program::KilledOnDrop;
use crate::hostile::{Back, Case, sends};

/// What arrived since it was last asked.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The heads of whole requests.
    pub(crate) requests: Vec<String>,
    /// Why a strict reader would refuse what arrived.
    pub(crate) doubts: Vec<String>,
}

/// On port 0 of 127.0.0.1; ends with the test's runtime.
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Recorder {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::<Mutex<Seen>>::default();
        let kept = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(records(stream, Arc::clone(&kept)));
            }
        });
        Self { address, seen }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn takes(&self) -> Seen {
        std::mem::take(&mut self.seen.lock().expect("a lock"))
    }
}

async fn records(mut stream: TcpStream, seen: Arc<Mutex<Seen>>) {
    let (mut bytes, mut piece) = (Vec::new(), [0; 8192]);
    loop {
        match request(&bytes) {
            Ok(Some((head, length))) => {
                bytes.drain(..length);
                let body = if head.starts_with("HEAD ") { "" } else { "ok" };
                seen.lock().expect("a lock").requests.push(head);
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}");
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(None) => {}
            Err(doubt) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                seen.lock().expect("a lock").doubts.push(format!("{doubt}: {text:?}"));
                return;
            }
        }
        match stream.read(&mut piece).await {
            Ok(count) if count > 0 => bytes.extend_from_slice(&piece[..count]),
            // In the middle or not: a request that was cut is none.
            _ => return,
        }
    }
}

/// The first request, if it is whole: its head, and where it ends. A mistake is an error.
fn request(bytes: &[u8]) -> Result<Option<(String, usize)>, &'static str> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = &bytes[..end + 2];
    let head: String = head.iter().map(|byte| char::from(*byte)).collect();
    let mut lines = head.strip_suffix("\r\n").unwrap_or(&head).split("\r\n");
    is_request_line(lines.next().unwrap_or_default())?;
    let (mut hosts, mut length, mut chunked) = (0, None, false);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or("a field without a colon")?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err("a field name that is no token");
        }
        if value.chars().any(|char| char < ' ' && char != '\t' || char == '\x7f') {
            return Err("a control byte in a field");
        }
        let value = value.trim_matches([' ', '\t']);
        match &*name.to_ascii_lowercase() {
            "host" => hosts += 1,
            "content-length" if length.is_some() => return Err("two lengths"),
            "content-length" if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err("a length that is no number");
            }
            "content-length" => length = Some(value.parse::<usize>().map_err(|_| "a length too long")?),
            "transfer-encoding" if chunked => return Err("two codings"),
            "transfer-encoding" if value != "chunked" => return Err("a coding that is not chunked"),
            "transfer-encoding" => chunked = true,
            _ => {}
        }
    }
    if hosts != 1 {
        return Err("not one Host");
    }
    let from = end + 4;
    match (length, chunked) {
        (Some(_), true) => Err("a length and chunks"),
        (Some(length), false) => Ok((bytes.len() >= from + length).then_some((head, from + length))),
        (None, false) => Ok(Some((head, from))),
        (None, true) => Ok(chunks(&bytes[from..])?.map(|length| (head, from + length))),
    }
}

fn is_request_line(line: &str) -> Result<(), &'static str> {
    let parts: Vec<_> = line.split(' ').collect();
    let [method, target, "HTTP/1.1" | "HTTP/1.0"] = parts[..] else { return Err("not a request line") };
    let plain = |byte: u8| byte > b' ' && byte != 0x7f;
    let is_good = !method.is_empty() && method.bytes().all(is_token);
    (is_good && target.starts_with('/') && target.bytes().all(plain))
        .then_some(())
        .ok_or("not a request line")
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The length of a whole chunked body without extensions.
fn chunks(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    let mut at = 0;
    loop {
        let Some(end) = bytes[at..].windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&bytes[at..at + end]).map_err(|_| "a chunk's size")?;
        if size.is_empty() || size.len() > 8 || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("a chunk's size");
        }
        let size = usize::from_str_radix(size, 16).map_err(|_| "a chunk's size")?;
        let data = at + end + 2;
        if bytes.len() < data + size + 2 {
            return Ok(None);
        }
        if size > 0 && &bytes[data + size..data + size + 2] != b"\r\n" {
            return Err("a chunk without an end");
        }
        if size == 0 {
            // Trailers may stand here; ours go no further.
            return if &bytes[data..data + 2] == b"\r\n" { Ok(Some(data + 2)) } else { Err("a trailer") };
        }
        at = data + size + 2;
    }
}

/// nginx and HAProxy in their own foreground, before the recorder, with nothing but what forwarding takes.
fn others(folder: &std::path::Path, upstream: SocketAddr) -> Vec<(&'static str, KilledOnDrop, SocketAddr)> {
    let (nginx, haproxy) = (free_port(), free_port());
    let at = folder.display();
    let written = [
        (
            "nginx.conf",
            format!(
                "daemon off; pid {at}/pid; error_log /dev/null; worker_processes 1; events {{}}\n\
                 http {{ access_log off; client_body_temp_path {at}; proxy_temp_path {at}; fastcgi_temp_path {at};\n\
                 uwsgi_temp_path {at}; scgi_temp_path {at}; server {{ listen 127.0.0.1:{nginx};\n\
                 location / {{ proxy_pass http://{upstream}; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n"
            ),
        ),
        (
            "haproxy.cfg",
            format!(
                "defaults\n mode http\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n\
                 frontend f\n bind 127.0.0.1:{haproxy}\n default_backend b\nbackend b\n server s {upstream}\n"
            ),
        ),
    ];
    for (name, text) in &written {
        std::fs::write(folder.join(name), text).expect("a file");
    }
    let start = |program: &str, arguments: &[&str]| {
        let command = Command::new(program)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        KilledOnDrop(command.unwrap_or_else(|error| panic!("{program}: {error}")))
    };
    let config = folder.join("nginx.conf");
    vec![
        (
            "nginx",
            start("nginx", &["-p", ".", "-c", config.to_str().expect("text")]),
            ([127, 0, 0, 1], nginx).into(),
        ),
        ("haproxy", start("haproxy", &["-f", "haproxy.cfg", "-db"]), ([127, 0, 0, 1], haproxy).into()),
    ]
}

/// Prints what each makes of the same bytes: answers → whole requests upstream, `!` where a strict reader has doubts.
pub(crate) async fn compares(cases: &[Case], ours: SocketAddr, recorder: &Recorder) {
    let folder = tempfile::tempdir().expect("a directory");
    let others = others(folder.path(), recorder.address);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut all = vec![("iiif-mender", ours)];
    all.extend(others.iter().map(|(name, _, address)| (*name, *address)));
    let mut totals = vec![(0, 0, 0, 0); all.len()];
    for case in cases {
        let mut row = Vec::new();
        for ((_, address), total) in all.iter().zip(&mut totals) {
            let back = sends(*address, case, |_: &Back| Some(Duration::from_millis(250))).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            let seen = recorder.takes();
            let statuses = back.statuses();
            let smuggled = seen.requests.iter().any(|head| head.contains(" /smuggled "));
            total.0 += usize::from(seen.requests.is_empty());
            total.1 += usize::from(!seen.requests.is_empty());
            total.2 += usize::from(!seen.doubts.is_empty());
            total.3 += usize::from(smuggled);
            let doubt = if seen.doubts.is_empty() { "" } else { "!" };
            let second = if smuggled { "+smuggled" } else { "" };
            let cell = format!("{statuses:?}→{}{doubt}{second}", seen.requests.len());
            row.push(format!("{cell:22}"));
        }
        println!("{:70} {}", case.name, row.join("  "));
    }
    for ((name, _), (refused, passed, doubts, smuggled)) in all.iter().zip(totals) {
        println!(
            "{name:12} refused {refused}, passed on {passed}, in doubt {doubts}, a second request behind the first {smuggled}"
        );
    }
}
