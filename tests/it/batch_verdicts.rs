//! check and heal: every verdict, and how many requests they cost.

use testbed::{Flow, Origin, Testbed};

use crate::support::batch_world::Batch;

fn verdict(image: &str, before: &str, now: &str) -> (String, String, String) {
    (image.to_owned(), before.to_owned(), now.to_owned())
}

#[tokio::test]
async fn where_all_is_well_nothing_is_asked_for_and_the_exit_is_0() {
    let batch = Batch::book(12).await;
    let checked = batch.run(&["check"]).await;
    assert_eq!(checked.code, 0, "{}{}", checked.stdout, checked.stderr);
    assert!(checked.stdout.contains("12 images, nothing broken"), "{}", checked.stdout);
    let healed = batch.run(&["heal"]).await;
    assert_eq!(healed.code, 0);
    let counts = batch.bed.counts();
    assert_eq!((counts.healing(), counts.image), (0, 0));
    // One look each, and one more for the deployment.
    assert_eq!(counts.resources, 12 + 12 + 1);
}

#[tokio::test]
async fn exactly_the_expired_half_is_asked_for() {
    let batch = Batch::book(10).await;
    let pages = batch.bed.pages();
    for page in pages.iter().step_by(2) {
        batch.bed.expires(&page.identifier);
    }
    let checked = batch.run(&["check", "--json"]).await;
    assert_eq!(checked.code, 1);
    let mut expected: Vec<_> =
        pages.iter().step_by(2).map(|page| verdict(&page.identifier, "expired", "expired")).collect();
    expected.sort();
    assert_eq!(checked.verdicts(), expected);
    assert_eq!(batch.bed.counts().healing(), 0);

    let healed = batch.run(&["heal", "--json"]).await;
    assert_eq!(healed.code, 0, "{}", healed.stdout);
    assert!(healed.verdicts().iter().all(|(_, before, now)| (&**before, &**now) == ("expired", "ok")));
    let mut asked = batch.bed.targets(testbed::Kind::Visit);
    asked.sort();
    let mut canvases: Vec<_> = pages.iter().step_by(2).map(|page| page.canvas_path.clone()).collect();
    canvases.sort();
    assert_eq!(asked, canvases);
    assert_eq!(healed.json()["asked"], 5);
    assert!(pages.iter().all(|page| batch.bed.redis.has_key(&page.identifier)));
}

#[tokio::test]
async fn a_missing_file_is_told_from_an_expired_image_and_never_rebuilt() {
    let batch = Batch::book(4).await;
    let pages = batch.bed.pages();
    batch.bed.fedora.removes_file(&pages[1].path);
    batch.bed.expires(&pages[2].identifier);
    let healed = batch.run(&["heal", "--tiles", "--json"]).await;
    assert_eq!(healed.code, 1);
    let mut expected = vec![
        verdict(&pages[1].identifier, "missing", "missing"),
        verdict(&pages[2].identifier, "expired", "ok"),
    ];
    expected.sort();
    assert_eq!(healed.verdicts(), expected);
    assert_eq!(batch.bed.counts().canvas, 1);
}

#[tokio::test]
async fn with_resources_closed_a_small_tile_tells_the_truth() {
    let batch = Batch::book(6).await;
    let pages = batch.bed.pages();
    batch.bed.service.closes_resources();
    batch.bed.heats_info();
    batch.bed.expires(&pages[3].identifier);
    let healed = batch.run(&["heal", "--json"]).await;
    assert_eq!(healed.code, 0, "{}", healed.stdout);
    assert_eq!(healed.verdicts(), [verdict(&pages[3].identifier, "expired", "ok")]);
    assert_eq!(batch.bed.counts().canvas, 1);
}

#[tokio::test]
async fn an_image_server_in_trouble_is_an_error_with_its_reason_and_nothing_is_rebuilt() {
    let batch = Batch::book(2).await;
    batch.bed.service.closes_resources();
    batch.bed.images.image_faults(503);
    let healed = batch.run(&["heal", "--json"]).await;
    assert_eq!(healed.code, 1);
    assert!(healed.verdicts().iter().all(|(_, before, _)| before == "error"));
    assert!(healed.stdout.contains("the image server answered 503"), "{}", healed.stdout);
    assert_eq!(batch.bed.counts().healing(), 0);
}

