//! Images and canvases by names of every form: with slashes, in the query, with spaces and letters beyond ASCII.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use iiif_mender::app::App;
use percent_encoding::percent_decode_str;
use serde_json::json;
use testbed::{Client, Flow, Kind, Origin};

use crate::support::edge::{Edge, route};
use crate::support::world::{checked, library_before, patiently, visited_book};

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// As a client writes it.
fn encoded(image: &str) -> String {
    image.replace(' ', "%20").replace('é', "%C3%A9")
}

/// An image server and a canvas service in one: an image is there once its canvas was asked for, by the spelling of its
/// manifest and by no other, and on its own route.
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
            there.lock().unwrap().insert((*image).to_owned());
            let canvas = canvas_of(image, bare);
            return Origin::answer(
                200,
                &[("content-type", "application/json")],
                Flow::sized(canvas.to_string()),
            );
        }
        let is_asked = |image: &String| {
            let folder = if image.contains("?IIIF=") { "cgi" } else { "images" };
            seen.target.starts_with(&format!("/{folder}/{}/", encoded(image)))
        };
        if there.lock().unwrap().iter().any(is_asked) {
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

fn configure(folder: &Path, origin: &Origin, books: &[(&str, &str)]) -> String {
    let canvases: Vec<_> = books.iter().map(|(image, canvas)| canvas_of(image, canvas)).collect();
    let manifest = json!({ "@id": "https://lib.test/svc/m", "@type": "sc:Manifest", "sequences": [{ "canvases": canvases }] });
    std::fs::write(folder.join("m.json"), manifest.to_string()).expect("a file");
    let at = origin.url();
    let library = library_before(&at);
    format!(
        r#"{library}
        [[routes]]
        prefix = "/fcgi-bin/"
        upstream = "{at}/cgi/"
        kind = "image"
        [[index.sources]]
        path = "m.json"
        "#
    )
}

async fn world(folder: &Path, origin: &Origin, books: &[(&str, &str)], more: &str) -> App {
    let text = configure(folder, origin, books);
    let app = App::start(checked(folder, &text, more)).await.expect("it starts");
    patiently("the index is built", || app.index.stats().expect("an index").images == books.len() as u64)
        .await;
    let known = |(image, _): &(&str, &str)| !app.index.owners(&decoded(image)).expect("an index").is_empty();
    patiently("the images are known", || books.iter().all(known)).await;
    app
}

/// Where a client asks for a small picture.
fn tile(app: &App, image: &str) -> String {
    let path =
        encoded(&image_url(image)).replace("https://lib.test", &format!("http://{}", app.addresses[0]));
    format!("{path}/full/64,/0/default.jpg")
}

/// Each image is asked for as the manifest writes it, as a client does; its own canvas alone is asked for, and built beside
/// what is stored, once.
async fn heals(books: &[(&'static str, &'static str)]) {
    let (origin, alive) = library(books.to_vec());
    let folder = tempfile::tempdir().expect("a directory");
    let app = world(folder.path(), &origin, books, "heal.ahead = 0").await;
    let client = Client::default();
    let mut met = 0;
    for (image, canvas) in books {
        let answer = client.get(&tile(&app, image), &[]).await.expect("an answer");
        assert_eq!(answer.status, 200, "{image}: {:?}", answer.headers);
        let status = answer.header("heal-status");
        assert!(status.starts_with("healed; rung="), "{image}: {:?}", answer.headers);
        assert!(alive.lock().expect("a lock").contains(*image));
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

/// Libraries whose identifiers are written in one way each, as servers want them.
const LIBRARIES: [&[(&str, &str)]; 4] = [
    &[("vol1/f1", "canvas/1"), ("vol2/f1", "canvas/2"), ("vol1/deep/er/f é", "canvas/3"), ("f1", "canvas/4")],
    &[("vol1%2Ff1", "canvas/1"), ("vol2%2Ff1", "canvas/2"), ("a%252Fb", "canvas/3"), ("ir i;2", "canvas/4")],
    &[
        ("iipsrv.fcgi?IIIF=vol1/f1.tif", "canvas/1"),
        ("iipsrv.fcgi?IIIF=vol2/f é.tif", "canvas/2"),
        ("iipsrv.fcgi?IIIF=/abs/f.tif", "canvas/3"),
        ("iipsrv.fcgi?IIIF=f", "canvas/4"),
    ],
    &[
        ("vol1/f1", "canvas/1"),
        ("iipsrv.fcgi?IIIF=vol1/f1", "canvas/2"),
        ("iriée", "canvas/3"),
        ("iipsrv.fcgi?IIIF=vol2/f1", "canvas/4"),
    ],
];

/// Which canvases were asked for, each once for each time.
fn canvases(origin: &Origin) -> Vec<String> {
    let targets = origin.seen().into_iter().map(|seen| decoded(&seen.target));
    let canvases = targets.filter_map(|target| {
        let canvas = target.strip_prefix("/service/canvas/")?;
        Some(canvas.split('?').next().unwrap_or(canvas).to_owned())
    });
    canvases.collect()
}

/// Every image came back, and for none of them a canvas was asked for that had been asked for in the same way.
fn is_whole(origin: &Origin, alive: &Mutex<BTreeSet<String>>, books: &[(&str, &str)]) -> bool {
    let asked = canvases(origin).len();
    // Asked for beside once, and once plainly until it is known that this service does not do that.
    assert!(asked <= 2 * books.len(), "{:?}", canvases(origin));
    alive.lock().expect("a lock").len() == books.len()
}

#[tokio::test]
async fn keep_warm_and_the_pages_ahead_ask_for_each_image_by_its_own_url() {
    for books in LIBRARIES {
        for warm in [true, false] {
            let (origin, alive) = library(books.to_vec());
            let folder = tempfile::tempdir().expect("a directory");
            let more =
                if warm { "index.sources.0.warm = 200ms\nheal.sweep_rate = 1000" } else { "heal.ahead = 3" };
            let app = world(folder.path(), &origin, books, more).await;
            if !warm {
                let healed = Client::default().get(&tile(&app, books[0].0), &[]).await.expect("an answer");
                assert_eq!(healed.status, 200, "{books:?}");
            }
            patiently("all are back", || is_whole(&origin, &alive, books)).await;
            // Those that are there are known to be there: no canvas is asked for any more.
            let before = canvases(&origin).len();
            let rounds = origin.seen().len();
            if warm {
                patiently("another round", || origin.seen().len() >= rounds + 3 * books.len()).await;
            }
            assert_eq!(canvases(&origin).len(), before, "{books:?}");
        }
    }
}

#[tokio::test]
async fn a_sweep_asks_for_each_image_by_its_own_url() {
    for books in LIBRARIES {
        let (origin, alive) = library(books.to_vec());
        let folder = tempfile::tempdir().expect("a directory");
        let position = folder.path().join("iiif-mender.sqlite3.sweep");
        drop(world(folder.path(), &origin, books, "heal.ahead = 0").await);
        // One that was interrupted at its beginning.
        std::fs::write(&position, "0\n").expect("a file");
        let _app = world(folder.path(), &origin, books, "heal.sweep = true\nheal.sweep_rate = 1000").await;
        patiently("all are back", || is_whole(&origin, &alive, books)).await;
        patiently("it ends", || !position.exists()).await;
    }
}

#[tokio::test]
async fn batch_asks_for_each_image_by_its_own_url() {
    for books in LIBRARIES {
        let (origin, alive) = library(books.to_vec());
        let folder = tempfile::tempdir().expect("a directory");
        let text = configure(folder.path(), &origin, books);
        std::fs::write(folder.path().join("config.toml"), text).expect("a file");
        let run = async |command: &str| {
            let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_iiif-mender"));
            program.args(["--config", "config.toml", command, "m.json", "--json"]).current_dir(folder.path());
            let ended = program.kill_on_drop(true).output().await.expect("it ends");
            let told = String::from_utf8_lossy(&ended.stdout).into_owned();
            let json: serde_json::Value = serde_json::from_str(&told)
                .unwrap_or_else(|error| panic!("{error}: {told} {}", String::from_utf8_lossy(&ended.stderr)));
            let images = json["images"].as_array().expect("images").clone();
            images
                .iter()
                .map(|image| image["before"].as_str().unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(run("check").await, vec!["expired"; books.len()], "{books:?}");
        assert_eq!(run("heal").await, vec!["expired"; books.len()], "{books:?}");
        assert!(is_whole(&origin, &alive, books), "{books:?}: {:?}", canvases(&origin));
        assert!(run("check").await.is_empty(), "{books:?}: {:?}", origin.seen());
    }
}

#[tokio::test]
async fn spellings_arrive_byte_for_byte_and_a_heal_asks_again_with_the_same_bytes() {
    let world = visited_book(1, "").await;
    let page = world.bed.page();
    let rests = [
        "full/!200,200/0/default.jpg",
        "full/%21200%2C200/0/default.jpg",
        "0%2c0%2C256%2C256/64,/0/default.jpg?t=%2F%20;x",
        "full/^!90,90/!0/default.jpg",
        "pct:0,0,50,50/,90/0/gray.png",
    ];
    for rest in rests {
        world.bed.expires_everything();
        world.bed.ledger.clear();
        let path = page.image_path(rest);
        let answer = world.get(&path).await;
        world.settles().await;
        let targets = world.bed.targets(Kind::Image);
        assert!(targets.contains(&path), "{path}: {targets:?}");
        if answer.header("heal-status").starts_with("healed") {
            assert!(targets.iter().filter(|target| **target == path).count() >= 2, "{targets:?}");
        }
        // Nothing but what the viewer asked for, and our own looks at small tiles.
        assert!(targets.iter().all(|target| target.starts_with("/iiif/2/")), "{targets:?}");
    }
    let origin = Origin::fixed(404, "no");
    let images = route("/iiif/2/", &format!("{}/iiif/2/", origin.url()), "image", "");
    let edge = Edge::routed(&images, "heal.enabled = false").await;
    let identifiers =
        ["x.jpg", "x.JPG", "s3:%2F%2Fbucket%2fkey.tif", "a%20b", "%E2%9C%93", "fedora:a;1", "a%2Cb"];
    for (count, identifier) in identifiers.iter().enumerate() {
        let path = format!("/iiif/2/{identifier}/full/!200,200/0/default.jpg");
        assert_eq!(edge.get(&path).await.text(), "no");
        let seen = origin.seen();
        assert_eq!((seen.len(), &seen[count].target), (count + 1, &path), "asked once, and for this");
    }
}
