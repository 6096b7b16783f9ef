//! JSON that the canvas service breaks arrives as JSON; what is not broken arrives byte for byte.

use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use testbed::{Flow, Origin};

use crate::support::world::{World, patiently, settings};
use iiif_mender::app::App;

/// iiif-mender before an origin that answers every request with this document.
async fn before(
    fields: &'static [(&'static str, &'static str)],
    body: Vec<u8>,
) -> (Origin, App, tempfile::TempDir) {
    let origin = Origin::start(move |_| Origin::answer(200, fields, Flow::sized(body.clone())));
    let folder = tempfile::tempdir().expect("a folder");
    let settings = settings(folder.path(), &origin.url(), &origin.url(), "index.sources = []");
    let app = App::start(settings).await.expect("it starts");
    (origin, app, folder)
}

async fn get(app: &App) -> testbed::Fetched {
    testbed::get(&format!("http://{}/iiif-service/fedora/presentation/x", app.addresses[0])).await
}

const JSON: &[(&str, &str)] = &[("content-type", "application/json;charset=UTF-8"), ("etag", "\"1\"")];

#[tokio::test]
async fn a_broken_label_is_repaired_and_all_the_rest_is_as_it_was() {
    let world = World::start().await;
    let page = world.bed.page();
    world.bed.service.broken_json();
    let direct = testbed::get(&format!("{}{}", world.bed.service.origin(), page.presentation_path)).await;
    assert_eq!(direct.json(), Value::Null, "it is broken");
    let ours = world.get(&page.presentation_path).await;
    let (mut mended, mut good) =
        (ours.json(), serde_json::from_str::<Value>(&world.bed.manifest_json("obj/minutes")).expect("JSON"));
    let label = mended["label"][0].as_str().expect("a label").to_owned();
    assert!(label.starts_with("back\\slash \t"), "{label}");
    mended["label"] = json!(null);
    good["label"] = json!(null);
    assert_eq!(mended, good);
    assert_eq!(ours.header("iiif-mender-repaired"), "json");
    assert_eq!(ours.header("content-length"), ours.body.len().to_string());
    assert_eq!(world.events("json_repaired"), 1.0);
}

#[tokio::test]
async fn the_recorded_samples_come_out_as_json() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/samples");
    let mut broken = 0;
    for sample in std::fs::read_dir(folder).expect("the samples") {
        let text = std::fs::read(sample.expect("a file").path()).expect("text");
        let (_origin, app, _folder) = before(JSON, text.clone()).await;
        let ours = get(&app).await;
        let mended: Value = serde_json::from_slice(&ours.body).expect("JSON");
        if let Ok(good) = serde_json::from_slice::<Value>(&text) {
            assert_eq!((mended, &*ours.body, ours.header("iiif-mender-repaired")), (good, &*text, ""));
            assert_eq!(ours.header("etag"), "\"1\"");
        } else {
            broken += 1;
            assert_eq!(ours.header("etag"), "W/\"1\"");
            let text = String::from_utf8(text).expect("UTF-8");
            // What is no string is as it was, character for character.
            let bare =
                |text: &str| text.split('"').step_by(2).collect::<String>().replace(char::is_whitespace, "");
            if !text.contains("\\\"") {
                assert_eq!(bare(&ours.text()), bare(&text));
            }
        }
    }
    assert!(broken >= 2, "{broken} broken samples");
}

#[tokio::test]
async fn what_cannot_be_repaired_passes_unchanged() {
    let cut = br#"{"label": "a manifest that is cut sho"#.to_vec();
    let (_origin, app, _folder) = before(JSON, cut.clone()).await;
    let ours = get(&app).await;
    assert_eq!((ours.header("iiif-mender-repaired"), ours.header("etag"), &*ours.body), ("", "\"1\"", &*cut));
    let hopeless = || app.metrics.scrape().contains(r#"events_total{kind="json_hopeless"} 1"#);
    patiently("it is counted", hopeless).await;
}

#[tokio::test]
async fn what_does_not_say_json_is_not_looked_at() {
    let text = b"a \\label\n".to_vec();
    let (_origin, app, _folder) = before(&[("content-type", "text/plain")], text.clone()).await;
    assert_eq!(&*get(&app).await.body, &*text);
}

#[tokio::test]
async fn a_packed_document_is_repaired_unpacked_and_a_good_one_stays_packed() {
    const PACKED: &[(&str, &str)] = &[("content-type", "application/ld+json"), ("content-encoding", "gzip")];
    let pack = |text: &str| {
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(text.as_bytes()).expect("memory");
        packer.finish().expect("memory")
    };
    let (_origin, app, _folder) = before(PACKED, pack("{\"label\": \"a\tb\"}")).await;
    let ours = get(&app).await;
    assert_eq!((ours.text().as_str(), ours.header("content-encoding")), (r#"{"label": "a\tb"}"#, ""));
    let good = pack(r#"{"label": "ab"}"#);
    let (_origin, app, _folder) = before(PACKED, good.clone()).await;
    let ours = get(&app).await;
    assert_eq!((&*ours.body, ours.header("content-encoding")), (&*good, "gzip"));
}
