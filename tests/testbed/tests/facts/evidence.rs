//! "An expired image", "Poison": which looks tell the truth.

use testbed::{Testbed, get_with};

use super::{ask, image, shown};

/// The looks that no cache answers: `(path behind the identifier, status while alive)`.
const TRUTHFUL: [(&str, u16); 4] = [
    ("info.json?cache=nocache", 200),
    ("full/99999,/0/default.jpg", 403),
    ("99999,99999,10,10/full/0/default.jpg", 400),
    ("full/150,/0/default.jpg?cache=nocache", 200),
];

#[tokio::test]
async fn behind_a_derivative_cache_a_seen_tile_and_info_json_stay_200_and_the_truthful_looks_tell() {
    let testbed = Testbed::builder().book("obj/b", 1).derivative_cache().start().await;
    let page = testbed.page();
    assert_eq!(shown(&testbed, &page).await, 200);
    for (rest, alive) in TRUTHFUL {
        assert_eq!(image(&testbed, &page.image_path(rest)).await.status, alive, "{rest}");
    }
    testbed.expires_everything();
    testbed.restart_image_server();
    assert_eq!(shown(&testbed, &page).await, 200);
    assert_eq!(image(&testbed, &page.info_path()).await.status, 200);
    for (rest, _) in TRUTHFUL {
        assert_eq!(image(&testbed, &page.image_path(rest)).await.status, 404, "{rest}");
    }
    // What says nothing: the same alive and expired.
    for (rest, status) in
        [("full/0,/0/default.jpg", 400), ("full/abc/0/default.jpg", 400), ("full/9,/0/x.xyz", 400)]
    {
        assert_eq!(image(&testbed, &page.image_path(rest)).await.status, status, "{rest}");
    }
}

#[tokio::test]
async fn with_a_filled_source_cache_everything_is_served_and_no_look_tells() {
    let testbed = Testbed::builder().book("obj/b", 1).source_cache().start().await;
    let page = testbed.page();
    assert_eq!(shown(&testbed, &page).await, 200);
    testbed.expires_everything();
    for (rest, alive) in TRUTHFUL {
        assert_eq!(image(&testbed, &page.image_path(rest)).await.status, alive, "{rest}");
    }
}

#[tokio::test]
async fn a_key_that_goes_while_the_image_is_opened_is_501_and_passes_with_the_key() {
    let testbed = Testbed::builder().empty_redis().start().await;
    let page = testbed.page();
    testbed.images.loses_keys_while_opening(1);
    let gone = image(&testbed, &page.thumbnail_path()).await;
    assert_eq!(gone.status, 501);
    assert!(gone.text().contains("Unsupported source format"));
    assert_eq!(gone.header("cache-control"), "no-cache, must-revalidate");
    assert_eq!(shown(&testbed, &page).await, 404);
    testbed.registers_everything();
    testbed.images.loses_keys_while_opening(1);
    assert_eq!(shown(&testbed, &page).await, 200);
}

#[tokio::test]
async fn a_stranger_is_401_for_live_and_expired_alike_and_the_canvas_service_is_let_in() {
    let testbed = Testbed::start().await;
    let page = testbed.page();
    testbed.images.asks_for_login(true);
    let url = format!("{}{}", testbed.images.origin(), page.thumbnail_path());
    for expired in [false, true] {
        assert_eq!(shown(&testbed, &page).await, 401);
        assert_eq!(image(&testbed, &format!("{}?cache=nocache", page.info_path())).await.status, 401);
        let known = get_with(&url, &[("cookie", "session=1")]).await.status;
        assert_eq!(known, if expired { 404 } else { 200 });
        testbed.expires_everything();
    }
    assert_eq!(ask(&testbed, &page.canvas_path).await.json()["width"], 1200);
}

#[tokio::test]
async fn a_fault_of_the_file_store_looks_like_a_missing_file_and_writes_no_key() {
    let testbed = Testbed::builder().empty_redis().start().await;
    let page = testbed.page();
    testbed.fedora.files_fail();
    let canvas = ask(&testbed, &page.canvas_path).await;
    assert_eq!((canvas.status, canvas.json()["images"].as_array().map(Vec::len)), (200, Some(0)));
    assert!(!testbed.redis.has_key(&page.identifier));
    assert_eq!(testbed.redis.poisoned_duplicates(&page.path), 1);
    // The base64 identifier tells a fault from a missing file.
    assert_eq!(image(&testbed, &page.direct_path("full/150,/0/default.jpg")).await.status, 500);
    testbed.fedora.files_are_well();
    testbed.fedora.removes_file(&page.path);
    assert_eq!(image(&testbed, &page.direct_path("full/150,/0/default.jpg")).await.status, 404);
}

#[tokio::test]
async fn a_gateway_answers_resources_with_a_404_of_its_own() {
    let testbed = Testbed::start().await;
    let page = testbed.page();
    testbed.service.closes_resources_with(404);
    let closed = ask(&testbed, &format!("/iiif-service/resources/{}", page.uuid)).await;
    assert_eq!(closed.status, 404);
    assert!(!closed.text().contains("Resource with id"));
    assert_eq!(shown(&testbed, &page).await, 200);
}

#[tokio::test]
async fn base64_identifiers_may_be_unknown_and_redis_down_is_500_for_uuids() {
    let testbed = Testbed::start().await;
    let page = testbed.page();
    testbed.redis.goes_down();
    assert_eq!(shown(&testbed, &page).await, 500);
    assert_eq!(image(&testbed, &page.direct_path("full/150,/0/default.jpg")).await.status, 200);
    testbed.redis.comes_up();
    testbed.images.ignores_base64();
    assert_eq!(image(&testbed, &page.direct_path("full/150,/0/default.jpg")).await.status, 404);
    assert_eq!(shown(&testbed, &page).await, 200);
}

#[tokio::test]
async fn what_is_stored_can_be_compared() {
    let testbed = Testbed::start().await;
    let page = testbed.page();
    testbed.caches_everything();
    let before = testbed.redis.stored();
    testbed.service.poisons_nested(503);
    ask(&testbed, &format!("{}?update=true", page.canvas_path)).await;
    let place = format!("canvas {}", page.path);
    assert_eq!(testbed.redis.stored().worse_than(&before), std::slice::from_ref(&place));
    assert_eq!(testbed.redis.stored().changed_since(&before), std::slice::from_ref(&place));
    testbed.redis.evict_manifests();
    let none = testbed.redis.stored();
    ask(&testbed, &page.canvas_path).await;
    assert_eq!(testbed.redis.stored().empty_since(&none), [place]);
}
