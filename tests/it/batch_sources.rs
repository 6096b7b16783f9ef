//! SOURCE: whatever a person has at hand.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use testbed::Testbed;

use crate::support::batch_world::Batch;

async fn images(batch: &Batch, source: &str) -> u64 {
    let checked = batch.run(&["check", source, "--json"]).await;
    assert_eq!(checked.code, 0, "{source}: {}{}", checked.stdout, checked.stderr);
    checked.json()["totals"]["images"].as_u64().expect("a number")
}

#[tokio::test]
async fn everything_that_names_images_is_a_source() {
    let bed = Testbed::builder().book("obj/one", 3).book("obj/two", 2).pdf("obj/pdf", 2).page_size(64, 64);
    let batch = Batch::over(bed.start().await);
    let page = &batch.bed.pages()[1];
    let public = "https://api.library.tamu.edu";
    let state = format!(
        r#"{{"type":"Annotation","target":{{"id":"{}#xywh=0,0,1,1","type":"Canvas"}}}}"#,
        page.canvas_url
    );
    let link = format!("https://viewer.org/?iiif-content={}", URL_SAFE_NO_PAD.encode(&state));
    for (source, expected) in [
        ("manifests".to_owned(), 7),
        ("manifests/obj_one.json".to_owned(), 3),
        (format!("{public}{}", page.presentation_path), 3),
        (page.canvas_url.clone(), 1),
        (format!("{public}{}", page.image_path("full/full/0/default.jpg")), 1),
        (format!("{public}/iiif/2/{}/info.json", page.identifier), 1),
        (format!("{public}/iiif/2/{}", page.identifier), 1),
        (page.identifier.clone(), 1),
        (batch.bed.pages_of("obj/pdf")[1].identifier.clone(), 1),
        (link, 1),
        (state, 1),
    ] {
        assert_eq!(images(&batch, &source).await, expected, "{source}");
    }
    let all = batch.run(&["check", "--json"]).await;
    assert_eq!(all.json()["totals"]["images"], 7);
    assert_eq!(batch.bed.counts().canvas, 0);
}

#[tokio::test]
async fn a_collection_on_somebody_elses_site_is_followed_on_that_site_and_nowhere_else() {
    let batch = Batch::book(3).await;
    let stranger = testbed::Origin::fixed(200, "{}");
    let (manifest, elsewhere) = (batch.bed.manifest_json("obj/book"), stranger.url());
    let site = testbed::Origin::start(move |seen| {
        let home = format!("http://{}", seen.header("host"));
        let body = match seen.path() {
            "/all.json" => format!(
                r#"{{"type":"Collection","id":"{home}/all.json","items":[
                    {{"type":"Manifest","id":"{home}/book.json"}},{{"type":"Manifest","id":"{elsewhere}/x.json"}}]}}"#
            ),
            _ => manifest.clone(),
        };
        testbed::Origin::answer(200, &[("content-type", "application/json")], testbed::Flow::sized(body))
    });
    let checked = batch.run(&["check", &format!("{}/all.json", site.url()), "--json"]).await;
    assert_eq!(checked.json()["totals"]["images"], 3, "{}{}", checked.stdout, checked.stderr);
    assert_eq!(checked.code, 1, "the member that was not followed is named: {}", checked.stdout);
    assert!(stranger.seen().is_empty());
}

