//! What operators remove from the cache: by the API, the command line, the pages and another size.

use std::process::Command;

use serde_json::{Value, json};
use testbed::Fetched;

use crate::admin::{JSON, does, url};
use crate::support::cache_world::{self, MINUTE, cached, counting, did};
use crate::support::world::{TILE, World};

async fn world() -> World {
    World::with("cache.memory = 16MiB\nheal.ahead = 0").await
}

/// Has a tile and an info.json of each page kept.
async fn fill(world: &World) -> usize {
    let pages = world.bed.pages();
    for page in &pages {
        for what in [TILE, "info.json"] {
            let path = page.image_path(what);
            assert_eq!(world.get(&path).await.status, 200, "{path}");
        }
    }
    2 * pages.len()
}

async fn is_kept(world: &World, page: &testbed::Page) -> bool {
    // A look that keeps nothing itself.
    let look = world.client.head(&world.url(&page.image_path(TILE)), &[]).await.expect("an answer");
    did(&look) == "hit"
}

fn purged(answer: &Fetched) -> (u16, u64) {
    (answer.status, answer.json()["purged"].as_u64().unwrap_or_default())
}

#[tokio::test]
async fn an_image_a_manifest_or_everything_is_purged() {
    let world = world().await;
    let all = fill(&world).await as u64;
    let (book, report) = (world.bed.pages_of("obj/minutes"), world.bed.pages_of("obj/report"));
    let purge = async |body: Value| does(&world, "cache/purge", &[JSON], &body).await;
    assert_eq!(purged(&purge(json!({ "identifier": book[0].identifier })).await), (200, 2));
    assert_eq!((is_kept(&world, &book[0]).await, is_kept(&world, &book[1]).await), (false, true));
    let owner = world.app.index.owners(&report[0].identifier).expect("an index")[0].manifest.clone();
    assert_eq!(purged(&purge(json!({ "manifest": owner })).await), (200, 2 * report.len() as u64));
    assert_eq!((is_kept(&world, &report[2]).await, is_kept(&world, &book[1]).await), (false, true));
    let clear = does(&world, "cache/clear", &[JSON], &Value::Null).await;
    assert_eq!(purged(&clear), (200, all - 2 - 2 * report.len() as u64));
    assert!(!is_kept(&world, &book[1]).await);
    assert_eq!(world.metric("iiif_mender_cache_entries"), 0.0);
    assert_eq!(world.metric("iiif_mender_cache_bytes"), 0.0);
    assert_eq!(world.metric("iiif_mender_cache_removed_total{cause=\"purged\"}"), all as f64);
}

#[tokio::test]
async fn what_is_not_said_plainly_purges_nothing() {
    let world = world().await;
    fill(&world).await;
    for (body, status) in [
        (json!({}), 400),
        (json!({ "identifier": "a", "manifest": "b" }), 400),
        (json!({ "canvas": "a" }), 400),
        (json!({ "manifest": "https://nobody.example" }), 404),
        (json!({ "all": true }), 400),
    ] {
        assert_eq!(does(&world, "cache/purge", &[JSON], &body).await.status, status, "{body}");
    }
    let evil = [JSON, ("origin", "https://evil.example")];
    assert_eq!(does(&world, "cache/clear", &evil, &Value::Null).await.status, 403);
    assert!(is_kept(&world, &world.bed.page()).await);
}

#[tokio::test]
async fn an_answer_on_its_way_while_its_image_is_purged_is_not_kept() {
    let world = world().await;
    let path = world.bed.page().image_path(TILE);
    world.bed.images.stalls_images();
    let (client, url) = (world.client.clone(), world.url(&path));
    let reader = tokio::spawn(async move { client.get(&url, &[]).await.expect("an answer").status });
    world.bed.ledger.until(|counts| counts.image > 0).await;
    does(&world, "cache/purge", &[JSON], &json!({ "identifier": "another" })).await;
    world.bed.images.recovers();
    assert_eq!(reader.await.expect("a task"), 200);
    assert!(!is_kept(&world, &world.bed.page()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_purges_too() {
    let world = world().await;
    let all = fill(&world).await;
    let admin = url(&world, "");
    let page = world.bed.page();
    let owner = world.app.index.owners(&world.bed.pages_of("obj/single")[0].identifier).expect("an index");
    let purges = async |arguments: &[&str]| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("iiif-mender"));
        command.current_dir(std::env::temp_dir()).args([
            "--config",
            "/nonexistent.toml",
            "purge",
            "--url",
            &admin,
        ]);
        command.args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().expect("it runs")).await;
        let output = output.expect("a thread");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let told = |count: usize| (Some(0), format!("{count} answers are kept no longer\n"), String::new());
    assert_eq!(purges(&["--identifier", &page.identifier]).await, told(2));
    assert_eq!(purges(&["--manifest", &owner[0].manifest]).await, told(2));
    let (code, _, error) = purges(&["--manifest", "https://nobody.example"]).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("no such manifest"), "{error}");
    let json = (Some(0), format!("{{\"purged\":{}}}\n", all - 4), String::new());
    assert_eq!(purges(&["--all", "--json"]).await, json);
    let (code, _, error) = purges(&[]).await;
    assert!(code == Some(2) && error.contains("--all"), "{error}");
}

#[tokio::test]
async fn the_pages_have_a_button_for_it_where_there_is_a_cache() {
    let world = world().await;
    fill(&world).await;
    let now = testbed::get(&url(&world, "/")).await.text();
    assert!(now.contains("action=\"/api/v1/cache/clear\"") && now.contains("From the cache"), "{now}");
    let volume = world.app.index.owners(&world.bed.page().identifier).expect("an index")[0].manifest.clone();
    let id = world.app.index.manifest_id(&volume).expect("an index").expect("a manifest");
    let page = testbed::get(&url(&world, &format!("/collections/{id}"))).await.text();
    assert!(page.contains("action=\"/api/v1/cache/purge\"") && page.contains(&volume), "{page}");
    // What the form sends, without a script.
    let own = format!("http://{}", world.app.admin.expect("an admin listener"));
    let fields = [("content-type", "application/x-www-form-urlencoded"), ("origin", &*own)];
    let target = url(&world, "/api/v1/cache/clear");
    let sent = world.client.send_body(http::Method::POST, &target, &fields, "back=%2F".into()).await;
    let sent = sent.expect("an answer");
    assert_eq!((sent.status, sent.header("location")), (303, "/"));
    assert!(!is_kept(&world, &world.bed.page()).await);
    let without = World::start().await;
    assert!(!testbed::get(&url(&without, "/")).await.text().contains("cache"), "no cache, no button");
}

#[tokio::test]
async fn another_size_begins_anew_and_zero_keeps_nothing() {
    let origin = counting(MINUTE);
    let mut edge = cached(&origin.url(), "").await;
    edge.get(cache_world::TILE).await;
    assert_eq!(did(&edge.get(cache_world::TILE).await), "hit");
    for (memory, expected) in [(0, ""), (8 << 20, "hit")] {
        let mut settings = (*edge.app.settings()).clone();
        settings.cache.memory = memory;
        edge.app.apply(settings).expect("it is in order");
        for _ in 0..2 {
            edge.get(cache_world::TILE).await;
        }
        let answer = edge.get(cache_world::TILE).await;
        assert_eq!((did(&answer), answer.status), (expected, 200), "{memory}");
    }
    assert_eq!(origin.seen().len(), 1 + 3 + 1);
}
