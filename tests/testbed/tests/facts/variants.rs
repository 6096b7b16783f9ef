//! "Ways back to life": what is built beside the stored document, and where.

use testbed::{Kind, Testbed};

use super::{ask, shown};

const BESIDE: &str = "disallow=x-iiif-mender/none";

/// The path with the query of a variant, rebuilt or not.
fn beside(path: &str, update: bool) -> String {
    let joint = if path.contains('?') { '&' } else { '?' };
    let update = if update { "update=true&" } else { "" };
    format!("{path}{joint}{update}{BESIDE}")
}

#[tokio::test]
async fn a_canvas_with_a_disallow_is_built_beside_and_the_stored_one_stays_byte_for_byte() {
    for json_kept in [false, true] {
        let testbed = Testbed::start().await;
        let page = testbed.page();
        testbed.caches_everything();
        testbed.redis.evict_keys();
        if !json_kept {
            testbed.redis.evict_manifests();
        }
        let before = testbed.redis.stored();
        let variant = ask(&testbed, &beside(&page.canvas_path, true)).await;
        assert_eq!(variant.status, 200);
        let named = format!("{}?{BESIDE}", page.canvas_url);
        assert_eq!(variant.json()["@id"], named);
        assert_eq!(variant.json()["images"][0]["on"], named);
        assert_eq!(shown(&testbed, &page).await, 200);
        let after = testbed.redis.stored();
        assert_eq!(after.changed_since(&before), [""; 0]);
        assert_eq!(after.at(&format!("canvas {} {BESIDE}", page.path)).len(), 1);
        assert_eq!(testbed.redis.canvas_variants(&page.path), 1);
        assert_eq!((testbed.counts().variants, testbed.counts().canvas), (1, 1));
    }
}

#[tokio::test]
async fn without_update_only_the_first_variant_is_built_and_later_ones_write_no_key() {
    let testbed = Testbed::builder().empty_redis().start().await;
    let page = testbed.page();
    let path = beside(&page.canvas_path, false);
    ask(&testbed, &path).await;
    assert!(testbed.redis.has_key(&page.identifier));
    testbed.redis.evict_keys();
    assert_eq!(ask(&testbed, &path).await.status, 200);
    assert!(!testbed.redis.has_key(&page.identifier));
    assert_eq!(testbed.counts().generations, 1);
    ask(&testbed, &beside(&page.canvas_path, true)).await;
    assert!(testbed.redis.has_key(&page.identifier));
    assert_eq!(testbed.redis.canvas_variants(&page.path), 1, "updated in place");
}

#[tokio::test]
async fn a_variant_during_a_fault_writes_the_key_and_leaves_the_good_canvas_alone() {
    let testbed = Testbed::start().await;
    let page = testbed.page();
    testbed.caches_everything();
    testbed.redis.evict_keys();
    let before = testbed.redis.stored();
    testbed.service.poisons_nested(503);
    let variant = ask(&testbed, &beside(&page.canvas_path, true)).await;
    assert_eq!((variant.status, variant.json()["width"].as_u64()), (200, Some(0)));
    assert_eq!(shown(&testbed, &page).await, 200);
    testbed.fedora.removes_file(&page.path);
    ask(&testbed, &beside(&page.canvas_path, true)).await;
    assert_eq!(testbed.redis.stored().changed_since(&before), [""; 0]);
    assert_eq!(testbed.redis.stored().worse_than(&before), [""; 0]);
}

#[tokio::test]
async fn where_disallow_is_ignored_a_variant_is_a_plain_visit_and_its_id_says_so() {
    let testbed = Testbed::builder().empty_redis().start().await;
    testbed.service.ignores_disallow();
    let page = testbed.page();
    let answer = ask(&testbed, &beside(&page.canvas_path, false)).await;
    assert_eq!(answer.json()["@id"], page.canvas_url);
    assert_eq!(
        (testbed.redis.canvas_variants(&page.path), testbed.redis.canvas_duplicates(&page.path)),
        (0, 1)
    );
}

