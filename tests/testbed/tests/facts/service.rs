//! "Errors of the canvas service", "Headers", `/resources`.

use testbed::{Testbed, get_with};

use super::{ask, shown, update};

#[tokio::test]
async fn an_unknown_canvas_is_500_json_and_fedora_down_is_503_but_for_cached_ones() {
    let testbed = Testbed::start().await;
    let unknown = ask(&testbed, "/iiif-service/fedora/canvas/obj/nope").await;
    assert_eq!(
        (unknown.status, unknown.json()["path"].as_str()),
        (500, Some("/iiif-service/fedora/canvas/obj/nope"))
    );
    let pages = testbed.pages();
    ask(&testbed, &pages[0].canvas_path).await;
    testbed.fedora.goes_down();
    assert_eq!(ask(&testbed, &pages[0].canvas_path).await.status, 200);
    let down = ask(&testbed, &pages[1].canvas_path).await;
    assert_eq!((down.status, down.body.len()), (503, 0));
}

#[tokio::test]
async fn redis_down_is_503_text_and_full_is_500_for_all_that_writes() {
    let testbed = Testbed::start().await;
    let pages = testbed.pages();
    ask(&testbed, &pages[0].canvas_path).await;
    testbed.redis.fills_up();
    assert_eq!(ask(&testbed, &pages[0].canvas_path).await.status, 200);
    assert_eq!(ask(&testbed, &update(&pages[0].canvas_path)).await.status, 500);
    assert_eq!(ask(&testbed, &pages[1].canvas_path).await.status, 500);
    testbed.redis.goes_down();
    let down = ask(&testbed, &pages[0].canvas_path).await;
    assert_eq!(down.status, 503);
    assert!(!down.body.is_empty());
}

#[tokio::test]
async fn strange_paths_are_refused_and_a_trailing_slash_is_not() {
    let testbed = Testbed::start().await;
    let canvas = testbed.page().canvas_path;
    for (path, status) in [
        (format!("{canvas}/"), 200),
        (canvas.replace("/pages/", "//pages/"), 500),
        (format!("{canvas};x"), 500),
        (canvas.replace("/pages/", "/../pages/"), 500),
        (canvas.replace("/pages/", "%2Fpages/"), 400),
        (format!("{canvas}%00"), 400),
        (format!("{canvas}%zz"), 400),
    ] {
        assert_eq!(ask(&testbed, &path).await.status, status, "{path}");
    }
    let url = format!("{}{canvas}", testbed.service.origin());
    assert_eq!(get_with(&url, &[("authorization", "Basic YTpi")]).await.status, 500);
}

#[tokio::test]
async fn resources_speak_text_only_and_a_gateway_may_close_them_without_hurting_images() {
    let testbed = Testbed::start().await;
    let page = testbed.page();
    let url = format!("{}/resources/{}", testbed.service.url(), page.uuid);
    let known = get_with(&url, &[("accept", "text/plain")]).await;
    assert_eq!(known.text(), page.file_url);
    assert!(known.header("content-type").starts_with("text/plain"));
    assert_eq!(get_with(&url, &[("accept", "application/json")]).await.status, 406);
    let moved = ask(&testbed, &format!("/iiif-service/resources/{}/redirect", page.uuid)).await;
    assert_eq!((moved.status, moved.header("location")), (301, &*page.file_url));
    let found = ask(&testbed, &format!("/iiif-service/resources/lookup?uri={}", page.file_url)).await;
    assert_eq!(found.text(), page.uuid);
    testbed.service.closes_resources();
    assert_eq!(ask(&testbed, &format!("/iiif-service/resources/{}", page.uuid)).await.status, 403);
    assert_eq!(shown(&testbed, &page).await, 200);
    testbed.service.opens_resources();
    testbed.expires(&page.identifier);
    let gone = ask(&testbed, &format!("/iiif-service/resources/{}", page.uuid)).await;
    assert_eq!((gone.status, gone.text()), (404, format!("Resource with id {} not found!", page.uuid)));
}

#[tokio::test]
async fn every_answer_forbids_caching_with_three_vary_lines_and_cors_echoes_the_origin() {
    let testbed = Testbed::start().await;
    let url = format!("{}{}", testbed.service.origin(), testbed.page().canvas_path);
    let canvas = get_with(&url, &[("origin", "https://viewer.example")]).await;
    assert_eq!(canvas.header("cache-control"), "no-cache, no-store, max-age=0, must-revalidate");
    assert_eq!(canvas.headers.get_all("vary").iter().count(), 3);
    assert_eq!(canvas.header("access-control-allow-origin"), "https://viewer.example");
    assert_eq!(canvas.header("access-control-allow-credentials"), "true");
    assert_eq!(canvas.header("etag"), "");
}

#[tokio::test]
async fn quotes_in_a_label_are_fine_and_a_backslash_breaks_the_json() {
    let testbed = Testbed::start().await;
    let page = testbed.page();
    testbed.fedora.labels(&page.path, "Letter to \"Bob\"");
    let quoted = ask(&testbed, &page.canvas_path).await;
    assert_eq!(quoted.json()["label"][0], "Letter to \"Bob\"");
    testbed.fedora.labels(&page.path, "Back\\slash");
    let broken = ask(&testbed, &update(&page.canvas_path)).await;
    assert!(broken.json().is_null() && broken.text().contains("Back\\slash"));
    testbed.fedora.labels(&page.path, "well");
    testbed.service.broken_json();
    assert!(ask(&testbed, &update(&page.canvas_path)).await.json().is_null());
}

#[tokio::test]
async fn sequences_collections_and_single_page_manifests_are_answered() {
    let testbed = Testbed::start().await;
    for (path, kind) in [
        ("sequence/obj/minutes", "sc:Sequence"),
        ("collection/obj/minutes", "sc:Collection"),
        ("presentation/obj/minutes/pages/page_1", "sc:Manifest"),
    ] {
        let answer = ask(&testbed, &format!("/iiif-service/fedora/{path}")).await;
        assert_eq!((answer.status, answer.json()["@type"].as_str()), (200, Some(kind)), "{path}");
    }
    let canvas = format!("{}?allow=image/jpeg", testbed.page().canvas_path);
    assert!(ask(&testbed, &canvas).await.json()["@id"].as_str().unwrap().ends_with("?allow=image/jpeg"));
}

#[tokio::test]
async fn manifests_can_be_written_and_public_bases_changed_while_running() {
    let testbed = Testbed::builder().book("obj/a", 2).single("obj/s").start().await;
    testbed.service.public_base("http://127.0.0.1:1234");
    let directory = std::env::temp_dir().join(format!("testbed-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let files = testbed.write_manifests(&directory).unwrap();
    assert_eq!(files.len(), 2);
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&files[0]).unwrap()).unwrap();
    assert_eq!(manifest["sequences"][0]["canvases"][1]["@id"], testbed.pages()[1].canvas_url);
    assert!(testbed.pages()[1].canvas_url.starts_with("http://127.0.0.1:1234/"));
    let third: serde_json::Value = serde_json::from_str(&testbed.manifest_json_p3("obj/a")).unwrap();
    let body = third["items"][0]["items"][0]["items"][0]["body"]["id"].as_str().unwrap();
    assert!(body.contains(&testbed.page().base64_id));
    std::fs::remove_dir_all(directory).unwrap();
}
