//! The main job: an expired image comes back in front of a viewer.

use futures_util::future::join_all;
use http::Method;
use testbed::{Fetched, Page, Testbed};
use tokio::task::JoinHandle;

use crate::support::world::{VISIT, World, assert_same, patiently, proxy, visited_book};

const TILE: &str = "0,0,512,512/512,/0/default.jpg";

#[tokio::test]
async fn a_healthy_image_passes_byte_for_byte_and_nobody_is_asked_for_anything_else() {
    let world = World::start().await;
    let page = world.bed.page();
    let direct = world.asks_directly(&page.image_path(TILE)).await;
    let before = world.bed.counts();
    let ours = world.get(&page.image_path(TILE)).await;
    assert_eq!(ours.status, 200);
    assert_same(&ours, &direct);
    assert_eq!(ours.header("via"), "1.1 iiif-mender");
    assert_eq!(ours.header("heal-status"), "");
    let counts = world.bed.counts();
    assert_eq!(counts.image, before.image + 1);
    assert_eq!((counts.canvas, counts.resources), (0, 0));
}

#[tokio::test]
async fn an_expired_tile_is_the_picture_at_the_first_get_with_one_canvas_request() {
    let world = World::with(VISIT).await;
    let page = world.bed.page();
    world.bed.expires_everything();
    let tile = world.get(&page.image_path(TILE)).await;
    assert_eq!(tile.status, 200);
    assert_eq!(tile.body, page.picture(TILE));
    assert!(tile.header("heal-status").starts_with("healed; rung=visit; dur="), "{:?}", tile.headers);
    assert!(tile.header("server-timing").starts_with("heal;dur="));
    world.settles().await;
    let counts = world.bed.counts();
    assert_eq!((counts.canvas, counts.visits, counts.rebuilds), (1, 1, 0));
    assert_eq!(world.metric(r#"iiif_mender_canvas_requests_total{rung="visit",answer="carries"}"#), 1.0);
}

fn crowd(world: &World, path: &str, many: usize) -> Vec<JoinHandle<Fetched>> {
    (0..many).map(|_| world.asks(path)).collect()
}

#[tokio::test]
async fn sixteen_of_two_hundred_find_out_that_an_image_is_expired() {
    let world = World::with(&format!("{VISIT}\nheal.first_asks_wait = 100s")).await;
    let page = world.bed.page();
    world.bed.expires_everything();
    world.bed.images.stalls_images();
    let viewers = crowd(&world, &page.image_path(TILE), 200);
    patiently("the others wait", || world.events("first_ask_held") == 184.0).await;
    // They may still be on their way.
    world.bed.ledger.until(|counts| counts.image >= 16).await;
    assert_eq!(world.bed.counts().image, 16);
    world.bed.images.releases();
    for answer in join_all(viewers).await {
        assert_eq!(answer.expect("no panic").status, 200);
    }
    world.settles().await;
    let counts = world.bed.counts();
    assert_eq!(counts.canvas, 1);
    assert!(counts.image <= 220, "{} image requests for 200 answers", counts.image);
}

#[tokio::test]
async fn who_asks_for_an_image_that_is_well_or_waits_for_too_long_is_sent_on() {
    let world = World::with(&format!("{VISIT}\nheal.first_asks = 2\nheal.first_asks_wait = 1ms")).await;
    let pages = world.bed.pages();
    world.bed.images.stalls_images();
    let unknown = crowd(&world, &pages[0].image_path(TILE), 20);
    world.bed.ledger.until(|counts| counts.image == 20).await;
    assert_eq!(world.events("first_ask_held"), 18.0);
    world.bed.images.releases();
    for answer in join_all(unknown).await {
        assert_eq!(answer.expect("no panic").status, 200);
    }
    world.bed.images.stalls_images();
    let well = crowd(&world, &pages[0].image_path(TILE), 20);
    world.bed.ledger.until(|counts| counts.image == 40).await;
    assert_eq!(world.events("first_ask_held"), 18.0, "nobody who knows it to be well");
    world.bed.images.releases();
    for answer in join_all(well).await {
        assert_eq!(answer.expect("no panic").status, 200);
    }
}

#[tokio::test]
async fn two_hundred_viewers_of_one_expired_canvas_cost_one_canvas_request() {
    let world = World::with(VISIT).await;
    let page = world.bed.page();
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let viewers = crowd(&world, &page.image_path(TILE), 200);
    world.bed.ledger.until(|counts| counts.canvas == 1).await;
    patiently("all wait", || world.metric("iiif_mender_waiting_viewers") >= 200.0).await;
    // Twenty of them leave at once, the first one among them.
    for viewer in &viewers[..20] {
        viewer.abort();
    }
    world.bed.service.releases();
    for answer in join_all(viewers).await.into_iter().skip(20) {
        let answer = answer.expect("not aborted");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body, page.picture(TILE));
    }
    world.settles().await;
    assert_eq!(world.bed.counts().canvas, 1);
}

#[tokio::test]
async fn an_unknown_identifier_gets_the_404_as_it_was_and_no_canvas_is_asked_for() {
    let world = World::start().await;
    let path = "/iiif/2/00000000-0000-3000-8000-000000000000/full/full/0/default.jpg";
    let direct = world.asks_directly(path).await;
    let ours = world.get(path).await;
    assert_same(&ours, &direct);
    assert_eq!((ours.status, ours.header("heal-status")), (404, ""));
    let counts = world.bed.counts();
    assert_eq!((counts.canvas, counts.register, counts.resources), (0, 0, 0));
    assert_eq!(
        world.metric(r#"iiif_mender_requests_total{route="image",outcome="unknown",status="4xx"}"#),
        1.0
    );
}

#[tokio::test]
async fn a_pdf_page_heals_by_the_canvas_with_its_query() {
    let world = World::with(VISIT).await;
    world.bed.expires_everything();
    let pages = world.bed.pages_of("obj/report");
    let path = pages[1].image_path("full/200,/0/default.jpg");
    let answer = world.get(&path).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(world.bed.targets(testbed::Kind::Visit), [pages[1].canvas_path.clone()]);
}

#[tokio::test]
async fn a_book_of_one_page_is_the_same_with_resources_closed() {
    let world = World::over(Testbed::builder().single("obj/one").start().await, VISIT).await;
    let page = world.bed.page();
    world.bed.service.closes_resources();
    world.bed.expires_everything();
    let tile = world.get(&page.image_path("full/64,/0/default.jpg")).await;
    assert_eq!(tile.status, 200, "{}", tile.text());
    world.settles().await;
    assert_eq!(world.bed.counts().canvas, 1);
}

#[tokio::test]
async fn all_pages_of_an_expired_pdf_come_back_with_one_canvas_request() {
    let world = World::with(VISIT).await;
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let pages = world.bed.pages_of("obj/report");
    let paths: Vec<_> = pages.iter().map(|page| page.image_path("0,0,64,64/64,/0/default.jpg")).collect();
    let (answers, ()) = tokio::join!(join_all(paths.iter().map(|path| world.get(path))), async {
        patiently("all wait", || world.metric("iiif_mender_waiting_viewers") >= 3.0).await;
        world.bed.service.releases();
    });
    assert!(answers.iter().all(|answer| answer.status == 200));
    world.settles().await;
    assert_eq!(world.bed.counts().canvas, 1);
}

#[tokio::test]
async fn two_images_heal_side_by_side() {
    let world = visited_book(2, "").await;
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let asked: Vec<_> = world.bed.pages().iter().map(|page| world.asks(&page.image_path(TILE))).collect();
    world.bed.ledger.until(|counts| counts.canvas_now == 2).await;
    world.bed.service.releases();
    assert!(join_all(asked).await.into_iter().all(|answer| answer.expect("not aborted").status == 200));
}

#[tokio::test]
async fn an_image_that_is_lost_again_is_healed_again_at_once() {
    let world = visited_book(1, "").await;
    let page = world.bed.page();
    for turn in 1..=4 {
        world.bed.expires_everything();
        let answer = world.get(&page.image_path(TILE)).await;
        assert!(answer.header("heal-status").starts_with("healed"), "{turn}: {:?}", answer.headers);
        world.settles().await;
        assert_eq!(world.bed.counts().canvas, turn);
    }
}

#[tokio::test]
async fn two_instances_make_at_most_two_calls_and_are_both_right() {
    let world = visited_book(3, "").await;
    let (second, _folder) =
        proxy(&world.bed, &world.bed.images.origin(), &world.bed.service.origin(), VISIT).await;
    world.bed.expires_everything();
    let pages = world.bed.pages();
    let asked = pages.iter().flat_map(|page: &Page| {
        let path = page.image_path(TILE);
        [world.url(&path), format!("http://{}{path}", second.addresses[0])]
    });
    let urls: Vec<_> = asked.collect();
    let answers = join_all(urls.iter().map(|url| world.client.get(url, &[]))).await;
    for (at, answer) in answers.into_iter().enumerate() {
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, &answer.body), (200, &pages[at / 2].picture(TILE)));
    }
    world.settles().await;
    assert!((3..=6).contains(&world.bed.counts().canvas), "{:?}", world.bed.counts());
}

#[tokio::test]
async fn other_methods_pass_while_an_image_is_being_healed() {
    let world = visited_book(1, "").await;
    let page = world.bed.page();
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let path = page.image_path(TILE);
    let get = world.asks(&path);
    world.bed.ledger.until(|counts| counts.canvas == 1).await;
    let head = world.asks_with(Method::HEAD, &path);
    patiently("both wait", || world.metric("iiif_mender_waiting_viewers") == 2.0).await;
    let options = world.asks_with(Method::OPTIONS, &path).await.expect("not aborted");
    assert_eq!(options.status, 405, "the image server's own answer, at once");
    world.bed.service.releases();
    let (get, head) = (get.await.expect("not aborted"), head.await.expect("not aborted"));
    assert_eq!((get.status, &get.body), (200, &page.picture(TILE)));
    assert_eq!((head.status, head.body.len()), (200, 0));
    world.settles().await;
    assert_eq!(world.bed.counts().canvas, 1);
}
