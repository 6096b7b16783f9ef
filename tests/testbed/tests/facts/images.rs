//! "An expired image", "Identifiers", "Headers": the image server.

use testbed::{Testbed, get_with, picture};

use super::{image, shown};

#[tokio::test]
async fn the_404_is_chunked_text_or_html_of_three_kilobytes_that_nobody_may_cache() {
    let testbed = Testbed::builder().empty_redis().start().await;
    let path = testbed.page().thumbnail_path();
    let url = format!("{}{path}", testbed.images.origin());
    let text = image(&testbed, &path).await;
    assert_eq!(text.header("content-type"), "text/plain;charset=utf-8");
    assert_eq!(text.header("transfer-encoding"), "chunked");
    assert_eq!(text.header("cache-control"), "no-cache, must-revalidate");
    assert_eq!(text.header("access-control-allow-origin"), "*");
    assert!((2_000..5_000).contains(&text.body.len()), "{}", text.body.len());
    let html = get_with(&url, &[("accept", "text/html,*/*"), ("range", "bytes=0-9")]).await;
    assert_eq!((html.status, html.header("content-type")), (404, "text/html;charset=utf-8"));
}

#[tokio::test]
async fn a_live_picture_is_cacheable_for_thirty_days_without_etag_or_length() {
    let testbed = Testbed::start().await;
    let live = image(&testbed, &testbed.page().thumbnail_path()).await;
    assert_eq!(live.header("cache-control"), "max-age=2592000, public, no-transform");
    assert_eq!((live.header("etag"), live.header("content-length")), ("", ""));
    assert_eq!(live.header("transfer-encoding"), "chunked");
    let url = format!("{}{}", testbed.images.origin(), testbed.page().thumbnail_path());
    let date = live.header("last-modified");
    let same = get_with(&url, &[("if-modified-since", date)]).await;
    assert_eq!((same.status, same.body.len()), (304, 0));
    testbed.expires_everything();
    assert_eq!(get_with(&url, &[("if-modified-since", date)]).await.status, 404);
    testbed.images.comes_up();
    let client = testbed::Client::default();
    assert_eq!(client.head(&url, &[]).await.unwrap().status, 404);
}

#[tokio::test]
async fn region_and_size_are_honoured_and_the_page_can_be_told_from_its_picture() {
    let testbed = Testbed::builder().book("obj/b", 12).start().await;
    let page = testbed.pages().swap_remove(11);
    for (rest, size) in [
        ("full/full/0/default.jpg", (1200, 1600)),
        ("full/max/0/default.jpg", (1200, 1600)),
        ("full/150,/0/default.jpg", (150, 200)),
        ("full/,200/0/default.jpg", (150, 200)),
        ("full/!100,100/0/default.jpg", (75, 100)),
        ("full/pct:10/0/default.jpg", (120, 160)),
        ("full/50,50/0/gray.jpg", (50, 50)),
        ("square/100,/0/default.jpg", (100, 100)),
        ("1024,1536,512,512/176,/0/default.jpg", (176, 64)),
        ("pct:50,50,50,50/300,/90/default.jpg", (300, 400)),
    ] {
        let seen = image(&testbed, &page.image_path(rest)).await;
        assert_eq!((seen.status, picture::dimensions(&seen.body)), (200, Some(size)), "{rest}");
        assert_eq!(seen.body, page.picture(rest));
        if rest.starts_with("full") && size.0 >= 100 {
            assert_eq!(picture::page_number(&seen.body), Some(12), "{rest}");
        }
    }
}

#[tokio::test]
async fn other_errors_are_not_expiry() {
    let testbed = Testbed::start().await;
    let page = testbed.page();
    for (rest, live, expired) in [
        ("full/150,/0/default", 404, 404),
        ("5000,0,10,10/full/0/default.jpg", 400, 404),
        ("full/huge/0/default.jpg", 400, 400),
        ("full/150,/0/default.xyz", 415, 415),
        ("full/5000,/0/default.jpg", 403, 404),
    ] {
        testbed.registers_everything();
        assert_eq!(image(&testbed, &page.image_path(rest)).await.status, live, "{rest}");
        testbed.redis.evict_keys();
        assert_eq!(image(&testbed, &page.image_path(rest)).await.status, expired, "{rest} expired");
    }
    let shouted = format!("/iiif/2/{}/full/150,/0/default.jpg", page.uuid.to_uppercase());
    assert_eq!(image(&testbed, &shouted).await.status, 500);
    assert_eq!(image(&testbed, "/iiif/2/nonsense/full/150,/0/default.jpg").await.status, 404);
}

