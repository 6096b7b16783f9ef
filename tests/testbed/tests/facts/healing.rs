//! "An expired image", "Ways back to life".

use testbed::{Client, Kind, Testbed, get_with, uuid_of};

use super::{ask, image, shown, update};

#[tokio::test]
async fn an_expired_image_is_404_at_once_while_its_info_json_stays_200_until_the_restart() {
    let testbed = Testbed::start().await;
    let page = testbed.page();
    assert_eq!(image(&testbed, &page.info_path()).await.status, 200);
    assert_eq!(shown(&testbed, &page).await, 200);
    testbed.expires(&page.identifier);
    assert_eq!(shown(&testbed, &page).await, 404);
    assert_eq!(image(&testbed, &page.info_path()).await.status, 200);
    assert_eq!(image(&testbed, &format!("{}?cache=nocache", page.info_path())).await.status, 404);
    assert_eq!(image(&testbed, &format!("/iiif/2/{}", page.identifier)).await.status, 303);
    testbed.restart_image_server();
    assert_eq!(image(&testbed, &page.info_path()).await.status, 404);
}

#[tokio::test]
async fn a_derivative_cache_keeps_tiles_that_were_seen() {
    let testbed = Testbed::builder().book("obj/b", 1).derivative_cache().start().await;
    let page = testbed.page();
    assert_eq!(shown(&testbed, &page).await, 200);
    testbed.expires_everything();
    assert_eq!(shown(&testbed, &page).await, 200);
    assert_eq!(image(&testbed, &page.image_path("full/151,/0/default.jpg")).await.status, 404);
}

#[tokio::test]
async fn a_visit_heals_when_the_canvas_is_not_cached() {
    let testbed = Testbed::start().await;
    let page = testbed.page();
    testbed.expires_everything();
    assert_eq!(shown(&testbed, &page).await, 404);
    let canvas = ask(&testbed, &page.canvas_path).await;
    assert_eq!(canvas.status, 200);
    assert_eq!(canvas.text(), testbed.canvas_json(&page.path));
    assert_eq!(shown(&testbed, &page).await, 200);
    assert_eq!(testbed.counts().nested, 1);
}

#[tokio::test]
async fn a_head_visit_heals_as_well() {
    let testbed = Testbed::builder().empty_redis().start().await;
    let page = testbed.page();
    let url = format!("{}{}", testbed.service.origin(), page.canvas_path);
    assert_eq!(Client::default().head(&url, &[]).await.unwrap().status, 200);
    assert_eq!(shown(&testbed, &page).await, 200);
}

#[tokio::test]
async fn a_visit_heals_nothing_when_the_canvas_json_survived_and_a_rebuild_does() {
    let testbed = Testbed::start().await;
    let page = testbed.page();
    testbed.caches_everything();
    testbed.redis.evict_keys();
    assert_eq!(ask(&testbed, &page.canvas_path).await.status, 200);
    assert_eq!(shown(&testbed, &page).await, 404);
    assert_eq!(ask(&testbed, &update(&page.canvas_path)).await.status, 200);
    assert_eq!(shown(&testbed, &page).await, 200);
    assert_eq!((testbed.counts().visits, testbed.counts().rebuilds), (1, 1));
}

#[tokio::test]
async fn update_is_accepted_bare_empty_and_true_and_in_no_other_form() {
    let testbed = Testbed::start().await;
    let page = testbed.page();
    for (form, heals) in [
        ("update", true),
        ("update=", true),
        ("update=true", true),
        ("update=TRUE", false),
        ("update=1", false),
        ("update=false", false),
    ] {
        testbed.caches_everything();
        testbed.redis.evict_keys();
        ask(&testbed, &format!("{}?{form}", page.canvas_path)).await;
        assert_eq!(testbed.redis.has_key(&page.identifier), heals, "{form}");
    }
}

#[tokio::test]
async fn a_presentation_update_heals_all_its_pages_and_caches_no_canvas() {
    let testbed = Testbed::builder().empty_redis().start().await;
    let page = testbed.page();
    let manifest = ask(&testbed, &update(&page.presentation_path)).await;
    assert_eq!(manifest.text(), testbed.manifest_json("obj/minutes"));
    for page in testbed.pages_of("obj/minutes") {
        assert_eq!(shown(&testbed, &page).await, 200);
        assert_eq!(testbed.redis.canvas_duplicates(&page.path), 0);
    }
}

#[tokio::test]
async fn registering_needs_no_rdf_walk_and_leaves_the_canvas_alone() {
    let testbed = Testbed::start().await;
    let page = testbed.page();
    testbed.caches_everything();
    testbed.redis.evict_keys();
    let info = ask(&testbed, &update(&page.register_path)).await;
    assert_eq!((info.status, info.json()["width"].as_u64()), (200, Some(1200)));
    assert_eq!(shown(&testbed, &page).await, 200);
    assert_eq!(testbed.counts().generations, 0);
    // Its nested request is for the base URI, whose redirect it follows.
    assert_eq!((testbed.counts().base, testbed.counts().info), (1, 1));
}

