//! Images and canvases by names of every form: with slashes, in the query, with spaces and letters beyond ASCII.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use iiif_mender::app::App;
use percent_encoding::percent_decode_str;
use serde_json::json;
use testbed::{Client, Flow, Origin};

use crate::world::{checked, patiently};

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// An image server and a canvas service in one: an image is there once its canvas was asked for.
fn library(books: Vec<(&'static str, &'static str)>) -> (Origin, Arc<Mutex<BTreeSet<String>>>) {
    let alive = Arc::new(Mutex::new(BTreeSet::new()));
    let there = Arc::clone(&alive);
    let origin = Origin::start(move |seen| {
        let target = decoded(&seen.target);
        if let Some(canvas) = target.strip_prefix("/service/") {
            let bare = canvas.split('?').next().unwrap_or(canvas);
            let Some((image, _)) = books.iter().find(|(_, name)| *name == bare) else {
                return Origin::answer(500, &[], Flow::sized("{}"));
            };
            there.lock().unwrap().insert(decoded(image));
            let canvas = canvas_of(image, bare);
            return Origin::answer(
                200,
                &[("content-type", "application/json")],
                Flow::sized(canvas.to_string()),
            );
        }
        let is_there =
            there.lock().unwrap().iter().any(|image| target.starts_with(&format!("/images/{image}/")));
        if is_there {
            Origin::answer(200, &[("content-type", "image/jpeg")], Flow::sized("a picture"))
        } else {
            Origin::answer(404, &[("content-type", "text/plain")], Flow::sized("not found"))
        }
    });
    (origin, alive)
}

fn image_url(image: &str) -> String {
    let route = if image.contains("?IIIF=") { "fcgi-bin" } else { "iiif/2" };
    format!("https://lib.test/{route}/{image}")
}

fn canvas_of(image: &str, canvas: &str) -> serde_json::Value {
    json!({
        "@id": format!("https://lib.test/svc/{canvas}"), "@type": "sc:Canvas", "height": 9, "width": 9,
        "images": [{ "@type": "oa:Annotation", "resource": {
            "@id": format!("{}/full/full/0/default.jpg", image_url(image)), "@type": "dctypes:Image",
            "service": { "@id": image_url(image), "profile": "http://iiif.io/api/image/2/level2.json" } } }],
    })
}

async fn world(folder: &Path, origin: &Origin, books: &[(&str, &str)]) -> App {
    let canvases: Vec<_> = books.iter().map(|(image, canvas)| canvas_of(image, canvas)).collect();
    let manifest = json!({ "@id": "https://lib.test/svc/m", "@type": "sc:Manifest", "sequences": [{ "canvases": canvases }] });
    std::fs::write(folder.join("m.json"), manifest.to_string()).expect("a file");
    let at = origin.url();
    let text = format!(
        r#"
        [server]
        listen = "127.0.0.1:0"
        public_hosts = ["lib.test"]
        [admin]
        listen = "127.0.0.1:0"
        [[routes]]
        prefix = "/iiif/2/"
        upstream = "{at}/images/"
        kind = "image"
        [[routes]]
        prefix = "/fcgi-bin/"
        upstream = "{at}/images/"
        kind = "image"
        [[routes]]
        prefix = "/svc/"
        upstream = "{at}/service/"
        kind = "presentation"
        [[index.sources]]
        path = "m.json"
        "#
    );
    let app = App::start(checked(folder, &text, "heal.ahead = 0")).await.expect("it starts");
    patiently("the index is built", || app.index.stats().expect("an index").images == books.len() as u64)
        .await;
    let known = |(image, _): &(&str, &str)| !app.index.owners(&decoded(image)).expect("an index").is_empty();
    patiently("the images are known", || books.iter().all(known)).await;
    app
}

/// Each image is asked for as the manifest writes it, as a client does; its own canvas alone is asked for, and built beside
/// what is stored, once.
async fn heals(books: &[(&'static str, &'static str)]) {
    let (origin, alive) = library(books.to_vec());
    let folder = tempfile::tempdir().expect("a directory");
    let app = world(folder.path(), &origin, books).await;
    let client = Client::default();
    let mut met = 0;
    for (image, canvas) in books {
        let path = image_url(image).replace("https://lib.test", &format!("http://{}", app.addresses[0]));
        let path = path.replace(' ', "%20").replace('é', "%C3%A9");
        let answer = client.get(&format!("{path}/full/64,/0/default.jpg"), &[]).await.expect("an answer");
        assert_eq!(answer.status, 200, "{image}: {:?}", answer.headers);
        let status = answer.header("heal-status");
        assert!(status.starts_with("healed; rung="), "{image}: {:?}", answer.headers);
        assert!(alive.lock().expect("a lock").contains(&decoded(image)));
        let asked: Vec<_> = origin.seen().into_iter().map(|seen| decoded(&seen.target)).collect();
        let asked: Vec<_> =
            asked.into_iter().filter(|target| target.starts_with("/service/")).skip(met).collect();
        // Built beside what is stored until it is known that this service does not do that.
        let is_own = |target: &String| target.split('?').next() == Some(&format!("/service/{canvas}"));
        assert!(!asked.is_empty() && asked.iter().all(is_own), "{canvas}: {status} {asked:?}");
        let once: BTreeSet<_> = asked.iter().collect();
        assert_eq!(once.len(), asked.len(), "{canvas}: {status} {asked:?}");
        met += asked.len();
    }
}

#[tokio::test]
async fn identifiers_with_slashes_heal_each_by_its_own_canvas() {
    heals(&[("vol1/f1", "canvas/1"), ("vol2/f1", "canvas/2"), ("vol3%2Ff1", "canvas/3"), ("f1", "canvas/4")])
        .await;
}

#[tokio::test]
async fn identifiers_in_the_query_heal() {
    heals(&[("iipsrv.fcgi?IIIF=vol1/f1.tif", "canvas/1"), ("iipsrv.fcgi?IIIF=vol2/f1.tif", "canvas/2")])
        .await;
}

#[tokio::test]
async fn canvases_whose_names_a_client_must_encode_heal() {
    heals(&[
        ("a", "canvas/ir i-1"),
        ("b", "canvas/irié-2"),
        ("c", "canvas/ü ber/Straße"),
        ("ir i", "canvas/{x}"),
    ])
    .await;
}