#[tokio::test]
async fn a_web_page_in_the_place_of_a_picture_is_no_good_image() {
    let batch = Batch::book(2).await;
    batch.bed.service.closes_resources();
    batch.bed.images.answers(|seen| {
        let page = Flow::sized("<html>not found</html>");
        seen.path().contains(".jpg").then(|| Origin::answer(200, &[("content-type", "text/html")], page))
    });
    for tiles in [&[][..], &["--tiles"]] {
        let checked = batch.run(&[&["check", "--json"], tiles].concat()).await;
        assert_eq!(checked.code, 1, "{}", checked.stdout);
        assert!(checked.verdicts().iter().all(|(_, before, _)| before == "error"), "{}", checked.stdout);
        assert!(checked.stdout.contains("with a web page in the place of a picture"), "{}", checked.stdout);
    }
}

#[tokio::test]
async fn a_base64_image_is_looked_at_by_its_tile_and_its_404_is_a_missing_file() {
    let batch = Batch::book(2).await;
    let pages = batch.bed.pages();
    std::fs::write(batch.file("p3.json"), batch.bed.manifest_json_p3("obj/book")).expect("a file");
    batch.bed.expires_everything();
    batch.bed.fedora.removes_file(&pages[1].path);
    let checked = batch.run(&["check", "p3.json", "--json"]).await;
    assert_eq!(checked.verdicts(), [verdict(&pages[1].base64_id, "missing", "missing")]);
}

#[tokio::test]
async fn a_poisoned_canvas_that_comes_back_empty_is_cured_before_the_end() {
    let batch = Batch::with(
        Testbed::builder().book("obj/book", 3).page_size(64, 64).start().await,
        "backoff_max = \"5s\"",
    );
    let pages = batch.bed.pages();
    // Poison: the canvas was built during a fault, and is cached without its image.
    batch.bed.expires_everything();
    batch.bed.service.poisons_nested(503);
    testbed::get(&format!("{}{}", batch.bed.service.origin(), pages[0].canvas_path)).await;
    batch.bed.service.nested_is_well();
    assert_eq!(batch.bed.redis.poisoned_duplicates(&pages[0].path), 1);
    assert!(batch.bed.redis.has_key(&pages[0].identifier), "the key is written before the fault");
    let healed = batch.run(&["heal", "--all", "--json"]).await;
    assert_eq!(healed.code, 0, "{}", healed.stdout);
    assert_eq!(batch.bed.redis.poisoned_duplicates(&pages[0].path), 0);
    assert!(pages.iter().all(|page| batch.bed.redis.has_key(&page.identifier)));
}

#[tokio::test]
async fn a_manifest_served_without_images_is_poisoned_and_heal_cures_it() {
    let batch = Batch::book(3).await;
    let page = batch.bed.page();
    let url = page.canvas_url.replace(&page.canvas_path, &page.presentation_path);
    batch.bed.service.poisons_nested(503);
    testbed::get(&format!("{}{}", batch.bed.service.origin(), page.presentation_path)).await;
    batch.bed.service.nested_is_well();
    let checked = batch.run(&["check", &url, "--json"]).await;
    assert_eq!(checked.code, 1);
    let trouble = checked.json()["manifests"][0]["trouble"].as_str().unwrap_or_default().to_owned();
    assert!(trouble.starts_with("poisoned: ") && trouble.contains("3 canvases"), "{}", checked.stdout);
    assert_eq!(checked.json()["totals"]["images"], 3);
    let healed = batch.run(&["heal", &url, "--json"]).await;
    assert_eq!(healed.code, 0, "{}", healed.stdout);
    assert_eq!(healed.json()["manifests"][0]["mended"], true);
    assert_eq!(batch.run(&["check", &url]).await.code, 0);
}

#[tokio::test]
async fn dry_run_asks_for_nothing_and_limit_for_no_more_than_it_says() {
    let batch = Batch::book(6).await;
    batch.bed.expires_everything();
    let dry = batch.run(&["heal", "--dry-run"]).await;
    assert_eq!(dry.code, 1);
    assert!(dry.stdout.contains("would ask for https://api.library.tamu.edu/iiif-service/fedora/canvas/"));
    assert_eq!(batch.bed.counts().healing(), 0);
    let limited = batch.run(&["heal", "--limit", "2", "--json"]).await;
    assert_eq!((limited.code, limited.json()["totals"]["healed"].clone()), (1, 2.into()));
    assert_eq!(batch.bed.counts().canvas, 2);
}

