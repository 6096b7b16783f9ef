//! iiif-mender under another host than the one that stands in the manifests.

use std::io::Write as _;

use http::Method;
use testbed::{Client, Fetched, Flow, Origin, Testbed};

use crate::support::world::{World, patiently, settings, visited_book};
use iiif_mender::app::App;
use iiif_mender::index::learn::DocumentLearner;

const ON: &str = "rewrite.public_url = https://iiif.example.edu";
const OLD: &str = "https://api.library.tamu.edu";
const NEW: &str = "https://iiif.example.edu";

/// iiif-mender before an origin of the test's choice.
async fn before(
    more: &str,
    answer: impl Fn() -> http::Response<Flow> + Send + Sync + 'static,
) -> (App, Origin, tempfile::TempDir) {
    let origin = Origin::start(move |_| answer());
    let folder = tempfile::tempdir().expect("a folder");
    let settings =
        settings(folder.path(), &origin.url(), &origin.url(), &format!("index.sources = []\n{more}"));
    (App::start(settings).await.expect("it starts"), origin, folder)
}

async fn ask(app: &App, method: Method, path: &str, fields: &[(&str, &str)]) -> Fetched {
    let url = format!("http://{}{path}", app.addresses[0]);
    Client::default().send(method, &url, fields).await.expect("an answer")
}

async fn get(app: &App, path: &str) -> Fetched {
    ask(app, Method::GET, path, &[]).await
}

#[tokio::test]
async fn manifests_and_canvases_name_the_host_that_the_viewer_knows() {
    let world = World::with(ON).await;
    let page = world.bed.page();
    for (path, direct) in [
        (&page.presentation_path, world.bed.manifest_json("obj/minutes")),
        (&page.canvas_path, world.bed.canvas_json(&page.path)),
    ] {
        for fields in
            [&[][..], &[("cookie", "a=b")], &[("accept-encoding", "gzip, br")], &[("range", "bytes=0-9")]]
        {
            let ours = world.get_with(path, fields).await;
            assert_eq!(ours.text(), direct.replace(OLD, NEW), "{path} {fields:?}");
            assert_eq!(ours.status, 200);
            assert!(!ours.text().contains(OLD));
        }
    }
}

#[tokio::test]
async fn info_json_and_its_redirect_name_it_too_whoever_asks_by_whichever_name() {
    let world = World::with(ON).await;
    let page = world.bed.page();
    let info = world.get(&page.info_path()).await;
    assert_eq!(info.json()["@id"], format!("{NEW}/iiif/2/{}", page.identifier));
    let base = world.get(&format!("/iiif/2/{}", page.identifier)).await;
    assert_eq!(
        (base.status, base.header("location").to_owned()),
        (303, format!("{NEW}{}", page.info_path()))
    );
    let tile = world.get(&page.image_path("full/16,/0/default.jpg")).await;
    assert!(tile.header("link").starts_with(&format!("<{NEW}/iiif/2/")), "{}", tile.header("link"));
    assert_eq!(tile.body, page.picture("full/16,/0/default.jpg"));
}

#[tokio::test]
async fn without_another_name_nothing_is_touched_and_info_json_names_the_host_it_was_asked_by() {
    let world = World::start().await;
    let page = world.bed.page();
    assert_eq!(world.get(&page.presentation_path).await.text(), world.bed.manifest_json("obj/minutes"));
    let info = world.get_with(&page.info_path(), &[("host", "api.library.tamu.edu")]).await;
    assert_eq!(info.json()["@id"], format!("http://api.library.tamu.edu/iiif/2/{}", page.identifier));
}

#[tokio::test]
async fn what_expired_is_healed_and_what_passes_is_learned_under_its_own_name() {
    let bed = Testbed::builder().book("obj/book", 3).page_size(64, 64).start().await;
    let world = World::over(bed, &format!("{ON}\nindex.sources = []")).await;
    let page = world.bed.page();
    world.get(&page.presentation_path).await;
    let owners = || world.app.index.owners(&page.identifier).expect("an index");
    patiently("it is learned", || !owners().is_empty()).await;
    assert_eq!(owners()[0].canvas, page.canvas_url);
    world.bed.expires_everything();
    let tile = world.get(&page.image_path("full/16,/0/default.jpg")).await;
    assert!(tile.header("heal-status").starts_with("healed"), "{:?}", tile.headers);
}

#[tokio::test]
async fn a_manifest_kept_under_our_other_name_heals_as_well() {
    let bed = Testbed::builder().book("obj/book", 3).page_size(64, 64).start().await;
    let world = World::over(bed, &format!("{ON}\nindex.sources = []\nheal.ladder = visit,rebuild")).await;
    let page = world.bed.page();
    let kept = world.bed.manifest_json("obj/book").replace(OLD, NEW);
    let (document, canvases) = iiif_mender::iiif::manifest::read(kept.as_bytes()).expect("a manifest");
    DocumentLearner::new(&world.app.index).document(&document, &canvases, "kept").expect("it is learned");
    world.bed.expires_everything();
    let tile = world.get(&page.image_path("full/16,/0/default.jpg")).await;
    assert!(tile.header("heal-status").starts_with("healed; rung=visit"), "{:?}", tile.headers);
}

