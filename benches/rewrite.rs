//! What it costs to name another host in a long manifest: `cargo bench --bench rewrite`.

#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "figures are printed")]
#![allow(clippy::expect_used, clippy::panic, reason = "a bench that does not do what it measures must stop")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iiif_mender::config::Settings;
use iiif_mender::presentation::{RewriteRule, Rewriter};

const SIZE: usize = 50 << 20;
const OLD: &str = "https://api.library.tamu.edu";
const NEW: &str = "https://iiif.example.edu";
const ROUNDS: usize = 7;

const CONFIG: &str = r#"
[server]
public_hosts = ["api.library.tamu.edu"]
[rewrite]
public_url = "https://iiif.example.edu"
[[routes]]
prefix = "/"
upstream = "http://a.example/"
"#;

/// A manifest of Presentation 2 as the canvas service writes it: a URL in every hundred bytes.
fn manifest() -> String {
    let mut text = String::with_capacity(SIZE + 4096);
    text.push_str("{\"sequences\" : [ {\n  \"canvases\" : [ ");
    let mut page = 0;
    while text.len() < SIZE {
        page += 1;
        let _infallible = write!(
            text,
            r#"{{
    "@id" : "{OLD}/iiif-service/fedora/canvas/obj/book/pages/page_{page}",
    "@type" : "sc:Canvas", "height" : 1600, "width" : 1200, "label" : [ "Page {page}", "page_{page}" ],
    "images" : [ {{ "@id" : "{OLD}/iiif/2/54279531-f638-32f0-b3ed-12faa8d0a007/info.json",
      "@type" : "oa:Annotation", "motivation" : "sc:painting",
      "on" : "{OLD}/iiif-service/fedora/canvas/obj/book/pages/page_{page}",
      "resource" : {{ "@id" : "{OLD}/iiif/2/54279531-f638-32f0-b3ed-12faa8d0a007/full/full/0/default.jpg",
        "@type" : "dctypes:Image", "format" : "image/jpeg", "service" : {{
          "label" : "Fedora IIIF Image Resource Service", "profile" : "http://iiif.io/api/image/2/level0.json",
          "@context" : "http://iiif.io/api/image/2/context.json",
          "@id" : "{OLD}/iiif/2/54279531-f638-32f0-b3ed-12faa8d0a007" }} }} }} ] }}, "#
        );
    }
    text.push_str("] } ] }");
    text
}

fn rewritten(rewrite: &Arc<RewriteRule>, text: &[u8], piece: usize) -> (usize, Duration) {
    let began = Instant::now();
    let mut rewriter = Rewriter::new(Arc::clone(rewrite));
    let mut size = 0;
    for piece in text.chunks(piece) {
        // As the body does it: a fresh buffer for each piece, which goes out and is gone.
        let mut out = Vec::with_capacity(piece.len() + piece.len() / 16);
        rewriter.push(piece, &mut out);
        size += black_box(&out).len();
    }
    let mut out = Vec::new();
    rewriter.finish(&mut out);
    (size + out.len(), began.elapsed())
}

fn main() {
    let none: [(String, String); 0] = [];
    let settings = Settings::from_text(Path::new("config.toml"), CONFIG, none);
    let settings = settings.unwrap_or_else(|errors| panic!("{errors:#}"));
    let rewrite = RewriteRule::of(&settings).expect("a host to rewrite");
    let text = manifest();
    let expected = text.replace(OLD, NEW).len();
    println!("{} MB, {} URLs of ours", text.len() / 1_000_000, text.matches(OLD).count());
    for piece in [1_400, 16 << 10, 256 << 10, text.len()] {
        let mut times: Vec<Duration> = (0..ROUNDS)
            .map(|_| {
                let (size, took) = rewritten(&rewrite, text.as_bytes(), piece);
                assert_eq!(size, expected);
                took
            })
            .collect();
        times.sort_unstable();
        let median = times[ROUNDS / 2];
        let speed = text.len() as f64 / 1e6 / median.as_secs_f64();
        println!("pieces of {piece:>9} bytes: {speed:>6.0} MB/s on one core (median of {ROUNDS})");
    }
}
