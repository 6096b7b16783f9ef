//! Sources on the web and on disk: walked politely, asked again cheaply, and never believed blindly.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use iiif_mender::config::settings::{Settings, SourceSettings};
use iiif_mender::index::Index;
use iiif_mender::index::sources::build::Build;
use iiif_mender::index::sources::refresh::Refresh;
use iiif_mender::index::sources::{RefreshOptions, RefreshReport};
use iiif_mender::upstream::fetch::FetcherFactory;
use serde_json::{Value, json};
use testbed::{Flow, Origin, Seen};

mod hosts;
mod links;
mod pause;
mod stream;

/// An index that can fetch. `refresh` is called as `serve` does: off the runtime.
struct Bench {
    index: Arc<Index>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut settings = Settings::default();
        settings.upstream.first_byte_timeout = Duration::from_secs(5);
        change(&mut settings);
        let index =
            Index::open(&folder.path().join("index.sqlite3"), 1000).expect("an index").with_names(&settings);
        let web = FetcherFactory::new(Arc::new(settings)).expect("TLS");
        let index = Arc::new(index.with_web(web, tokio::runtime::Handle::current()));
        Self { index, _folder: folder }
    }

    async fn refresh(&self, source: &SourceSettings) -> RefreshReport {
        self.refresh_with(source, RefreshOptions::default().grace).await
    }

    async fn refresh_with(&self, source: &SourceSettings, grace: Duration) -> RefreshReport {
        let (index, source) = (Arc::clone(&self.index), source.clone());
        let look = move || Refresh::new(&index, &RefreshOptions { grace }).run(&[source], &mut |_, _| {});
        tokio::task::spawn_blocking(look).await.expect("no panic").expect("an index")
    }

    async fn build(&self, source: &SourceSettings) -> RefreshReport {
        let (index, source) = (Arc::clone(&self.index), source.clone());
        let look = move || Build::new(&index, &RefreshOptions::default()).run(&[source], &mut |_, _| {});
        tokio::task::spawn_blocking(look).await.expect("no panic").expect("an index")
    }

    fn owners(&self, key: &str) -> Vec<String> {
        self.index.owners(key).expect("an index").iter().map(|owner| owner.canvas.clone()).collect()
    }
}

/// A source without a pace, so that tests do not wait.
fn source(origin: &Origin, path: &str) -> SourceSettings {
    SourceSettings { rate: 0, ..SourceSettings::url(format!("{}{path}", origin.url())) }
}

fn manifest(name: &str, images: &[&str]) -> Value {
    let canvas = |(at, image): (usize, &&str)| {
        json!({"@id": format!("https://x.test/canvas/{name}/{at}"), "@type": "sc:Canvas", "images": [{
            "resource": {"service": {"@id": format!("https://x.test/iiif/2/{image}")}}}]})
    };
    let canvases: Vec<Value> = images.iter().enumerate().map(canvas).collect();
    json!({"@id": format!("https://x.test/{name}"), "@type": "sc:Manifest", "sequences": [{"canvases": canvases}]})
}

fn answer(value: &Value) -> Response<Flow> {
    Origin::answer(200, &[("content-type", "application/json")], Flow::chunked(value.to_string()))
}

/// `http://{host}` as the request named it: links lead back to the same origin.
fn here(seen: &Seen) -> String {
    format!("http://{}", seen.header("host"))
}