#[tokio::test]
async fn a_dead_service_redis_or_fedora_is_500_and_401_is_403() {
    let testbed = Testbed::start().await;
    let page = testbed.page();
    let direct = page.direct_path("full/150,/0/default.jpg");
    testbed.redis.goes_down();
    assert_eq!(shown(&testbed, &page).await, 500);
    assert_eq!(image(&testbed, &direct).await.status, 200);
    testbed.redis.comes_up();
    testbed.service.goes_down().await;
    assert_eq!(shown(&testbed, &page).await, 500);
    assert_eq!(image(&testbed, &direct).await.status, 200);
    testbed.service.comes_up();
    assert_eq!(shown(&testbed, &page).await, 200);
    testbed.fedora.goes_down();
    assert_eq!((shown(&testbed, &page).await, image(&testbed, &direct).await.status), (500, 500));
    testbed.fedora.comes_up();
    testbed.fedora.guards_file(&page.path);
    assert_eq!(shown(&testbed, &page).await, 403);
}

#[tokio::test]
async fn absolute_urls_come_from_host_or_from_forwarded_host_with_its_port() {
    let testbed = Testbed::start().await;
    let page = testbed.page();
    let origin = testbed.images.origin();
    let port = origin.rsplit_once(':').unwrap().1;
    let url = format!("{origin}/iiif/2/{}", page.identifier);
    let info = page.info_path();
    for (headers, base) in [
        (vec![], origin.clone()),
        (vec![("host", "a.example")], "http://a.example".to_owned()),
        (vec![("x-forwarded-host", "a.example")], format!("http://a.example:{port}")),
        (vec![("x-forwarded-host", "a.example"), ("x-forwarded-port", "80")], "http://a.example".to_owned()),
        (
            vec![
                ("x-forwarded-host", "a.example"),
                ("x-forwarded-port", "443"),
                ("x-forwarded-proto", "https"),
            ],
            "https://a.example".to_owned(),
        ),
        (
            vec![
                ("x-forwarded-host", "a.example"),
                ("x-forwarded-port", "8443"),
                ("x-forwarded-path", "/lib"),
            ],
            "http://a.example:8443/lib".to_owned(),
        ),
        (vec![("forwarded", "host=a.example;proto=https")], origin.clone()),
    ] {
        let moved = get_with(&url, &headers).await;
        assert_eq!((moved.status, moved.header("location")), (303, &*format!("{base}{info}")), "{headers:?}");
        let told = get_with(&format!("{url}/info.json"), &headers).await;
        assert_eq!(told.json()["@id"], format!("{base}/iiif/2/{}", page.identifier));
    }
}

#[tokio::test]
async fn encoded_slashes_work_unless_a_gateway_refuses_them() {
    let testbed = Testbed::start().await;
    let path = "/iiif/2/a%2Fb/full/150,/0/default.jpg";
    assert_eq!(image(&testbed, path).await.status, 404);
    testbed.images.refuses_encoded_slashes(400);
    assert_eq!(image(&testbed, path).await.status, 400);
    testbed.images.recovers();
    assert!(image(&testbed, path).await.text().contains("NoSuchFileException"));
}

#[tokio::test]
async fn uuid_and_base64_may_come_from_different_bases() {
    let inside = "http://localhost:9000/fcrepo/rest";
    let testbed =
        Testbed::builder().single("obj/a").file_base(inside).public_file_base("https://p.example/rest");
    let testbed = testbed.start().await;
    let page = testbed.page();
    assert!(page.file_url.starts_with(inside) && page.public_file_url.starts_with("https://p.example/"));
    assert_eq!(testbed::uuid_of(&page.file_url), page.uuid);
    let direct = image(&testbed, &page.direct_path("full/150,/0/default.jpg")).await;
    assert_eq!(direct.body, image(&testbed, &page.thumbnail_path()).await.body);
}
