//! Manifests that are hosted elsewhere and indexed from files are served here, with images that heal.

use iiif_mender::index::learn::DocumentLearner;
use iiif_mender::index::sources::refresh::Refresh;
use std::io::Write as _;
use std::path::Path;

use http::Method;
use serde_json::Value;
use testbed::{Fetched, Testbed};

use crate::support::world::{World, patiently};

const ON: &str = "presentation.manifests = true";
const HOME: &str = "https://tamulib-dc-labs.github.io/manifests";

/// A world whose sources also hold manifests of Presentation 3 that live on a static site.
async fn world(more: &str) -> World {
    let bed = Testbed::builder().book("obj/book", 3).single("obj/single").page_size(64, 64).start().await;
    World::over(bed, &format!("{ON}\n{more}")).await
}

fn stored(world: &World) -> usize {
    world.app.index.stored_count().expect("an index")
}

/// Adds a file to the sources and has them looked at.
async fn adds(world: &World, name: &str, text: impl AsRef<[u8]>) {
    let before = stored(world);
    std::fs::write(world.folder.path().join("manifests").join(name), text).expect("a file");
    Refresh::new(&world.app.index, &iiif_mender::index::sources::RefreshOptions::default())
        .run(&sources(world), &mut |_, _| {})
        .expect("an index");
    patiently("it is indexed", || stored(world) > before).await;
}

fn sources(world: &World) -> Vec<iiif_mender::config::settings::SourceSettings> {
    world.app.index.sources(&[]).expect("an index")
}

async fn collection(world: &World) -> Value {
    let answer = world.get("/manifests/").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    answer.json()
}

/// The path here of the manifest whose label is this.
async fn path_of(world: &World, label: &str) -> String {
    let listed = collection(world).await;
    let items = listed["items"].as_array().expect("items").clone();
    let item =
        items.into_iter().find(|item| item["label"]["none"][0] == label).expect("a manifest of this label");
    let id = item["id"].as_str().expect("an id").to_owned();
    id.split_once("/manifests/").map(|(_, name)| format!("/manifests/{name}")).expect("one of ours")
}

async fn get(world: &World, path: &str) -> Fetched {
    world.get(path).await
}

#[tokio::test]
async fn a_manifest_of_a_static_site_is_served_here_and_its_images_heal() {
    let world = world("rewrite.public_url = https://iiif.example.edu").await;
    let p3 = world.bed.manifest_json_p3("obj/book");
    adds(&world, "p3.json", &p3).await;
    let path = path_of(&world, "obj/book").await;
    let answer = get(&world, &path).await;
    assert_eq!(answer.text(), p3.replace("https://api.library.tamu.edu", "https://iiif.example.edu"));
    let image = answer.json()["items"][0]["items"][0]["items"][0]["body"]["id"]
        .as_str()
        .expect("an image")
        .to_owned();
    let tile = image.strip_prefix("https://iiif.example.edu").expect("our host");
    assert_eq!(get(&world, tile).await.status, 200);
    let listed = collection(&world).await;
    assert_eq!(
        (listed["id"].clone(), listed["type"].clone()),
        ("https://iiif.example.edu/manifests/".into(), "Collection".into())
    );
}

#[tokio::test]
async fn without_another_host_a_stored_manifest_is_its_file_byte_for_byte() {
    let world = world("").await;
    let p3 = world.bed.manifest_json_p3("obj/book");
    adds(&world, "p3.json", &p3).await;
    let path = path_of(&world, "obj/book").await;
    let answer = get(&world, &path).await;
    assert_eq!((answer.text(), answer.header("content-type")), (p3, "application/json"));
    let tag = answer.header("etag").to_owned();
    let again = world.get_with(&path, &[("if-none-match", &tag)]).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    let head = world.client.send(Method::HEAD, &world.url(&path), &[]).await.expect("an answer");
    assert_eq!((head.status, head.header("etag")), (200, &*tag));
    let options = world.client.send(Method::OPTIONS, &world.url(&path), &[]).await.expect("an answer");
    assert_eq!((options.status, options.header("access-control-allow-origin")), (204, "*"));
    let posted = world.client.send(Method::POST, &world.url(&path), &[]).await.expect("an answer");
    assert_eq!((posted.status, posted.header("allow")), (405, "GET, HEAD, OPTIONS"));
}

#[tokio::test]
async fn a_manifest_that_is_packed_or_in_another_coding_is_served_as_text() {
    for more in ["", "\nrewrite.public_url = https://iiif.example.edu", "\npresentation.max_body = 1KiB"] {
        let world = world(more).await;
        let p3 = world.bed.manifest_json_p3("obj/book");
        let mut expected = p3.clone();
        if more.contains("example.edu") {
            expected = p3.replace("https://api.library.tamu.edu", "https://iiif.example.edu");
        }
        let mut packing = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packing.write_all(p3.as_bytes()).expect("memory");
        let packed = packing.finish().expect("memory");
        adds(&world, "p3.json.gz", &packed).await;
        let path = path_of(&world, "obj/book").await;
        let answer = get(&world, &path).await;
        if more.contains("max_body") {
            // It is not held to be unpacked, but says what it is.
            assert_eq!((answer.header("content-encoding"), &*answer.body), ("gzip", &*packed), "{more}");
            continue;
        }
        assert_eq!((answer.text(), answer.header("content-encoding")), (expected.clone(), ""), "{more}");
        let head = world.client.send(Method::HEAD, &world.url(&path), &[]).await.expect("an answer");
        assert_eq!((head.status, head.header("content-encoding")), (200, ""), "{more}");
        let wide = p3.encode_utf16().flat_map(u16::to_le_bytes);
        let wide: Vec<u8> = [0xff, 0xfe].into_iter().chain(wide).collect();
        std::fs::write(world.folder.path().join("manifests/p3.json.gz"), wide).expect("a file");
        assert_eq!(get(&world, &path).await.text(), expected, "{more}");
    }
}