fn targets(origin: &Origin) -> Vec<String> {
    let mut all: Vec<String> = origin.seen().into_iter().map(|seen| seen.target).collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_collection_is_walked_through_every_kind_of_link_and_each_document_is_asked_once() {
    let origin = Origin::start(|seen| {
        let here = here(seen);
        match seen.path() {
            "/top" => answer(&json!({"@id": format!("{here}/top"), "@type": "sc:Collection",
                "collections": [{"@id": format!("{here}/three"), "@type": "sc:Collection"}, format!("{here}/paged")],
                "manifests": [{"@id": format!("{here}/m/a"), "@type": "sc:Manifest"}],
                "members": [{"@id": format!("{here}/m/b"), "@type": "sc:Manifest"},
                            {"@id": format!("{here}/top"), "@type": "sc:Collection"}]})),
            "/three" => answer(&json!({"id": format!("{here}/three"), "type": "Collection", "items": [
                {"id": format!("{here}/m/c"), "type": "Manifest"}, {"id": format!("{here}/m/a"), "type": "Manifest"},
                {"id": format!("{here}/top"), "type": "Collection"}]})),
            "/paged" => answer(&json!({"@id": format!("{here}/paged"), "@type": "sc:Collection",
                "first": format!("{here}/page/1")})),
            "/page/1" => answer(&json!({"@id": format!("{here}/page/1"), "@type": "sc:Collection",
                "manifests": [{"@id": format!("{here}/m/d")}], "next": {"@id": format!("{here}/page/2")}})),
            "/page/2" => answer(&json!({"@id": format!("{here}/page/2"), "@type": "sc:Collection",
                "manifests": [{"@id": format!("{here}/m/e#fragment")}]})),
            path => {
                let name = path.rsplit('/').next().expect("a name");
                answer(&manifest(name, &[name]))
            }
        }
    });
    let bench = Bench::new();
    let report = bench.refresh(&source(&origin, "/top")).await;
    assert_eq!(report.problems, []);
    assert_eq!((report.manifests, report.images, report.skipped), (5, 5, 5));
    for name in ["a", "b", "c", "d", "e"] {
        assert_eq!(bench.owners(name), [format!("https://x.test/canvas/{name}/0")]);
    }
    let all = ["/m/a", "/m/b", "/m/c", "/m/d", "/m/e", "/page/1", "/page/2", "/paged", "/three", "/top"];
    assert_eq!(targets(&origin), all);
    assert_eq!(origin.seen()[0].header("user-agent"), concat!("iiif-mender/", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn a_packed_file_is_read_although_its_server_does_not_say_that_it_is_packed() {
    let origin = Origin::start(|seen| {
        let mut packing = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packing.write_all(manifest("a", &["a"]).to_string().as_bytes()).expect("memory");
        let packed = packing.finish().expect("memory");
        let kind = if seen.path().ends_with('2') { "application/json" } else { "application/gzip" };
        Origin::answer(200, &[("content-type", kind)], Flow::sized(packed))
    });
    for path in ["/a.json.gz", "/a2"] {
        let bench = Bench::new();
        let report = bench.refresh(&source(&origin, path)).await;
        assert_eq!((report.problems, report.images), (Vec::new(), 1), "{path}");
        assert_eq!(bench.owners("a"), ["https://x.test/canvas/a/0"]);
    }
}

#[tokio::test]
async fn collections_without_an_end_are_left_at_a_depth_and_what_was_known_there_stays() {
    let origin = Origin::start(|seen| {
        let deeper = format!("{}{}x", here(seen), seen.path());
        answer(&json!({"@id": "c", "@type": "sc:Collection", "collections": [{"@id": deeper}]}))
    });
    let bench = Bench::new();
    let report = bench.refresh(&source(&origin, "/")).await;
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert!(report.problems[0].message.contains("more than 16 deep"), "{:?}", report.problems);
    assert_eq!(origin.seen().len(), 17);
    let again = bench.refresh_with(&source(&origin, "/"), Duration::ZERO).await;
    assert_eq!((again.vanished, again.dropped), (0, 0));
}

#[tokio::test]
async fn an_unchanged_manifest_costs_a_304_or_a_comparison_and_no_write() {
    let origin = Origin::start(|seen| match seen.path() {
        "/c" => answer(&json!({"@id": "c", "@type": "sc:Collection",
            "manifests": (["a", "b", "c"].map(|name| format!("{}/{name}x", here(seen))))})),
        "/ax" if seen.header("if-none-match") == "\"1\"" => {
            Origin::answer(304, &[("etag", "\"1\"")], Flow::sized(""))
        }
        "/ax" => Origin::answer(200, &[("etag", "\"1\"")], Flow::sized(manifest("a", &["a"]).to_string())),
        "/bx" if seen.header("if-modified-since") == "Sun, 22 Nov 2026 10:00:00 GMT" => {
            Origin::answer(304, &[], Flow::sized(""))
        }
        "/bx" => Origin::answer(
            200,
            &[("last-modified", "Sun, 22 Nov 2026 10:00:00 GMT")],
            Flow::sized(manifest("b", &["b"]).to_string()),
        ),
        _ => answer(&manifest("c", &["c"])),
    });
    let bench = Bench::new();
    let of = source(&origin, "/c");
    assert_eq!(bench.refresh(&of).await.manifests, 3);
    for _ in 0..2 {
        let again = bench.refresh(&of).await;
        assert_eq!((again.manifests, again.unchanged, again.problems.len()), (0, 3, 0));
    }
    let built = bench.build(&of).await;
    assert_eq!(
        (built.manifests, built.unchanged, built.vanished),
        (0, 3, 0),
        "a build keeps what is unchanged"
    );
    assert_eq!(bench.refresh(&of).await.unchanged, 3, "with its validators");
    for name in ["a", "b", "c"] {
        assert_eq!(bench.owners(name).len(), 1, "{name}");
    }
    let conditional = origin.seen().iter().filter(|seen| !seen.header("if-none-match").is_empty()).count();
    assert_eq!(conditional, 4);
}

#[tokio::test]
async fn a_manifest_that_left_its_collection_is_kept_for_the_grace() {
    let is_short = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let short = Arc::clone(&is_short);
    let origin = Origin::start(move |seen| match seen.path() {
        "/c" => {
            let all =
                if short.load(std::sync::atomic::Ordering::SeqCst) { vec!["b"] } else { vec!["a", "b"] };
            let all: Vec<String> = all.iter().map(|name| format!("{}/{name}", here(seen))).collect();
            answer(&json!({"@id": "c", "@type": "sc:Collection", "manifests": all}))
        }
        path => answer(&manifest(&path[1..], &[&path[1..]])),
    });
    let bench = Bench::new();
    let of = source(&origin, "/c");
    bench.refresh(&of).await;
    is_short.store(true, std::sync::atomic::Ordering::SeqCst);
    let report = bench.refresh_with(&of, Duration::ZERO).await;
    assert_eq!((report.vanished, report.dropped), (1, 0), "never at once");
    assert_eq!(bench.owners("a").len(), 1);
    assert_eq!(bench.build(&of).await.vanished, 1, "nor by a build");
    assert_eq!(bench.refresh_with(&of, Duration::ZERO).await.dropped, 1);
    assert!(bench.owners("a").is_empty());
    assert_eq!(bench.owners("b").len(), 1);
}

/// A collection of documents that all are good at first, and then bad in ways of their own.
fn good_or_bad(seen: &Seen, is_bad: bool) -> Response<Flow> {
    let name = seen.path()[1..].to_owned();
    let good = manifest(&name, &[&name, "more"]).to_string();
    if name == "c" {
        let all =
            ["404", "500", "html", "short", "cut", "gzip", "other", "poorer", "circle", "away", "scheme"];
        let all: Vec<String> = all.iter().map(|name| format!("{}/{name}", here(seen))).collect();
        return answer(&json!({"@id": "c", "@type": "sc:Collection", "manifests": all}));
    }
    if !is_bad {
        return Origin::answer(200, &[], Flow::sized(good));
    }
    let redirect = |to: &str| Origin::answer(302, &[("location", to)], Flow::sized(""));
    match &*name {
        "404" => Origin::answer(404, &[], Flow::sized("no")),
        "500" => Origin::answer(500, &[], Flow::sized("{}")),
        "html" => Origin::answer(200, &[("content-type", "text/html")], Flow::sized("<html>login</html>")),
        "short" => Origin::answer(200, &[], Flow::sized(good[..good.len() - 9].to_owned())),
        "cut" => Origin::answer(200, &[], Flow::sized(good).cut_after(50)),
        "gzip" => Origin::answer(200, &[("content-encoding", "gzip")], Flow::sized("no gzip")),
        "other" => Origin::answer(200, &[], Flow::sized("{\"name\": \"viewer\"}")),
        "poorer" => Origin::answer(200, &[], Flow::sized(manifest("poorer", &["poorer"]).to_string())),
        "circle" => redirect("/circle"),
        "away" => redirect("http://169.254.169.254/latest/meta-data"),
        _ => redirect("file:///etc/passwd"),
    }
}

#[tokio::test]
async fn bad_answers_are_problems_with_url_and_hint_and_what_was_known_is_kept() {
    let is_bad = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let bad = Arc::clone(&is_bad);
    let origin = Origin::start(move |seen| good_or_bad(seen, bad.load(std::sync::atomic::Ordering::SeqCst)));
    let bench = Bench::new();
    let of = source(&origin, "/c");
    assert_eq!(bench.refresh(&of).await.manifests, 11);
    is_bad.store(true, std::sync::atomic::Ordering::SeqCst);
    let report = bench.refresh_with(&of, Duration::from_hours(1)).await;
    let told = |name: &str| {
        let problem = report.problems.iter().find(|problem| problem.path.ends_with(&format!("/{name}")));
        let problem = problem.unwrap_or_else(|| panic!("{name}: {:#?}", report.problems));
        assert!(!problem.hint.is_empty());
        problem.message.clone()
    };
    for (name, expected) in [
        ("404", "404 Not Found"),
        ("500", "500 Internal Server Error"),
        ("html", "web page"),
        ("short", "EOF"),
        ("cut", "cannot be read"),
        ("gzip", "unpacking"),
        ("other", "neither a manifest nor a collection"),
        ("poorer", "it names 1 images; the index knows 2"),
        ("circle", "leads on and on"),
        ("away", "another host"),
        ("scheme", "file:///etc/passwd is not a URL that can be fetched"),
    ] {
        assert!(told(name).contains(expected), "{name}: {}", told(name));
        assert_eq!(bench.owners(name).len(), 1, "{name} is still known");
    }
    assert_eq!((report.problems.len(), report.dropped), (11, 0));
    // What lost images for longer than the grace is believed.
    assert_eq!(bench.index.owners("more").expect("an index").len(), 11);
    let later = bench.refresh_with(&of, Duration::ZERO).await;
    assert_eq!((later.manifests, later.problems.len()), (1, 10));
}

#[tokio::test]
async fn a_source_that_is_down_forgets_nothing() {
    let origin = Origin::start(|seen| match seen.path() {
        "/c" => {
            answer(&json!({"@id": "c", "@type": "sc:Collection", "manifests": [format!("{}/a", here(seen))]}))
        }
        _ => answer(&manifest("a", &["a"])),
    });
    let bench = Bench::new();
    let of = source(&origin, "/c");
    bench.refresh(&of).await;
    origin.goes_down().await;
    for _ in 0..2 {
        let report = bench.refresh_with(&of, Duration::ZERO).await;
        assert_eq!((report.problems.len(), report.vanished, report.dropped), (1, 0, 0));
        assert!(report.problems[0].message.contains("cannot connect"), "{:?}", report.problems);
    }
    assert_eq!(bench.build(&of).await.problems.len(), 1);
    assert_eq!(bench.owners("a").len(), 1);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_left_after_the_timeout() {
    let origin = Origin::fixed(200, "never sent");
    origin.stalls();
    let bench = Bench::with(|settings| settings.upstream.first_byte_timeout = Duration::from_millis(50));
    let report = bench.refresh(&source(&origin, "/m")).await;
    assert!(report.problems[0].message.contains("no answer in time"), "{:?}", report.problems);
    origin.releases();
}