#[tokio::test]
async fn all_asks_for_every_canvas_as_the_old_script_did() {
    let batch = Batch::book(5).await;
    let healed = batch.run(&["heal", "--all", "manifests", "--concurrency", "4"]).await;
    assert_eq!(healed.code, 0, "{}{}", healed.stdout, healed.stderr);
    assert_eq!(batch.bed.counts().visits, 5);
}

#[tokio::test]
async fn only_a_rebuild_helps_where_the_canvas_json_survived() {
    let batch = Batch::book(2).await;
    batch.bed.caches_everything();
    batch.bed.redis.evict_keys();
    assert_eq!(batch.run(&["heal", "--rung", "visit"]).await.code, 1);
    let healed = batch.run(&["heal", "--rung", "rebuild", "--json"]).await;
    assert_eq!(healed.code, 0, "{}", healed.stdout);
    assert_eq!(healed.json()["images"][0]["rung"], "rebuild");
}

#[tokio::test]
async fn the_deployment_is_looked_at_and_a_closed_resources_is_only_a_note() {
    let batch = Batch::book(2).await;
    let checked = batch.run(&["check", "--setup", "--json"]).await;
    assert_eq!(checked.code, 0, "{}", checked.stdout);
    let setup = checked.json()["setup"].as_array().expect("findings").clone();
    let states: Vec<_> = setup.iter().map(|finding| finding["state"].as_str().unwrap_or_default()).collect();
    assert_eq!(states, ["good"; 7], "{setup:?}");
    batch.bed.service.closes_resources();
    let closed = batch.run(&["check", "--setup"]).await;
    assert_eq!(closed.code, 0, "{}", closed.stdout);
    assert!(closed.stdout.contains("note /resources"), "{}", closed.stdout);
}

#[tokio::test]
async fn a_canvas_elsewhere_counts_as_ours_where_the_rule_derives_ours_from_its_file() {
    let batch = Batch::book(3).await;
    let manifests = batch.file("manifests");
    for file in std::fs::read_dir(&manifests).expect("a directory") {
        std::fs::remove_file(file.expect("a file").path()).expect("it goes");
    }
    // As the library publishes them: canvases on another host, images by their files.
    std::fs::write(manifests.join("p3.json"), batch.bed.manifest_json_p3("obj/book")).expect("a file");
    assert_eq!(batch.run(&["index", "build"]).await.code, 0);
    let checked = batch.run(&["check", "--json"]).await;
    let setup = checked.json()["setup"].as_array().expect("findings").clone();
    let canvases = setup.iter().find(|finding| finding["about"] == "canvases").expect("it is looked at");
    assert_eq!(canvases["state"], "good", "{canvases}");
    assert_eq!(checked.code, 0, "{}", checked.stdout);
    // Where the rule's canvas is on a host that is not ours, that is the one to name.
    let config = std::fs::read_to_string(batch.file("config.toml")).expect("a configuration");
    let config =
        config.replace(r#"public_hosts = ["api.library.tamu.edu"]"#, r#"public_hosts = ["other.test"]"#);
    std::fs::write(batch.file("config.toml"), config).expect("a configuration");
    let checked = batch.run(&["check", "--json"]).await;
    let setup = checked.json()["setup"].as_array().expect("findings").clone();
    let canvases = setup.iter().find(|finding| finding["about"] == "canvases").expect("it is looked at");
    let text = canvases["text"].as_str().expect("a text");
    assert!(text.starts_with("0 of ") && text.contains("https://api.library.tamu.edu/"), "{text}");
    assert_eq!(checked.code, 1, "{}", checked.stdout);
}

#[tokio::test]
async fn a_wrong_public_id_and_a_clock_that_is_wrong_are_found() {
    let batch = Batch::book(2).await;
    let images = testbed::Origin::start(|seen| {
        let info = r#"{"@id": "http://cantaloupe.internal:8182/iiif/2/x"}"#;
        let body = if seen.path().ends_with("info.json") { info } else { "" };
        testbed::Origin::answer(200, &[("date", "Sun, 06 Nov 1994 08:49:37 GMT")], testbed::Flow::sized(body))
    });
    batch.reconfigure_images(&images.url());
    let checked = batch.run(&["check", "--json"]).await;
    assert_eq!(checked.code, 1, "{}", checked.stdout);
    let setup = checked.json()["setup"].as_array().expect("findings").clone();
    let bad = setup.iter().filter(|finding| finding["state"] == "bad");
    let about: Vec<_> = bad.map(|finding| finding["about"].as_str().unwrap_or_default()).collect();
    assert_eq!(about, ["public @id", "clock"], "{setup:?}");
}