/// A document with a URL at every place of many pieces.
fn long() -> String {
    let items: Vec<_> = (0..20_000).map(|n| format!(r#"{{"id":"{OLD}/iiif/2/{n}","n":{n}}}"#)).collect();
    format!("[{}]", items.join(",\n"))
}

#[tokio::test]
async fn a_document_that_is_only_streamed_is_rewritten_across_its_pieces() {
    let typed = [("content-type", "application/ld+json"), ("etag", "\"1\""), ("accept-ranges", "bytes")];
    let more = format!("{ON}\npresentation.max_body = 64KiB");
    let (app, _origin, _folder) =
        before(&more, move || Origin::answer(200, &typed, Flow::sized(long()))).await;
    for path in ["/iiif-service/x", "/elsewhere/x.json"] {
        let ours = get(&app, path).await;
        assert!(ours.text() == long().replace(OLD, NEW), "{path}");
        assert_eq!((ours.header("etag"), ours.header("accept-ranges")), ("W/\"1\"", ""));
        let head = ask(&app, Method::HEAD, path, &[]).await;
        assert_eq!((head.header("content-length"), head.header("etag")), ("", "W/\"1\""));
    }
}

#[tokio::test]
async fn a_document_that_comes_packed_all_the_same_is_rewritten_unpacked() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(long().as_bytes()).expect("memory");
    let packed = gzip.finish().expect("memory");
    let typed = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let (app, _origin, _folder) =
        before(ON, move || Origin::answer(200, &typed, Flow::sized(packed.clone()))).await;
    for path in ["/iiif-service/x", "/elsewhere/x.json"] {
        let ours = get(&app, path).await;
        assert!(ours.text() == long().replace(OLD, NEW), "{path}");
        assert_eq!(ours.header("content-encoding"), "");
    }
}

#[tokio::test]
async fn what_is_no_json_keeps_its_body_and_is_asked_for_as_the_viewer_did() {
    let page = format!("<a href='{OLD}/x'>");
    let typed = [
        ("content-type", "text/html"),
        ("location", "https://api.library.tamu.edu/y"),
        ("link", "<https://api.library.tamu.edu.evil/z>"),
    ];
    let body = page.clone();
    let (app, origin, _folder) =
        before(ON, move || Origin::answer(200, &typed, Flow::sized(body.clone()))).await;
    let ours =
        ask(&app, Method::GET, "/elsewhere", &[("accept-encoding", "br"), ("range", "bytes=0-")]).await;
    assert_eq!(
        (ours.text(), ours.header("content-length").to_owned()),
        (page.clone(), page.len().to_string())
    );
    assert_eq!(ours.header("location"), "https://iiif.example.edu/y");
    assert_eq!(ours.header("link"), "<https://api.library.tamu.edu.evil/z>");
    let seen = &origin.seen()[0];
    assert_eq!((seen.header("accept-encoding"), seen.header("range")), ("br", "bytes=0-"));
    assert_eq!(
        (seen.header("x-forwarded-host"), seen.header("x-forwarded-port")),
        ("iiif.example.edu", "443")
    );
}

#[tokio::test]
async fn a_body_that_breaks_is_never_a_clean_short_one() {
    let typed = [("content-type", "application/json")];
    let more = format!("{ON}\npresentation.max_body = 1KiB");
    let (app, _origin, _folder) =
        before(&more, move || Origin::answer(200, &typed, Flow::sized(long()).cut_after(100_000))).await;
    let url = format!("http://{}/iiif-service/x", app.addresses[0]);
    assert!(Client::default().get(&url, &[]).await.is_err());
}

#[tokio::test]
async fn a_healed_info_json_names_the_host_that_the_viewer_asked() {
    for (trusted, host) in [("127.0.0.0/8", Some("iiif.example.org")), ("192.0.2.0/24", None)] {
        let world = visited_book(1, &format!("server.trusted_proxies = {trusted}")).await;
        let page = world.bed.page();
        world.bed.expires_everything();
        world.bed.restart_image_server();
        let fields = [
            ("x-forwarded-host", "iiif.example.org"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "443"),
        ];
        let info = world.get_with(&format!("{}?t=1", page.info_path()), &fields).await;
        assert!(info.header("heal-status").starts_with("healed"), "{:?}", info.headers);
        let base =
            host.map_or(format!("http://{}", world.app.addresses[0]), |host| format!("https://{host}"));
        assert_eq!(info.json()["@id"], format!("{base}/iiif/2/{}", page.identifier));
    }
}