#[tokio::test]
async fn a_canvas_named_twice_is_worked_on_once() {
    let batch = Batch::book(3).await;
    batch.bed.expires_everything();
    let page = batch.bed.page();
    let healed =
        batch.run(&["heal", "manifests", "manifests/obj_book.json", &page.canvas_url, "--json"]).await;
    assert_eq!(healed.json()["totals"]["images"], 3);
    assert_eq!(batch.bed.counts().canvas, 3);
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_the_others_still_run() {
    let batch = Batch::book(3).await;
    std::fs::write(batch.file("torn.json"), "{\"@id\": ").expect("a file");
    std::fs::write(batch.file("other.json"), "{\"name\": 1}").expect("a file");
    std::fs::create_dir(batch.file("empty")).expect("a directory");
    batch.bed.expires_everything();
    let bad =
        ["nowhere.json", "torn.json", "other.json", "empty", "no-such-thing", "https://example.org/m.json"];
    let mut args = vec!["heal", "--json", "manifests"];
    args.extend(bad);
    let healed = batch.run(&args).await;
    assert_eq!(healed.code, 2);
    let problems = healed.json()["problems"].as_array().expect("problems").clone();
    let named: Vec<_> =
        problems.iter().map(|problem| problem["source"].as_str().unwrap_or_default()).collect();
    assert_eq!(named, bad);
    assert_eq!(healed.json()["totals"]["healed"], 3);
}

#[tokio::test]
async fn a_broken_file_in_a_directory_is_something_broken_and_not_wrong_usage() {
    let batch = Batch::book(3).await;
    std::fs::write(batch.file("manifests/torn.json"), "{\"@id\": ").expect("a file");
    let checked = batch.run(&["check", "manifests"]).await;
    assert_eq!(checked.code, 1);
    assert!(checked.stdout.contains("not read: manifests/torn.json"), "{}", checked.stdout);
}

#[tokio::test]
async fn a_manifest_without_a_canvas_is_something_broken_and_its_neighbours_without_images_are_not() {
    let batch = Batch::book(3).await;
    let mut poisoned: serde_json::Value =
        serde_json::from_str(&batch.bed.manifest_json("obj/book")).expect("JSON");
    poisoned["@id"] = "https://api.library.tamu.edu/iiif-service/fedora/presentation/obj/other".into();
    poisoned["sequences"][0]["canvases"] = serde_json::json!([]);
    std::fs::write(batch.file("poisoned.json"), poisoned.to_string()).expect("a file");
    let checked = batch.run(&["check", "poisoned.json"]).await;
    assert_eq!(checked.code, 1, "{}", checked.stdout);
    assert!(checked.stdout.contains("it names no canvas"), "{}", checked.stdout);
    // Text of a page, and a table of contents: documents of IIIF's that never show an image.
    let page = r#"{"id": "https://a.test/ocr/1", "type": "AnnotationPage", "items": []}"#;
    std::fs::write(batch.file("manifests/ocr.json"), page).expect("a file");
    let range = r#"{"@id": "https://a.test/r/1", "@type": "sc:Range", "canvases": ["https://a.test/c/1"]}"#;
    std::fs::write(batch.file("manifests/range.json"), range).expect("a file");
    assert_eq!(images(&batch, "manifests").await, 3);
}

#[tokio::test]
async fn an_empty_index_says_what_to_do() {
    let batch = Batch::book(1).await;
    std::fs::remove_file(batch.file("iiif-mender.sqlite3")).expect("an index");
    let checked = batch.run(&["check"]).await;
    assert_eq!(checked.code, 2);
    assert!(checked.stdout.contains("index build"), "{}", checked.stdout);
}

#[tokio::test]
async fn a_running_iiif_mender_does_the_mending_via_its_url() {
    let world = crate::support::world::World::with("heal.ladder = visit,rebuild\nheal.ahead = 0").await;
    let batch = Batch::over(Testbed::start().await);
    world.bed.expires_everything();
    let via = world.url("");
    let healed = batch.run(&["heal", "--via", &via, "--json"]).await;
    assert_eq!(healed.code, 0, "{}{}", healed.stdout, healed.stderr);
    // One key serves all three pages of the PDF: whoever comes second may find it back already.
    let pages = world.bed.pages().len();
    assert!((pages - 2..=pages).contains(&healed.verdicts().len()), "{}", healed.stdout);
    world.settles().await;
    assert_eq!(batch.bed.counts().canvas, 0);
    assert!(world.bed.counts().canvas >= 7);
}