#[tokio::test]
async fn a_stored_manifest_longer_than_is_held_is_streamed_and_rewritten_all_the_same() {
    let world = world("rewrite.public_url = https://iiif.example.edu\npresentation.max_body = 1KiB").await;
    let p3 = world.bed.manifest_json_p3("obj/book");
    adds(&world, "p3.json", &p3).await;
    let answer = get(&world, &path_of(&world, "obj/book").await).await;
    assert_eq!(answer.text(), p3.replace("https://api.library.tamu.edu", "https://iiif.example.edu"));
}

#[tokio::test]
async fn nothing_but_what_is_indexed_from_files_is_served() {
    use base64::Engine as _;
    let world = world("").await;
    let name = |uri: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(uri);
    let config = world.folder.path().join("config.toml").display().to_string();
    let passed = format!("{HOME}/obj/passed.json");
    let learned = world.bed.manifest_json_p3("obj/book").replace(&format!("{HOME}/obj/book.json"), &passed);
    let (document, canvases) = iiif_mender::iiif::manifest::read(learned.as_bytes()).expect("a manifest");
    DocumentLearner::new(&world.app.index).document(&document, &canvases, &passed).expect("it is learned");
    let unknown = [
        name("http://localhost/elsewhere.json"),
        name("http://169.254.169.254/latest/meta-data"),
        name("file:///etc/passwd"),
        name("/etc/passwd"),
        name(&config),
        // Learned from what passed through: no file of ours.
        name(&passed),
        "..%2fconfig.toml".to_owned(),
        "%2e%2e/config.toml".to_owned(),
        "no_book.json".to_owned(),
        "****".to_owned(),
        "?page=2".to_owned(),
        "?page=0".to_owned(),
    ];
    for name in unknown {
        let answer = get(&world, &format!("/manifests/{name}")).await;
        assert_eq!(answer.status, 404, "{name}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_file_that_became_a_link_out_of_its_source_is_not_served() {
    let world = world("").await;
    adds(&world, "p3.json", &world.bed.manifest_json_p3("obj/book")).await;
    let path = path_of(&world, "obj/book").await;
    let file = world.folder.path().join("manifests/p3.json");
    std::fs::remove_file(&file).expect("a file");
    std::os::unix::fs::symlink(Path::new("/etc/hostname"), &file).expect("a link");
    assert_eq!(get(&world, &path).await.status, 404);
}

#[tokio::test]
async fn a_large_collection_comes_in_parts() {
    let world = world("").await;
    let text = world.bed.manifest_json_p3("obj/single");
    let folder = world.folder.path().join("manifests");
    for number in 0..1_005 {
        let other = text.replace(&format!("{HOME}/obj/single.json"), &format!("{HOME}/{number:05}.json"));
        std::fs::write(folder.join(format!("n{number}.json")), other).expect("a file");
    }
    adds(&world, "last.json", &text).await;
    patiently("all are indexed", || stored(&world) > 1_005).await;
    let listed = collection(&world).await;
    let parts: Vec<_> =
        listed["items"].as_array().expect("items").iter().map(|item| item["type"].clone()).collect();
    assert_eq!(parts, ["Collection", "Collection"]);
    let mut all = 0;
    for part in listed["items"].as_array().expect("items") {
        let url = part["id"].as_str().expect("an id");
        let answer = world.client.get(url, &[]).await.expect("an answer").json();
        assert_eq!((&answer["id"], &answer["partOf"][0]["id"]), (&part["id"], &listed["id"]));
        all += answer["items"].as_array().expect("items").len();
    }
    assert_eq!(all, stored(&world));
}

#[tokio::test]
async fn without_the_gateway_the_path_is_like_any_other() {
    let world = World::start().await;
    let answer = world.get("/manifests/").await;
    assert_ne!(answer.json()["type"], "Collection");
}

#[tokio::test]
async fn manifests_are_listed_by_the_names_of_their_files_and_found_by_their_ids_as_before() {
    let world = world("").await;
    let p3 = world.bed.manifest_json_p3("obj/book");
    std::fs::create_dir_all(world.folder.path().join("manifests/year 1936")).expect("a folder");
    adds(&world, "year 1936/minutes.json", &p3).await;
    let path = path_of(&world, "obj/book").await;
    assert_eq!(path, "/manifests/year%201936/minutes.json");
    assert_eq!(get(&world, &path).await.text(), p3);
    let by_id = base64::engine::Engine::encode(
        &base64::engine::general_purpose::URL_SAFE_NO_PAD,
        p3.parse::<Value>().expect("JSON")["id"].as_str().expect("an id"),
    );
    assert_eq!(get(&world, &format!("/manifests/{by_id}")).await.text(), p3);
    // A name is compared with what the index knows: it never becomes a path.
    std::fs::write(world.folder.path().join("secret.json"), "{}").expect("a file");
    let absolute = world.folder.path().join("manifests/year 1936/minutes.json");
    for name in [
        "../secret.json",
        "..%2fsecret.json",
        "year%201936/../../secret.json",
        "year%201936",
        "minutes.json",
        "%00",
    ] {
        let answer = get(&world, &format!("/manifests/{name}")).await;
        assert!([400, 404].contains(&answer.status), "{name}: {}", answer.text());
    }
    let absolute = absolute.to_str().expect("text").replace(' ', "%20");
    assert_eq!(get(&world, &format!("/manifests/{absolute}")).await.status, 404);
}
