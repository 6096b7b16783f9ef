//! Broken now: which images readers do not get, why, and when each leaves the list.

use serde_json::{Value, json};
use testbed::Testbed;
use tokio::task::spawn_blocking;

use crate::admin::{JSON, does, url};
use crate::support::healing_world::{pages, tile};
use crate::support::program::program;
use crate::support::world::{World, patiently};

/// A book of two pages, from which readers come with addresses of their own.
async fn book(more: &str) -> World {
    let more = format!("heal.ahead = 0\nserver.trusted_proxies = 127.0.0.1\n{more}");
    World::over(pages(2).start().await, &more).await
}

async fn broken(world: &World, query: &str) -> Vec<Value> {
    let answer = testbed::get(&url(world, &format!("/api/v1/broken{query}"))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["items"].as_array().expect("items").clone()
}

async fn reads(world: &World, path: &str, reader: &str) -> u16 {
    world.get_with(path, &[("x-forwarded-for", reader)]).await.status
}

async fn page(world: &World, path: &str) -> String {
    let answer = testbed::get_with(&url(world, path), &[("accept", "text/html")]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

#[tokio::test]
async fn a_page_whose_file_is_gone_is_told_by_its_labels_until_a_reader_has_it_again() {
    let world = book("").await;
    let lost = world.bed.page();
    assert_eq!(broken(&world, "").await, Vec::<Value>::new());
    world.bed.fedora.removes_file(&lost.path);
    for (round, reader) in ["192.0.2.1", "192.0.2.1", "192.0.2.2"].into_iter().enumerate() {
        assert_eq!(reads(&world, &lost.image_path(&tile(round)), reader).await, 404);
    }
    let all = broken(&world, "").await;
    let told = &all[0];
    assert_eq!(
        (all.len(), &told["reason"], &told["identifier"]),
        (1, &json!("missing"), &json!(lost.identifier))
    );
    assert_eq!((&told["label"], &told["book"]), (&json!("Page 1"), &json!("Book obj/book")));
    assert_eq!((&told["readers"], &told["requests"], &told["status"]), (&json!(2), &json!(3), &json!(404)));
    assert!(told["first"].as_i64() <= told["last"].as_i64() && told["first"].as_i64() > Some(0), "{told}");
    let picture = told["picture"].as_str().expect("a URL");
    assert!(picture.starts_with("https://api.library.tamu.edu/iiif/2/"), "{picture}");
    assert_eq!(broken(&world, "?kind=unknown").await.len(), 0);
    assert!(world.metric("iiif_mender_broken_images") > 0.5);
    let shown = page(&world, "/broken").await;
    for part in
        ["file is gone", "Page 1", "Book obj/book", "2 readers", "3 requests", "/collections/1?after=0"]
    {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    // The wall and the search say the same, whether the service knows where the file was or not.
    let owner = &world.app.index.owners(&lost.identifier).expect("an index")[0];
    let id = world.app.index.manifest_id(&owner.manifest).expect("an index").expect("a manifest");
    world.bed.registers_everything();
    assert!(page(&world, &format!("/collections/{id}")).await.contains("state missing"));
    world.bed.expires(&lost.identifier);
    patiently("the history is written", || {
        world.app.index.last_heal(&lost.identifier).expect("an index").is_some()
    })
    .await;
    assert!(page(&world, &format!("/collections/{id}")).await.contains("state missing"));
    assert!(page(&world, &format!("/search?q={}", lost.identifier)).await.contains("state missing"));
    // The other page is well, and says nothing of this one.
    assert_eq!(reads(&world, &world.bed.pages()[1].image_path(&tile(1)), "192.0.2.9").await, 200);
    assert_eq!(broken(&world, "").await.len(), 1);
    world.bed.fedora.restores_file(&lost.path);
    let forgotten = does(&world, "forget", &[JSON], &json!({ "identifier": lost.identifier })).await;
    assert_eq!(forgotten.status, 200);
    assert_eq!(broken(&world, "").await.len(), 1, "nobody has seen it yet");
    assert_eq!(reads(&world, &lost.image_path(&tile(9)), "192.0.2.1").await, 200);
    assert_eq!(broken(&world, "").await, Vec::<Value>::new());
    assert!(world.metric("iiif_mender_broken_images") < 0.5);
}

#[tokio::test]
async fn a_canvas_that_the_service_refuses_is_told_with_its_status_until_a_heal_helps() {
    let world = book("heal.ladder = visit\nheal.cooldown = 10s").await;
    let lost = world.bed.page();
    world.bed.expires_everything();
    world.bed.service.fails_canvas(500);
    assert_eq!(reads(&world, &lost.image_path(&tile(0)), "192.0.2.1").await, 404);
    let told = broken(&world, "?kind=known").await.remove(0);
    assert!(["cooling", "failed"].contains(&told["reason"].as_str().expect("a word")), "{told}");
    let why = told["why"].as_str().expect("a sentence");
    assert!(why.contains("the canvas service answered 500 Internal Server Error (127.0.0.1:"), "{why}");
    assert!(why.contains("does not know the canvas"), "{why}");
    // The history says the same, with the labels, and so does the step.
    patiently("the history is written", || {
        world.app.index.last_heal(&lost.identifier).expect("an index").is_some()
    })
    .await;
    let heals = testbed::get(&url(&world, "/api/v1/heals?verdict=failed")).await.json();
    let heal = &heals["items"][0];
    assert_eq!((&heal["label"], &heal["book"]), (&json!("Page 1"), &json!("Book obj/book")));
    assert!(heal["reason"].as_str().is_some_and(|reason| reason.contains("answered 500")), "{heal}");
    let heal = testbed::get(&url(&world, &format!("/api/v1/heals/{}", heal["id"]))).await.json();
    let step = &heal["steps"][0];
    assert_eq!((&step["rung"], &step["answer"]), (&json!("visit"), &json!("refused")));
    assert!(step["reason"].as_str().is_some_and(|reason| reason.contains("answered 500")), "{step}");
    let shown = page(&world, "/heals").await;
    assert!(shown.contains("Book obj/book") && shown.contains("answered 500"), "{shown}");
    world.bed.service.canvas_is_well();
    does(&world, "forget", &[JSON], &json!({ "identifier": lost.identifier })).await;
    let healed = does(&world, "heal", &[JSON], &json!({ "identifier": lost.identifier })).await.json();
    assert_eq!(healed["ending"], "healed", "{healed}");
    assert_eq!(broken(&world, "").await, Vec::<Value>::new());
}

#[tokio::test]
async fn names_in_no_manifest_are_told_with_who_asks_and_push_out_no_book() {
    let world = book("heal.max_broken = 3").await;
    let lost = world.bed.page();
    world.bed.fedora.removes_file(&lost.path);
    assert_eq!(reads(&world, &lost.image_path(&tile(0)), "192.0.2.1").await, 404);
    let name = "/iiif/2/%3DHYPERLINK(1)%22%3Cscript%3E/full/max/0/default.jpg";
    for (reader, referrer) in [
        ("192.0.2.1", "https://blog.example/post?token=secret"),
        ("192.0.2.2", "https://blog.example/<script>alert(1)</script>"),
        ("192.0.2.3", "javascript://%0aalert(1)"),
    ] {
        let fields = [("x-forwarded-for", reader), ("referer", referrer)];
        assert_eq!(world.get_with(name, &fields).await.status, 404);
    }
    for number in 0..40 {
        let path = format!("/iiif/2/made-up-{number}/full/max/0/default.jpg");
        assert_eq!(reads(&world, &path, "192.0.2.66").await, 404);
    }
    let unknown = broken(&world, "?kind=unknown").await;
    assert_eq!((unknown.len(), broken(&world, "?kind=known").await.len()), (3, 1));
    assert!(world.events("broken_dropped") >= 37.0);
    let told = unknown.iter().find(|told| told["readers"] == 3).expect("what three readers miss stays");
    assert_eq!(
        (&told["reason"], &told["identifier"]),
        (&json!("unknown"), &json!("=HYPERLINK(1)\"<script>"))
    );
    let referrers: Vec<_> =
        told["referrers"].as_array().expect("referrers").iter().map(|it| &it["url"]).collect();
    assert_eq!(referrers[0], "https://blog.example/post", "{referrers:?}");
    assert!(!told.to_string().contains("javascript") && !told.to_string().contains("secret"), "{told}");
    let shown = page(&world, "/broken").await;
    assert!(!shown.contains("<script>alert") && !shown.contains("\"<script>"), "{shown}");
    assert!(shown.contains("https://blog.example/post") && !shown.contains("href=\"https://blog.example"));
    // A spreadsheet must not take a name for a formula.
    for (query, accept) in [("?kind=unknown&format=csv", "*/*"), ("?kind=unknown", "text/csv")] {
        let csv =
            testbed::get_with(&url(&world, &format!("/api/v1/broken{query}")), &[("accept", accept)]).await;
        assert!(csv.header("content-type").starts_with("text/csv"), "{:?}", csv.headers);
        let text = csv.text();
        assert!(
            text.starts_with("reason,why,until,book,page,image,") && text.contains("\"'=HYPERLINK"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 4, "{text}");
    }
    for wrong in ["?kind=all", "?format=xml", "?limit=0", "?before=x"] {
        assert_eq!(
            testbed::get(&url(&world, &format!("/api/v1/broken{wrong}"))).await.status,
            400,
            "{wrong}"
        );
    }
    let first = testbed::get(&url(&world, "/api/v1/broken?kind=unknown&limit=2")).await.json();
    let rest = broken(&world, &format!("?kind=unknown&limit=2&before={}", first["next"])).await;
    assert_eq!((first["items"].as_array().map(Vec::len), rest.len()), (Some(2), 1));
}

#[tokio::test]
async fn a_server_that_fails_and_a_canvas_without_a_route_have_their_own_reasons() {
    let bed = Testbed::builder().book("obj/book", 1).page_size(64, 64).start().await;
    let manifest = bed.manifest_json("obj/book");
    let elsewhere = "b9b1ae38-9c1e-54bb-8b3e-8c7b2d2f0a11";
    let world = World::beside(bed, "heal.ahead = 0\nheal.ladder = visit", |manifests| {
        // The same book at another library: none of our routes has its canvases.
        let other = manifest.replace("api.library.tamu.edu/iiif-service", "other.example/iiif-service");
        let page = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
        let other = regex::Regex::new(page).expect("a pattern").replace_all(&other, elsewhere).into_owned();
        std::fs::write(manifests.join("other.json"), other).expect("a file");
    })
    .await;
    let known = || !world.app.index.owners(elsewhere).expect("an index").is_empty();
    patiently("the other book is known", known).await;
    assert_eq!(world.get(&format!("/iiif/2/{elsewhere}/full/max/0/default.jpg")).await.status, 404);
    assert_eq!(broken(&world, "").await[0]["reason"], "no_route");
    let page = world.bed.page();
    world.bed.images.image_faults(502);
    assert_eq!(world.get(&page.image_path(&tile(0))).await.status, 502);
    let told = broken(&world, "").await.remove(0);
    assert_eq!((&told["reason"], &told["status"]), (&json!("error"), &json!(502)), "{told}");
    assert!(told["why"].as_str().is_some_and(|why| why.contains("502 Bad Gateway")), "{told}");
}

#[tokio::test]
async fn healing_that_is_off_and_a_bound_of_zero_are_respected() {
    let world = book("heal.enabled = false").await;
    let page = world.bed.page();
    world.bed.expires_everything();
    assert_eq!(reads(&world, &page.image_path(&tile(0)), "192.0.2.1").await, 404);
    assert_eq!(broken(&world, "?kind=known").await[0]["reason"], "off");
    let world = book("heal.max_broken = 0").await;
    world.bed.fedora.removes_file(&world.bed.page().path);
    assert_eq!(reads(&world, &world.bed.page().image_path(&tile(0)), "192.0.2.1").await, 404);
    assert_eq!(broken(&world, "").await, Vec::<Value>::new());
}

#[tokio::test]
async fn the_banner_names_the_service_its_error_and_the_next_try_and_has_a_button() {
    let world = book("heal.ladder = visit\nheal.breaker_failures = 1\nheal.breaker_open = 60s").await;
    world.bed.expires_everything();
    world.bed.service.fails_canvas(503);
    assert_eq!(reads(&world, &world.bed.page().image_path(&tile(0)), "192.0.2.1").await, 404);
    let servers = testbed::get(&url(&world, "/api/v1/servers")).await.json();
    let service = &servers["canvas_services"][0];
    // The other page is not asked for, and is not said to have been.
    assert_eq!(reads(&world, &world.bed.pages()[1].image_path(&tile(0)), "192.0.2.1").await, 404);
    let told = broken(&world, "").await.remove(0);
    let why = told["why"].as_str().expect("a sentence");
    assert_eq!((&told["label"], &told["reason"]), (&json!("Page 2"), &json!("cooling")), "{told}");
    assert!(why.contains("is not asked, because it only fails: the canvas service answered 503"), "{why}");
    assert!(told["until"].as_i64() > told["last"].as_i64(), "{told}");
    assert_eq!(service["breaker"], "open", "{servers}");
    assert!(service["last_error"].as_str().is_some_and(|error| error.contains("503")), "{service}");
    assert!(service["next_try"].as_i64() > service["failing_since"].as_i64(), "{service}");
    let shown = page(&world, "/").await;
    let upstream = service["upstream"].as_str().expect("a name");
    for part in [upstream, "only fails since", "503 Service Unavailable", "Try it at once"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    world.bed.service.canvas_is_well();
    let own = format!("http://{}", world.app.admin.expect("an admin listener"));
    let form = [("content-type", "application/x-www-form-urlencoded"), ("origin", &*own)];
    let back = world
        .client
        .send_body(
            http::Method::POST,
            &url(&world, "/api/v1/breakers/reset"),
            &form,
            "back=%2F".to_owned().into(),
        )
        .await
        .expect("an answer");
    assert_eq!((back.status, back.header("location")), (303, "/"));
    assert!(!page(&world, "/").await.contains("Try it at once"));
}

#[tokio::test]
async fn pages_are_found_by_their_labels_and_a_manifest_leads_to_a_viewer() {
    let world = book("admin.viewer = https://viewer.example/?iiif-content={manifest}").await;
    let found = testbed::get(&url(&world, "/api/v1/images?q=age%202")).await.json();
    assert_eq!(
        (&found["canvases"][0]["label"], &found["is_complete"]),
        (&json!("Page 2"), &json!(true)),
        "{found}"
    );
    let shown = page(&world, "/search?q=Page+2").await;
    assert!(shown.contains("/collections/1?after=1") && shown.contains("Book obj/book"), "{shown}");
    let wall = page(&world, "/collections/1?after=1").await;
    assert!(wall.contains("Page 2") && !wall.contains("Page 1"), "{wall}");
    let viewer =
        "https://viewer.example/?iiif-content=https%3A%2F%2Fapi%2Elibrary%2Etamu%2Eedu%2Fiiif%2Dservice%2F";
    assert!(wall.contains(viewer), "{wall}");
    assert!(wall.contains("href=\"https://api.library.tamu.edu/iiif/2/"), "{wall}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_live_prints_the_same_list_and_exits_by_the_books_alone() {
    let world = book("admin.max_entries = 2").await;
    let [lost, other] = [world.bed.pages()[0].clone(), world.bed.pages()[1].clone()];
    let asks = async |more: &[&str]| {
        let url = url(&world, "");
        let arguments = [&["check", "--live", "--url", url.trim_end_matches('/')], more].concat();
        let mut command = program(world.folder.path(), &arguments);
        let done = spawn_blocking(move || command.output().expect("it runs")).await.expect("it ends");
        (done.status.code(), String::from_utf8_lossy(&done.stdout).into_owned())
    };
    let (code, printed) = asks(&[]).await;
    assert_eq!(
        (code, printed.as_str()),
        (Some(0), "0 images of books and 0 names in no manifest, not seen well since\n")
    );
    for name in ["a", "b", "c%E2%80%AEd"] {
        assert_eq!(reads(&world, &format!("/iiif/2/{name}/full/max/0/default.jpg"), "192.0.2.1").await, 404);
    }
    assert_eq!(asks(&[]).await.0, Some(0), "names that are made up are no fault of a book");
    for page in [&lost, &other] {
        world.bed.fedora.removes_file(&page.path);
        assert_eq!(reads(&world, &page.image_path(&tile(0)), "192.0.2.1").await, 404);
    }
    let (code, printed) = asks(&[]).await;
    assert_eq!(code, Some(1), "{printed}");
    for part in [
        "missing   Page 1 · Book obj/book · ",
        "1 reader, 1 request",
        "unknown   c\\u{202e}d",
        "  missing   restore the file",
    ] {
        assert!(printed.contains(part), "{part} in {printed}");
    }
    assert!(
        printed.ends_with("\n2 images of books and 3 names in no manifest, not seen well since\n"),
        "{printed}"
    );
    let (code, printed) = asks(&["--json"]).await;
    let told: Value = serde_json::from_str(&printed).expect("JSON");
    let items = told["items"].as_array().expect("items");
    let first = broken(&world, "").await;
    assert_eq!((code, items.len(), &items[..2]), (Some(1), 5, &first[..]), "page by page, all of it");
    assert_eq!(items[0]["advice"], "restore the file, then Forget: the next reader has it at once");
}

#[tokio::test]
async fn check_live_that_cannot_ask_exits_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let done = program(folder.path(), &["check", "--live", "--url", "http://127.0.0.1:9"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(said.contains("gives no answer"), "{said}");
    let done = program(folder.path(), &["check", "--live", "manifests"]).output().expect("it runs");
    assert_eq!(done.status.code(), Some(2), "a source is looked at, and a list is not");
}
