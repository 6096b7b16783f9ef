//! The API for the people who run it: what it tells and what it does. Whom it lets in: `admin_access`.

use http::Method;
use iiif_mender::index::history::{HistoryFilter, HistoryPage};
use serde_json::{Value, json};
use testbed::{Client, Fetched, Kind};

use crate::support::edge::{Viewer, status};
use crate::support::world::{World, asks_until, patiently};

pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");

pub(crate) fn url(world: &World, path: &str) -> String {
    format!("http://{}{path}", world.app.admin.expect("an admin listener"))
}

async fn told(world: &World, path: &str) -> Value {
    let answer = testbed::get(&url(world, path)).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json"),
        "{}",
        answer.text()
    );
    answer.json()
}

pub(crate) async fn does(world: &World, act: &str, fields: &[(&str, &str)], body: &Value) -> Fetched {
    let url = url(world, &format!("/api/v1/{act}"));
    let body = if body.is_null() { String::new() } else { body.to_string() };
    world.client.send_body(Method::POST, &url, fields, body.into()).await.expect("an answer")
}

async fn acts(world: &World, act: &str, body: &Value) -> Fetched {
    does(world, act, &[JSON], body).await
}

/// A live page, which gets events as they happen.
async fn live(world: &World) -> Viewer {
    let mut page = Viewer::to(world.app.admin.expect("an admin listener")).await;
    page.says("GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    page
}

#[tokio::test]
async fn an_image_is_healed_by_hand_and_the_request_id_leads_through_all_of_it() {
    let world = World::start().await;
    let page = world.bed.page();
    world.bed.expires_everything();
    let fields = [JSON, ("x-request-id", "by-hand-1")];
    let answer = does(&world, "heal", &fields, &json!({ "identifier": page.identifier })).await;
    assert_eq!((answer.status, answer.header("x-request-id")), (200, "by-hand-1"), "{}", answer.text());
    let healed = answer.json();
    assert_eq!((&healed["ending"], &healed["rung"]), (&json!("healed"), &json!("variant")));
    let heals = async || told(&world, "/api/v1/heals?request=by-hand-1&verdict=healed&rung=variant").await;
    let heals = asks_until("it is in the history", heals, |heals| !heals["items"][0].is_null()).await;
    let heal = &heals["items"][0];
    assert_eq!((&heal["identifier"], &heal["request"]), (&json!(page.identifier), &json!("by-hand-1")));
    let course = told(&world, &format!("/api/v1/heals/{}", heal["id"])).await;
    assert_eq!((&course["steps"][0]["rung"], &course["id"]), (&json!("variant"), &heal["id"]), "{course}");
    assert_eq!(told(&world, "/api/v1/heals?verdict=missing").await["items"], json!([]));
}

#[tokio::test]
async fn heals_are_told_page_by_page_and_none_twice() {
    let world = World::start().await;
    world.bed.expires_everything();
    let pages = world.bed.pages();
    for page in &pages[..3] {
        assert_eq!(acts(&world, "heal", &json!({ "identifier": page.identifier })).await.status, 200);
    }
    let heals =
        || world.app.index.history(&HistoryFilter::default(), HistoryPage::default()).expect("a history");
    patiently("the history is written", || heals().len() >= 3).await;
    let (mut seen, mut next) = (Vec::new(), String::new());
    loop {
        let page = told(&world, &format!("/api/v1/heals?limit=2{next}")).await;
        seen.extend(page["items"].as_array().expect("items").iter().map(|heal| heal["id"].to_string()));
        match page["next"].as_i64() {
            Some(before) => next = format!("&before={before}"),
            None => break,
        }
    }
    let all: Vec<String> = heals().iter().map(|entry| entry.id.to_string()).collect();
    assert_eq!(seen, all);
}

#[tokio::test]
async fn manifests_lead_to_canvases_and_their_images_and_looking_heals_nothing() {
    let world = World::start().await;
    let first = told(&world, "/api/v1/manifests?limit=1").await;
    let second = told(&world, &format!("/api/v1/manifests?limit=200&after={}", first["next"])).await;
    let count = 1 + second["items"].as_array().expect("items").len();
    assert_eq!(count as u64, world.app.index.stats().expect("an index").manifests);
    assert!(second["next"].is_null());
    world.bed.expires_everything();
    let asked = world.bed.counts();
    let mut states = Vec::new();
    for manifest in [&first["items"][0]].into_iter().chain(second["items"].as_array().expect("items")) {
        let book = told(&world, &format!("/api/v1/manifests/{}", manifest["id"])).await;
        assert_eq!(book["manifest"]["uri"], manifest["uri"]);
        for canvas in book["canvases"]["items"].as_array().expect("canvases") {
            states.extend(canvas["states"].as_array().expect("states").clone());
            let alone = told(&world, &format!("/api/v1/canvases/{}", canvas["id"])).await;
            assert_eq!(
                (&alone["canvas"]["canvas"], &alone["may_be_asked"]),
                (&canvas["canvas"], &json!(true))
            );
        }
    }
    assert!(!states.is_empty() && states.iter().all(|it| it["state"] == "expired"), "{states:?}");
    assert_eq!(world.bed.counts().canvas, asked.canvas, "looking asked for canvases");
    let page = world.bed.page();
    let thumbnail = url(&world, &format!("/api/v1/images/{}/thumbnail", page.identifier));
    assert_eq!(testbed::get(&thumbnail).await.status, 404);
    acts(&world, "heal", &json!({ "identifier": page.identifier })).await;
    let picture = testbed::get(&thumbnail).await;
    assert_eq!((picture.status, picture.header("content-type")), (200, "image/jpeg"));
}

#[tokio::test]
async fn images_are_found_by_identifier_url_and_label() {
    let world = World::start().await;
    let page = world.bed.page();
    let image = format!("https://api.library.tamu.edu/iiif/2/{}/full/200,/0/default.jpg", page.identifier);
    for words in [&page.identifier, &image, &page.canvas_url] {
        let words = words.replace(':', "%3A").replace('/', "%2F").replace('?', "%3F");
        let found = told(&world, &format!("/api/v1/images?q={words}")).await;
        assert_eq!(found["owners"][0]["canvas"], *page.canvas_url, "{words}");
    }
    let label = world.app.index.list().expect("an index")[0].label.clone().expect("a label");
    let part: String = label.chars().take(4).collect::<String>().to_uppercase().replace(' ', "+");
    let found = told(&world, &format!("/api/v1/images?q={part}")).await;
    assert!(!found["manifests"].as_array().expect("manifests").is_empty(), "{part}: {found}");
    assert_eq!(told(&world, "/api/v1/images?q=%25").await["manifests"], json!([]), "% is no wildcard");
}

#[tokio::test]
async fn mistakes_are_problems() {
    let world = World::start().await;
    for (path, status) in [
        ("/api/v1/heals?limit=0", 400),
        ("/api/v1/heals?limit=201", 400),
        ("/api/v1/heals?before=x", 400),
        ("/api/v1/heals?verdict=good", 400),
        ("/api/v1/images", 400),
        ("/api/v1/heals/99999999", 404),
        ("/api/v1/manifests/99999999", 404),
        ("/api/v1/images/nobody/thumbnail", 404),
        ("/api/v1/nothing", 404),
        ("/api/v1/heal", 405),
    ] {
        let answer = testbed::get(&url(&world, path)).await;
        let kind = answer.header("content-type").to_owned();
        assert_eq!((answer.status, &*kind), (status, "application/problem+json"), "{path}");
        assert_eq!(answer.json()["status"], status);
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    }
    for (act, body, status) in [
        ("heal", json!({}), 400),
        ("heal", json!({ "identifer": "x" }), 400),
        ("heal", json!({ "identifier": "x".repeat(20_000) }), 400),
        ("heal", json!({ "identifier": "nobody" }), 404),
        ("rebuild", json!({ "canvas": "http://169.254.169.254/latest" }), 404),
        ("sweep/stop", Value::Null, 409),
        ("reload", Value::Null, 503),
    ] {
        assert_eq!(acts(&world, act, &body).await.status, status, "{act} {body}");
    }
}

#[tokio::test]
async fn a_sweep_is_started_and_stopped_by_hand() {
    let world = World::with("heal.sweep_rate = 1").await;
    assert_eq!(acts(&world, "sweep/start", &Value::Null).await.status, 202);
    let again = async || acts(&world, "sweep/stop", &Value::Null).await.status;
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while again().await != 202 {
        assert!(tokio::time::Instant::now() < until, "it never began");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert!(again().await == 409, "it is ending already");
}

#[tokio::test]
async fn a_canvas_is_rebuilt_and_a_missing_file_is_forgotten_by_hand() {
    let world = World::start().await;
    let page = world.bed.page();
    let rebuilt = acts(&world, "rebuild", &json!({ "canvas": page.canvas_url })).await;
    assert_eq!(rebuilt.status, 200, "{}", rebuilt.text());
    assert_eq!(world.bed.targets(Kind::Rebuild).len(), 1);
    let forgotten = acts(&world, "forget", &json!({ "identifier": page.identifier })).await;
    assert_eq!((forgotten.status, &forgotten.json()["forgotten"]), (200, &json!(page.identifier)));
}

#[tokio::test]
async fn a_file_that_came_back_is_shown_as_soon_as_its_absence_is_forgotten() {
    let world = World::with("heal.ladder = visit\nheal.missing = 10m\nheal.cooldown = 10m").await;
    let page = world.bed.page();
    let path = page.image_path("full/200,/0/default.jpg");
    world.bed.fedora.removes_file(&page.path);
    let gone = world.get(&path).await;
    assert_eq!((gone.status, gone.header("heal-status")), (404, "missing"), "{:?}", gone.headers);
    world.settles().await;
    world.bed.fedora.restores_file(&page.path);
    world.bed.expires_everything();
    assert_eq!(world.get(&path).await.header("heal-status"), "missing", "remembered for ten minutes");
    acts(&world, "forget", &json!({ "identifier": page.identifier })).await;
    assert_eq!(world.get(&path).await.status, 200);
}

#[tokio::test]
async fn a_rebuild_that_the_service_refuses_is_told_and_harms_nothing() {
    let world = World::start().await;
    let page = world.bed.page();
    world.bed.service.fails_canvas(500);
    let refused = acts(&world, "rebuild", &json!({ "canvas": page.canvas_url })).await;
    assert_eq!(refused.status, 502, "{}", refused.text());
    assert!(
        refused.json()["detail"].as_str().is_some_and(|detail| detail.contains("500")),
        "{}",
        refused.text()
    );
    assert_eq!(world.get(&page.image_path("full/200,/0/default.jpg")).await.status, 200);
}

#[tokio::test]
async fn manifests_are_told_by_where_they_came_from() {
    let world = World::start().await;
    let sources = told(&world, "/api/v1/sources").await;
    let source = &sources["items"][0];
    assert_eq!(source["kind"], "path", "{sources}");
    assert_eq!(source["manifests"], world.app.index.stats().expect("an index").manifests);
    let ours = told(&world, &format!("/api/v1/manifests?limit=200&source={}", source["id"])).await;
    let all = told(&world, "/api/v1/manifests?limit=200").await;
    assert_eq!(ours, all);
    assert_eq!(told(&world, "/api/v1/manifests?source=4711").await["items"], json!([]));
    // One source only: its manifests are shown at once.
    let shown = testbed::get(&url(&world, "/collections")).await.text();
    assert!(shown.contains("href=\"/collections/1\""), "{shown}");
}

/// How the wall shows this image.
async fn state(world: &World, identifier: &str) -> Value {
    let volume = world.app.index.owners(identifier).expect("an index")[0].manifest.clone();
    let id = world.app.index.manifest_id(&volume).expect("an index").expect("a manifest");
    let book = told(world, &format!("/api/v1/manifests/{id}?limit=200")).await;
    let canvases = book["canvases"]["items"].as_array().expect("canvases").clone();
    let mut states = canvases.iter().flat_map(|canvas| canvas["states"].as_array().expect("states"));
    states.find(|seen| seen["identifier"] == identifier).expect("on the wall")["state"].clone()
}

#[tokio::test]
async fn a_poisoned_canvas_is_shown_as_such_until_it_is_cured() {
    let world = World::with("heal.ladder = visit").await;
    let page = world.bed.page();
    world.bed.expires_everything();
    world.bed.service.poisons_nested(503);
    assert_eq!(world.get(&page.image_path("full/200,/0/default.jpg")).await.status, 200, "the image is back");
    world.settles().await;
    assert_eq!(state(&world, &page.identifier).await, "poisoned", "and its canvas is not");
    let left = acts(&world, "heal", &json!({ "identifier": page.identifier })).await.json();
    assert_eq!(left["ending"], "poisoned", "the ladder has no rebuild: {left}");
    world.bed.service.nested_is_well();
    let rebuilt = acts(&world, "rebuild", &json!({ "canvas": page.canvas_url })).await;
    assert_eq!(rebuilt.status, 200, "{}", rebuilt.text());
    assert_ne!(state(&world, &page.identifier).await, "poisoned", "rebuilt by hand");
}

#[tokio::test]
async fn a_poisoned_canvas_is_cured_by_hand() {
    // Without pages ahead: their cures go on for as long as the fault does.
    let world = World::with("heal.ladder = visit,rebuild\nheal.ahead = 0").await;
    let page = world.bed.page();
    world.bed.expires_everything();
    world.bed.service.poisons_nested(503);
    assert_eq!(world.get(&page.image_path("full/200,/0/default.jpg")).await.status, 200);
    world.settles().await;
    world.bed.service.nested_is_well();
    let cured = acts(&world, "heal", &json!({ "identifier": page.identifier })).await.json();
    assert!(["healed", "ok"].contains(&cured["ending"].as_str().expect("an ending")), "{cured}");
    assert_eq!(world.bed.redis.poisoned_duplicates(&page.path), 0);
    assert_ne!(state(&world, &page.identifier).await, "poisoned");
}

#[tokio::test]
async fn every_bound_of_this_listener_holds_and_is_counted() {
    let more = "admin.acts = 1\nadmin.max_body = 1KiB\nadmin.max_entries = 3\nadmin.max_live = 1\nadmin.max_connections = 8";
    let world = World::with(more).await;
    let statuses = async |count: usize| {
        let mut seen = Vec::new();
        for _ in 0..count {
            seen.push(acts(&world, "breakers/reset", &Value::Null).await.status);
        }
        seen
    };
    let seen = statuses(20).await;
    assert!(seen[..3] == [200, 200, 200] && seen.contains(&429), "{seen:?}");
    assert!(world.events("admin_too_many") >= 1.0);
    let answer = testbed::get(&url(&world, "/api/v1/heals?limit=4")).await;
    assert!(answer.status == 400 && answer.text().contains("1 to 3"), "{}", answer.text());
    let books = told(&world, "/api/v1/manifests").await;
    assert!(books["items"].as_array().expect("items").len() <= 3, "{books}");
    let long = json!({ "identifier": "x".repeat(2_000) });
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while acts(&world, "heal", &long).await.status == 429 {
        assert!(tokio::time::Instant::now() < until, "no act was ever taken again");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let mut first = live(&world).await;
    first.until("event: stats").await;
    let mut second = live(&world).await;
    assert_eq!(status(&second.head().await), 429, "one live page at once");
    let refused = does(&world, "reload", &[JSON, ("origin", "https://evil.example")], &Value::Null).await;
    assert!([403, 429].contains(&refused.status));
    assert!(world.events("admin_refused") >= 1.0 || refused.status == 429);
}

#[tokio::test]
async fn what_happens_is_told_as_it_happens() {
    let world = World::start().await;
    let mut stream = live(&world).await;
    let seen = stream.until("event: stats").await;
    assert!(seen.contains("text/event-stream"), "{seen}");
    world.bed.expires_everything();
    world.get(&world.bed.page().image_path("full/200,/0/default.jpg")).await;
    stream.until("\"event\":\"heal_ended\"").await;
    // A page that listens does not keep us from stopping.
    assert_eq!(world.app.stop().await, 0);
}

#[tokio::test]
async fn pages_of_this_listener_run_nothing_that_is_not_their_own() {
    let world = World::start().await;
    let answer = Client::default().get(&url(&world, "/api/v1/stats"), &[]).await.expect("an answer");
    let policy = answer.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("cache-control"), "no-store");
}