#[tokio::test]
async fn the_base64_id_answers_the_same_bytes_with_redis_empty_and_the_service_down() {
    let testbed = Testbed::start().await;
    for page in [testbed.page(), testbed.pages_of("obj/report").swap_remove(1)] {
        for rest in ["full/300,/0/default.jpg", "info.json"] {
            let live = image(&testbed, &page.image_path(rest)).await;
            testbed.redis.flush();
            testbed.service.goes_down().await;
            let url = format!("{}{}", testbed.images.origin(), page.direct_path(rest));
            let direct = get_with(&url, &[("x-forwarded-id", &page.identifier)]).await;
            assert_eq!((direct.status, live.status), (200, 200));
            assert_eq!(direct.body, live.body);
            assert_eq!(direct.header("link"), live.header("link"));
            testbed.service.comes_up();
            testbed.registers_everything();
        }
        let url = format!("{}/iiif/2/{}", testbed.images.origin(), page.base64_id);
        let moved = get_with(&url, &[("x-forwarded-id", &page.identifier)]).await;
        assert_eq!(moved.header("location"), format!("{}{}", testbed.images.origin(), page.info_path()));
    }
}

#[tokio::test]
async fn the_key_is_written_before_the_nested_info_json() {
    let testbed = Testbed::builder().empty_redis().start().await;
    let page = testbed.page();
    testbed.images.stalls_info();
    let url = format!("{}{}", testbed.service.origin(), page.canvas_path);
    let visit = tokio::spawn(async move { testbed::get(&url).await.status });
    testbed.ledger.until(|counts| counts.nested_now == 1).await;
    assert_eq!(shown(&testbed, &page).await, 200);
    assert_eq!(testbed.counts().canvas_now, 1);
    testbed.images.releases();
    assert_eq!(visit.await.unwrap(), 200);
}

#[tokio::test]
async fn a_client_who_leaves_stops_no_generation() {
    let testbed = Testbed::builder().empty_redis().start().await;
    let page = testbed.page();
    testbed.service.stalls_canvas();
    let url = format!("{}{}", testbed.service.origin(), page.canvas_path);
    let visit = tokio::spawn(async move { testbed::get(&url).await.status });
    testbed.ledger.until(|counts| counts.canvas_now == 1).await;
    visit.abort();
    let _gone = visit.await;
    testbed.service.releases();
    testbed.ledger.until(|counts| counts.canvas_now == 0).await;
    assert_eq!(testbed.redis.canvas_duplicates(&page.path), 1);
    assert_eq!(shown(&testbed, &page).await, 200);
}

#[tokio::test]
async fn a_missing_file_gives_the_same_404_and_resources_tells_them_apart() {
    let testbed = Testbed::start().await;
    let pages = testbed.pages();
    testbed.fedora.removes_file(&pages[0].path);
    testbed.expires(&pages[1].identifier);
    let missing = image(&testbed, &pages[0].thumbnail_path()).await;
    let expired = image(&testbed, &pages[1].thumbnail_path()).await;
    assert_eq!((missing.status, &missing.body), (404, &expired.body));
    let resource = |at: usize| format!("/iiif-service/resources/{}", pages[at].uuid);
    let known = ask(&testbed, &resource(0)).await;
    assert_eq!((known.status, known.text()), (200, pages[0].file_url.clone()));
    assert_eq!(uuid_of(&known.text()), pages[0].uuid);
    assert_eq!(ask(&testbed, &resource(1)).await.status, 404);
}

#[tokio::test]
async fn a_rebuild_of_a_missing_file_turns_a_good_canvas_into_an_empty_one() {
    let testbed = Testbed::start().await;
    let page = testbed.page();
    testbed.caches_everything();
    testbed.fedora.removes_file(&page.path);
    assert_eq!(ask(&testbed, &page.canvas_path).await.json()["width"], 1200);
    let ruined = ask(&testbed, &update(&page.canvas_path)).await;
    assert_eq!((ruined.status, ruined.json()["images"].as_array().map(Vec::len)), (200, Some(0)));
    assert_eq!(ask(&testbed, &page.canvas_path).await.json()["width"], 0);
}

#[tokio::test]
async fn one_key_serves_all_pages_of_a_pdf_and_on_lacks_the_page() {
    let testbed = Testbed::builder().pdf("obj/report", 3).start().await;
    let pages = testbed.pages();
    testbed.expires(&pages[2].identifier);
    assert_eq!(shown(&testbed, &pages[0]).await, 404);
    // Recorded: the canvas of one page is the canvas of the file, without `?page=` and without `;N`.
    let canvas = ask(&testbed, &pages[1].canvas_path).await.json();
    assert!(!canvas.to_string().contains("page="));
    assert!(!canvas.to_string().contains(';'));
    for page in &pages {
        let seen = image(&testbed, &page.thumbnail_path()).await;
        assert_eq!(testbed::picture::page_number(&seen.body), Some(page.number));
    }
    let manifest = ask(&testbed, &pages[0].presentation_path).await.json();
    let second = &manifest["sequences"][0]["canvases"][1];
    assert_eq!(second["@id"], pages[1].canvas_url);
    assert!(second["images"][0]["@id"].as_str().unwrap().contains(&pages[1].identifier));
    assert!(second["images"][0]["on"].as_str().unwrap().ends_with("/obj/report"));
}

#[tokio::test]
async fn the_service_asks_under_the_url_it_is_told_and_carries_no_marker() {
    let testbed = Testbed::builder().empty_redis().start().await;
    let origin = testbed::Origin::fixed(404, "not here");
    testbed.service.image_server_url(format!("{}/iiif/2", origin.url()));
    let page = testbed.page();
    ask(&testbed, &page.canvas_path).await;
    let echo = origin.seen().remove(0);
    assert_eq!(echo.target, page.info_path());
    assert!(echo.header("user-agent").starts_with("Apache-HttpClient/4.5.13 (Java/"));
    assert!(echo.header("accept").starts_with("text/plain, application/json, "));
    assert!(echo.headers.keys().all(|name| !name.as_str().starts_with("x-") && name != "cookie"));
    assert_eq!(testbed.targets(Kind::Visit), [page.canvas_path]);
}
