//! What stands in for an image whose file is gone (`heal.missing_image`), and when nothing does.

use std::time::{Duration, Instant};

use http::Method;
use testbed::{Fetched, Page};

use crate::support::batch_world::Batch;
use crate::support::world::{World, asks_until, book};

const GONE: &str = "missing; placeholder";

/// A book whose first file is gone, and is known to be gone.
async fn with_a_lost_page(missing_image: &str) -> (World, Page) {
    let world = book(2, &format!("heal.ahead = 0\nheal.missing_image = {missing_image}")).await;
    let page = world.bed.page();
    loses(&world, &page).await;
    (world, page)
}

/// Loses the file behind a page, and waits until that is proven: the image server's 404 goes out until then.
async fn loses(world: &World, page: &Page) {
    world.knows_file_of(page);
    world.bed.fedora.removes_file(&page.path);
    world.bed.expires(&page.identifier);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = world.get(&page.image_path("full/150,/0/default.jpg")).await;
        if answer.header("heal-status").starts_with("missing") {
            return;
        }
        assert!(answer.status == 404 && Instant::now() < deadline, "{} {}", answer.status, answer.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn size_of(answer: &Fetched) -> (u32, u32) {
    let picture = image::load_from_memory(&answer.body).expect("a picture");
    (picture.width(), picture.height())
}

#[tokio::test]
async fn a_picture_of_the_size_that_was_asked_for_stands_in() {
    let (world, page) = with_a_lost_page("200").await;
    let (width, height) = page.size;
    // The stand-in makes no PNG, and says so before it looks for the image. A true one does.
    world.bed.images.answers(|seen| {
        let is_png = seen.path().rsplit('.').next() == Some("png");
        is_png.then(|| testbed::Origin::answer(404, &[], testbed::Flow::sized("no such image")))
    });
    for (rest, size) in [
        ("full/full/0/default.jpg", (width, height)),
        ("full/max/0/default.jpg", (width, height)),
        ("full/150,/0/color.jpg", (150, 200)),
        ("full/,400/0/gray.png", (300, 400)),
        ("full/!100,100/0/default.jpg", (75, 100)),
        ("full/pct:50/90/default.jpg", (height / 2, width / 2)),
        ("0,0,256,256/64,/0/default.jpg", (64, 64)),
        ("512,512,512,512/512,/0/default.jpg", (512, 512)),
        // As far as the region lies within the picture.
        ("1024,1024,512,512/max/0/default.jpg", (width - 1024, 512)),
        ("pct:0,0,50,50/max/0/default.png", (width / 2, height / 2)),
        ("full/1,/0/default.jpg", (1, 1)),
        ("full/2000,2000/0/default.jpg", (2000, 2000)),
    ] {
        let answer = world.get(&page.image_path(rest)).await;
        assert_eq!((answer.status, answer.header("heal-status")), (200, GONE), "{rest}");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        let kind = if rest.ends_with("png") { "image/png" } else { "image/jpeg" };
        assert_eq!(answer.header("content-type"), kind);
        assert_eq!(answer.header("content-length"), answer.body.len().to_string());
        assert_eq!(size_of(&answer), size, "{rest}");
    }
    assert!(world.events("placeholder") >= 11.0);
    let series = r#"iiif_mender_requests_total{route="image",outcome="missing",status="2xx"}"#;
    assert!(world.metric(series) >= 11.0);
    // A healthy page is its own.
    let other = &world.bed.pages()[1];
    let answer = world.get(&other.image_path("full/150,/0/default.jpg")).await;
    assert_eq!(answer.body, other.picture("full/150,/0/default.jpg"));
}

#[tokio::test]
async fn its_info_json_has_the_size_of_the_canvas_and_the_id_of_the_image() {
    let (world, page) = with_a_lost_page("200").await;
    let info = world.get(&page.info_path()).await;
    assert_eq!((info.status, info.header("heal-status")), (200, GONE));
    assert_eq!((info.header("access-control-allow-origin"), info.header("cache-control")), ("*", "no-store"));
    let info: serde_json::Value = serde_json::from_slice(&info.body).expect("JSON");
    let manifest: serde_json::Value =
        serde_json::from_str(&world.bed.manifest_json("obj/book")).expect("JSON");
    let canvas = &manifest["sequences"][0]["canvases"][0];
    assert_eq!((&info["width"], &info["height"]), (&canvas["width"], &canvas["height"]));
    assert_eq!(info["@context"], "http://iiif.io/api/image/2/context.json");
    assert_eq!(info["profile"][0], "http://iiif.io/api/image/2/level2.json");
    // Named as the image server names the page beside it.
    let other = &world.bed.pages()[1];
    let healthy: serde_json::Value =
        serde_json::from_slice(&world.get(&other.info_path()).await.body).expect("JSON");
    let id = healthy["@id"].as_str().expect("an id").replace(&other.identifier, &page.identifier);
    assert_eq!(info["@id"], id);
    // Every tile that it promises is there.
    let tile = world.get(&page.image_path("0,0,512,512/512,/0/default.jpg")).await;
    assert_eq!((tile.status, size_of(&tile)), (200, (512, 512)));
}

#[tokio::test]
async fn head_conditions_and_ranges_are_answered_as_for_any_picture_without_a_validator() {
    let (world, page) = with_a_lost_page("200").await;
    let path = page.image_path("full/150,/0/default.jpg");
    let whole = world.get(&path).await;
    let head = world.asks_with(Method::HEAD, &path).await.expect("a task");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), whole.header("content-length"));
    for field in [
        ("if-none-match", "\"abc\""),
        ("if-modified-since", "Mon, 30 Nov 2026 00:00:00 GMT"),
        ("range", "bytes=0-9"),
    ] {
        let answer = world.get_with(&path, &[field]).await;
        assert_eq!((answer.status, &answer.body), (200, &whole.body), "{field:?}");
    }
}

