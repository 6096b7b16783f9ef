//! What is held or answered while images heal keeps no place: many expired images at once, and readers that do not read them.

use std::time::{Duration, Instant};

use testbed::{Client, Testbed};
use tokio::task::JoinSet;

use crate::support::attackers::{Attack, BYTE, Pace};
use crate::support::fair_world::Fair;
use crate::support::world::TILE;

/// More than there are places.
const IMAGES: usize = 400;
const ERROR: usize = 150_000;

async fn expired() -> Fair {
    let books = Testbed::builder().page_size(600, 800).book("obj/book", 5).book("obj/lost", 12);
    let books = books.page_size(64, 64).book("obj/expired", u32::try_from(IMAGES).expect("few"));
    let fair = Fair::over(books.start().await, "", "").await;
    fair.gateway.errors_of(ERROR);
    for page in fair.bed.pages_of("obj/expired") {
        fair.bed.expires(&page.identifier);
    }
    fair
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_hundred_expired_images_whose_404_is_long_all_come_back() {
    let fair = expired().await;
    let mut viewers = JoinSet::new();
    let began = Instant::now();
    for (n, page) in fair.bed.pages_of("obj/expired").into_iter().enumerate() {
        let n = u16::try_from(n).expect("few").to_be_bytes();
        let url = fair.process.url(&page.image_path("full/64,/0/default.jpg"));
        viewers.spawn(async move {
            let answer = Client::at([127, 7, n[0], n[1]].into()).get(&url, &[]).await;
            answer.map_or_else(|error| (0, error.to_string()), |answer| (answer.status, answer.text()))
        });
    }
    // Nobody else waits for them.
    let wait = Duration::from_secs(25);
    fair.others_are_served_and_healed("400 expired images", Attack::default(), 4, wait).await;
    let mut wrong = Vec::new();
    while let Some(ended) = viewers.join_next().await {
        let (status, text) = ended.expect("no panic");
        if status != 200 {
            wrong.push((status, text.chars().take(100).collect::<String>()));
        }
    }
    assert!(wrong.is_empty(), "{} of {IMAGES} after {:?}: {:?}", wrong.len(), began.elapsed(), wrong.first());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_404s_of_expired_images_that_nobody_reads_stop_nobody() {
    let fair = expired().await;
    // They do not come back: each 404 is the last word.
    fair.bed.pages_of("obj/expired").iter().for_each(|page| fair.bed.fedora.removes_file(&page.path));
    let mut attack = Attack::default();
    for (n, page) in fair.bed.pages_of("obj/expired").iter().enumerate() {
        let path = page.image_path("full/64,/0/default.jpg?{n}");
        fair.attacker(n % 8).reads_http1(&mut attack, &path, 1, Pace::Never);
    }
    attack.has_begun(IMAGES).await;
    let wait = Duration::from_secs(25);
    fair.others_are_served_and_healed("404s of expired images, unread", attack, 4, wait).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn healed_pictures_that_nobody_reads_stop_nobody() {
    let fair = Fair::start().await;
    for (what, bytes) in [("healed pictures of 200 KB, unread", 200_000), ("of 1 MB, unread", 1_000_000)] {
        fair.gateway.full_pictures_of(bytes);
        let mut attack = Attack::default();
        for (n, page) in fair.bed.pages_of("obj/thick").iter().take(30).enumerate() {
            // Painted before, so that painting is no part of the attack.
            page.picture("full/full/0/default.jpg");
            fair.bed.expires(&page.identifier);
            let path = page.image_path("full/full/0/default.jpg?{n}");
            fair.attacker(n % 4).reads_http2(&mut attack, &path, 5, 0, Pace::Never);
            fair.attacker(n % 4).reads_http1(&mut attack, &path, 5, BYTE);
        }
        attack.has_settled(300).await;
        fair.others_are_served(what, attack, 4).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heal_needs_no_place_that_viewers_have() {
    let fair = Fair::start().await;
    let mut attack = Attack::default();
    // As many clients as take every place that clients may have.
    for n in 0..8 {
        fair.attacker(n).reads_http1(&mut attack, "/iiif/2/sized-1048576-{n}/x", 64, Pace::Never);
    }
    attack.has_begun(512).await;
    let page = &fair.bed.pages_of("obj/lost")[0];
    fair.bed.expires(&page.identifier);
    let asked = Client::at([127, 7, 0, 1].into());
    let began = Instant::now();
    let answer = asked.get(&fair.process.url(&page.image_path(TILE)), &[]).await.expect("an answer");
    assert_eq!((answer.status, answer.body == page.picture(TILE)), (200, true), "{}", answer.text());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(attack);
}