#[tokio::test]
async fn an_allow_that_fits_nothing_writes_no_key_and_an_empty_or_misspelled_disallow_is_none() {
    let testbed = Testbed::builder().empty_redis().start().await;
    let page = testbed.page();
    ask(&testbed, &format!("{}?update=true&allow=x-iiif-mender/none", page.canvas_path)).await;
    assert!(!testbed.redis.has_key(&page.identifier));
    for query in ["disallow=", "Disallow=x-iiif-mender/none"] {
        let answer = ask(&testbed, &format!("{}?update=true&{query}", page.canvas_path)).await;
        assert_eq!(answer.json()["@id"], page.canvas_url, "{query}");
    }
}

#[tokio::test]
async fn the_pages_of_a_pdf_share_one_variant() {
    let testbed = Testbed::builder().pdf("obj/report", 3).empty_redis().start().await;
    for page in testbed.pages() {
        testbed.redis.evict_keys();
        ask(&testbed, &beside(&page.canvas_path, true)).await;
        assert_eq!(shown(&testbed, &page).await, 200);
    }
    assert_eq!(testbed.redis.canvas_variants("obj/report"), 1);
}

#[tokio::test]
async fn a_book_beside_writes_all_keys_one_nested_request_at_a_time_and_no_canvas() {
    for faulty in [false, true] {
        let testbed = Testbed::builder().book("obj/b", 12).start().await;
        let path = testbed.page().presentation_path;
        assert_eq!(ask(&testbed, &path).await.status, 200);
        testbed.redis.evict_keys();
        let before = testbed.redis.stored();
        if faulty {
            testbed.service.poisons_nested(503);
        }
        testbed.ledger.clear();
        let book = ask(&testbed, &beside(&path, true)).await;
        let canvases = book.json()["sequences"][0]["canvases"].as_array().unwrap().len();
        assert_eq!((book.status, canvases), (200, if faulty { 0 } else { 12 }));
        assert!(book.json()["@id"].as_str().unwrap().ends_with(&format!("obj/b?{BESIDE}")));
        for page in testbed.pages() {
            assert!(testbed.redis.has_key(&page.identifier));
        }
        let counts = testbed.counts();
        assert_eq!((counts.book_variants, counts.nested, counts.nested_most), (1, 12, 1));
        let after = testbed.redis.stored();
        assert_eq!(after.changed_since(&before), [""; 0]);
        assert_eq!(after.len(), before.len() + 1);
    }
}

#[tokio::test]
async fn registering_under_a_nested_fault_is_404_and_stores_nothing_but_writes_the_key() {
    let testbed = Testbed::builder().empty_redis().start().await;
    let page = testbed.page();
    testbed.service.poisons_nested(503);
    let refused = ask(&testbed, &format!("{}?update=true", page.register_path)).await;
    assert_eq!(refused.status, 404);
    assert!(testbed.redis.stored().is_empty());
    assert_eq!(shown(&testbed, &page).await, 200);
}

#[tokio::test]
async fn a_canvas_of_its_own_that_hangs_and_one_that_is_asked_to_wait() {
    let testbed = Testbed::start().await;
    let pages = testbed.pages();
    testbed.service.hangs_canvas(&pages[0].path);
    let url = format!("{}{}", testbed.service.origin(), pages[0].canvas_path);
    let stuck = tokio::spawn(async move { testbed::get(&url).await.status });
    testbed.ledger.until(|counts| counts.canvas_now == 1).await;
    assert_eq!(ask(&testbed, &pages[1].canvas_path).await.status, 200);
    testbed.service.releases();
    assert_eq!(stuck.await.unwrap(), 200);
    testbed.service.fails_canvas_until(429, 7);
    let busy = ask(&testbed, &pages[1].canvas_path).await;
    assert_eq!((busy.status, busy.header("retry-after")), (429, "7"));
    testbed.service.canvas_is_well();
    assert_eq!(ask(&testbed, &pages[1].canvas_path).await.status, 200);
    assert_eq!(testbed.targets(Kind::Visit).len(), 4);
}