#[tokio::test]
async fn a_file_that_comes_back_is_shown_at_once() {
    let (world, page) = with_a_lost_page("200").await;
    let rest = "full/150,/0/default.jpg";
    assert_eq!(world.get(&page.image_path(rest)).await.header("heal-status"), GONE);
    world.bed.fedora.restores_file(&page.path);
    world.bed.registers_everything();
    let back = world.get(&page.image_path(rest)).await;
    assert_eq!((back.status, &back.body), (200, &page.picture(rest)));
    assert!(!back.header("heal-status").contains("missing"), "{}", back.header("heal-status"));
    let info = world.get(&page.info_path()).await;
    assert_eq!((info.status, info.header("heal-status")), (200, ""));
}

#[tokio::test]
async fn without_the_files_url_it_stands_in_once_the_service_was_well_and_stays() {
    let world =
        book(2, "heal.ahead = 0\nheal.missing_image = 200\nheal.ladder = variant,visit,rebuild").await;
    let pages = world.bed.pages();
    world.bed.fedora.removes_file(&pages[0].path);
    world.bed.expires_everything();
    let ask = async |page: usize, width: usize| {
        let answer = world.get(&pages[page].image_path(&format!("full/{width},/0/default.jpg"))).await;
        (answer.status, answer.header("heal-status").to_owned())
    };
    assert_eq!(
        ask(0, 100).await,
        (404, "missing".to_owned()),
        "a fault of the file store would look the same"
    );
    assert_eq!(ask(1, 100).await.0, 200);
    asks_until("the file is proven gone", async || ask(0, 101).await, |answer| answer.1 == GONE).await;
    let until = Instant::now() + Duration::from_secs(7);
    while Instant::now() < until {
        assert_eq!(ask(0, 102).await, (200, GONE.to_owned()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn by_choice_the_picture_comes_with_404_or_not_at_all() {
    let rest = "full/150,/0/default.jpg";
    let (world, page) = with_a_lost_page("404").await;
    let answer = world.get(&page.image_path(rest)).await;
    assert_eq!((answer.status, answer.header("heal-status"), size_of(&answer)), (404, GONE, (150, 200)));
    assert_eq!(world.get(&page.info_path()).await.status, 404);
    let (world, page) = with_a_lost_page("off").await;
    let answer = world.get(&page.image_path(rest)).await;
    assert_eq!((answer.status, answer.header("heal-status")), (404, "missing"));
    assert!(!answer.header("content-type").starts_with("image/"));
    assert_eq!(world.events("placeholder"), 0.0);
}

#[tokio::test]
async fn what_is_expired_cooling_unknown_or_in_a_fault_has_no_stand_in() {
    let world =
        book(4, "heal.ahead = 0\nheal.missing_image = 200\nheal.wait = 2s\nheal.cooldown = 100ms").await;
    let pages = world.bed.pages();
    let rest = "full/150,/0/default.jpg";
    let shows_none = async |what: &str| {
        for round in 0..8 {
            for page in &pages {
                let answer =
                    world.get(&page.image_path(&format!("full/{},/0/default.jpg", 50 + round))).await;
                assert!(!answer.header("heal-status").contains("placeholder"), "{what}: {}", answer.status);
                assert!(answer.status != 200 || answer.body.len() > 200, "{what}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(world.events("placeholder"), 0.0, "{what}");
    };
    // The file store is away, with and without the keys: every canvas comes without its image.
    world.bed.fedora.goes_down();
    shows_none("no file store").await;
    world.bed.expires_everything();
    shows_none("no file store and no keys").await;
    world.bed.fedora.comes_up();
    // Nobody owns it.
    let unknown = "/iiif/2/00000000-0000-3000-8000-000000000000";
    let answer = world.get(&format!("{unknown}/{rest}")).await;
    assert_eq!((answer.status, answer.header("heal-status")), (404, ""));
    // The canvas service is away.
    world.bed.expires_everything();
    world.bed.service.goes_down().await;
    shows_none("no canvas service").await;
}

#[tokio::test]
async fn what_cannot_be_made_is_the_image_servers_own_404() {
    let (world, page) = with_a_lost_page("200").await;
    for rest in [
        "full/99999,/0/default.jpg",
        "full/2049,2049/0/default.jpg",
        "full/99999999999,/0/default.jpg",
        "full/pct:99999999/0/default.tif",
        "full/150,/0/default.webp",
        "99999,0,10,10/max/0/default.jpg",
        "full/70000,1/0/default.jpg",
    ] {
        let answer = world.get(&page.image_path(rest)).await;
        assert_ne!(answer.status, 200, "{rest}");
        assert!(!answer.header("heal-status").contains("placeholder"), "{rest}");
    }
    // The canvas service must not build a canvas from it.
    let service = [("user-agent", "Apache-HttpClient/4.5.13 (Java/11.0.12)")];
    let answer = world.get_with(&page.info_path(), &service).await;
    assert!(!answer.header("heal-status").contains("placeholder"), "{}", answer.text());
}

#[tokio::test]
async fn thousands_of_sizes_cost_no_canvas_request_and_little_time() {
    let (world, page) = with_a_lost_page("200").await;
    let before = world.bed.counts();
    let began = Instant::now();
    for width in 1..=1500 {
        let answer = world.get(&page.image_path(&format!("full/{width},1000/0/default.jpg"))).await;
        assert_eq!((answer.status, answer.header("heal-status")), (200, GONE), "{width}");
        assert!(answer.body.len() < 64 << 10, "{} bytes", answer.body.len());
    }
    assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
    assert!(world.bed.counts().canvas - before.canvas <= 4, "its file is looked for now and then, no more");
}

#[tokio::test]
async fn a_batch_that_asks_through_the_proxy_knows_it_for_missing() {
    let (world, page) = with_a_lost_page("200").await;
    let batch =
        Batch::over(testbed::Testbed::builder().book("obj/book", 2).page_size(600, 800).start().await);
    let healed = batch.run(&["heal", "--via", &world.url(""), "--json", &page.identifier]).await;
    assert_eq!(healed.code, 1, "{}", healed.stdout);
    assert_eq!(healed.verdicts(), [(page.identifier, "missing".to_owned(), "missing".to_owned())]);
}
