//! The configuration read anew while requests are in flight and images are being healed.
#![allow(clippy::disallowed_methods, reason = "viewers connect to the proxy; the rule is for the product")]

use testbed::{Flow, Origin, Testbed};

use crate::support::edge::{Edge, Viewer, route, status};
use crate::support::world::{TILE, World, checked, patiently, settings};

/// Answers with a word, so that one can tell who answered.
fn named(name: &'static str) -> Origin {
    Origin::start(move |_| Origin::answer(200, &[], Flow::sized(name)))
}

/// The text of an edge's configuration before this upstream.
fn text(upstream: &str, more: &str) -> String {
    let route = route("/", &format!("{upstream}/"), "plain", "");
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[index]\nsources = [{{ path = \".\" }}]\n{route}{more}"
    )
}

#[tokio::test]
async fn new_requests_go_by_the_new_routes_and_those_in_flight_end_by_the_old() {
    let (old, new) = (named("old"), named("new"));
    let mut edge = Edge::before(&old.url()).await;
    let mut kept = edge.viewer().await;
    kept.gets("/").await;
    kept.until("old").await;
    old.stalls();
    let mut in_flight = edge.viewer().await;
    in_flight.gets("/").await;
    old.seen_at_least(2).await;
    let folder = tempfile::tempdir().expect("a directory");
    let mut settings = checked(folder.path(), &text(&new.url(), ""), "");
    settings.index.path = edge.app.settings().index.path.clone();
    settings.index.sources = edge.app.settings().index.sources.clone();
    let changes = edge.app.apply(settings).expect("it is in order");
    assert_eq!((changes.keys, changes.after_restart), (vec!["routes".to_owned()], Vec::new()));
    // On a new connection, and on one that was open before.
    assert_eq!(edge.get("/").await.text(), "new");
    kept.gets("/").await;
    kept.until("new").await;
    old.releases();
    in_flight.until("old").await;
    assert_eq!((old.seen().len(), new.seen().len()), (2, 2));
    assert_eq!(edge.metric(r#"iiif_mender_config_reloads_total{result="applied"}"#), 1.0);
}

#[tokio::test]
async fn what_cannot_be_used_changes_nothing() {
    let (old, new) = (named("old"), named("new"));
    let mut edge = Edge::before(&old.url()).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().map(|address| (address, taken)).expect("an address");
    let folder = tempfile::tempdir().expect("a directory");
    for (more, why) in [
        (format!("server.listen = {}", taken.0), taken.0.to_string()),
        ("server.tls = { cert = \"no.pem\", key = \"no.key\" }".to_owned(), "no.pem".to_owned()),
        ("upstream.ca = no-ca.pem".to_owned(), "no-ca.pem".to_owned()),
    ] {
        let mut settings = checked(folder.path(), &text(&new.url(), ""), &more);
        settings.index = edge.app.settings().index.clone();
        let refused = edge.app.apply(settings).expect_err("it cannot be used").to_string();
        assert!(refused.contains(&why), "{refused}");
        assert_eq!(edge.get("/").await.text(), "old");
    }
    assert_eq!(edge.metric(r#"iiif_mender_config_reloads_total{result="refused"}"#), 3.0);
}

#[tokio::test]
async fn addresses_are_opened_and_closed_and_what_is_in_flight_on_a_closed_one_ends() {
    let origin = named("here");
    let mut edge = Edge::before(&origin.url()).await;
    let (first, index) = (edge.address(), edge.app.settings().index.clone());
    let second =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    let folder = tempfile::tempdir().expect("a directory");
    let with = |listen: &str| {
        let mut settings =
            checked(folder.path(), &text(&origin.url(), ""), &format!("server.listen = {listen}"));
        settings.index = index.clone();
        settings
    };
    edge.app.apply(with(&format!("127.0.0.1:0,{second}"))).expect("both");
    assert_eq!(edge.app.addresses, [first, second]);
    origin.stalls();
    let mut in_flight = Viewer::to(first).await;
    in_flight.gets("/").await;
    origin.seen_at_least(1).await;
    edge.app.apply(with(&second.to_string())).expect("the second alone");
    patiently("the first is closed", || std::net::TcpStream::connect(first).is_err()).await;
    origin.releases();
    let answer = in_flight.rest().await.text;
    assert!(status(&answer) == 200 && answer.ends_with("here"), "{answer}");
    assert_eq!(edge.get("/").await.text(), "here");
    assert_eq!(edge.app.stop().await, 0);
}

#[tokio::test]
async fn keys_that_need_a_restart_are_told_and_left() {
    let origin = named("here");
    let mut edge = Edge::before(&origin.url()).await;
    let folder = tempfile::tempdir().expect("a directory");
    let more = "index.path = elsewhere.sqlite3\nadmin.listen = off\nserver.idle_timeout = 5s";
    let changes = edge.app.apply(checked(folder.path(), &text(&origin.url(), ""), more)).expect("in order");
    assert_eq!(changes.after_restart, ["admin.listen", "index.path"]);
    assert!(changes.keys.contains(&"server.idle_timeout".to_owned()), "{changes:?}");
    assert!(!folder.path().join("elsewhere.sqlite3").exists());
    let admin = edge.app.admin.expect("admin pages");
    assert_eq!(testbed::get(&format!("http://{admin}/livez")).await.status, 200);
    // The same once more: nothing else is different.
    let again = edge.app.apply(checked(folder.path(), &text(&origin.url(), ""), more)).expect("in order");
    assert!(again.keys.is_empty() && !again.after_restart.is_empty(), "{again:?}");
}

/// Settings of this world with these lines besides, for its own index.
fn anew(world: &World, more: &str) -> iiif_mender::config::Settings {
    settings(world.folder.path(), &world.bed.images.origin(), &world.bed.service.origin(), more)
}

#[tokio::test]
async fn a_heal_under_way_is_not_begun_again_by_a_reload() {
    let visit = "heal.ahead = 0\nheal.ladder = visit,rebuild";
    let mut world = World::with(visit).await;
    let page = world.bed.page();
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let path = page.image_path(TILE);
    let asks = |world: &World| {
        let (client, url) = (world.client.clone(), world.url(&path));
        tokio::spawn(async move { client.get(&url, &[]).await.expect("an answer") })
    };
    let before = asks(&world);
    world.bed.ledger.until(|counts| counts.canvas == 1).await;
    // Other numbers, other lanes, and the routes in another order under other prefixes.
    world.app.apply(anew(&world, &format!("{visit}\nheal.wait = 24s\nheal.concurrency = 4"))).expect("it is");
    let after = asks(&world);
    patiently("both wait", || world.metric("iiif_mender_waiting_viewers") == 2.0).await;
    assert_eq!(world.metric("iiif_mender_flights"), 1.0);
    world.bed.service.releases();
    for answer in [before, after] {
        let answer = answer.await.expect("not aborted");
        assert_eq!((answer.status, answer.body), (200, page.picture(TILE)));
    }
    world.settles().await;
    assert_eq!(world.bed.counts().canvas, 1);
}

#[tokio::test]
async fn a_document_is_shared_across_a_reload_unless_the_new_settings_make_it_another_one() {
    let mut world = World::start().await;
    let path = world.bed.page().presentation_path;
    world.bed.service.stalls_after_key();
    let first = world.asks(&path);
    world.bed.ledger.until(|counts| counts.presentation == 1).await;
    world.app.apply(anew(&world, "heal.wait = 24s")).expect("in order");
    let shares = world.asks(&path);
    patiently("it is shared", || world.events("collapsed") == 1.0).await;
    world.app.apply(anew(&world, "heal.wait = 24s\npresentation.repair = false")).expect("in order");
    let alone = world.asks(&path);
    patiently("all three are connected", || world.metric("iiif_mender_connections") >= 3.0).await;
    world.bed.service.releases();
    for answer in [first, shares, alone] {
        assert_eq!(answer.await.expect("not aborted").status, 200);
    }
    assert_eq!((world.bed.counts().presentation, world.events("collapsed")), (2, 1.0));
}

#[tokio::test]
async fn cool_downs_and_missing_files_are_remembered_across_reloads_and_other_routes() {
    let visit = "heal.ahead = 0\nheal.ladder = visit,rebuild\nheal.cooldown = 1h\nheal.backoff_max = 1h";
    let mut world = World::over(Testbed::builder().book("obj/book", 2).start().await, visit).await;
    let pages = world.bed.pages();
    world.bed.expires_everything();
    world.bed.service.fails_canvas(500);
    let path = pages[0].image_path(TILE);
    assert_eq!(world.get(&path).await.header("heal-status"), "failed");
    world.settles().await;
    let asked = world.bed.counts().healing();
    // One more route before all others moves them all.
    let origin = named("elsewhere");
    let elsewhere = route("/a-longer-prefix-than-all/", &format!("{}/", origin.url()), "plain", "");
    let mut moved = anew(&world, &format!("{visit}\nheal.wait = 20s"));
    let folder = tempfile::tempdir().expect("a directory");
    let other = checked(folder.path(), &elsewhere, "heal.enabled = false");
    moved.routes.insert(0, other.routes[0].clone());
    let changes = world.app.apply(moved).expect("it is in order");
    assert_eq!(changes.keys, ["heal.wait", "routes"]);
    world.bed.service.recovers();
    assert_eq!(world.get(&path).await.header("heal-status"), "cooling");
    assert_eq!(world.bed.counts().healing(), asked, "a reload is no reason to ask again");
}

#[tokio::test]
async fn an_open_breaker_stays_open() {
    let more = "heal.ahead = 0\nheal.ladder = visit\nheal.breaker_failures = 2\nheal.breaker_open = 1h\nheal.concurrency = 1";
    let mut world = World::over(Testbed::builder().book("obj/book", 6).start().await, more).await;
    let pages = world.bed.pages();
    world.bed.expires_everything();
    world.bed.service.fails_canvas(503);
    for page in &pages[..3] {
        assert_eq!(world.get(&page.image_path(TILE)).await.status, 404);
    }
    world.settles().await;
    assert_eq!(world.events("breaker_opened"), 1.0);
    let asked = world.bed.counts().canvas;
    world.bed.service.recovers();
    for bound in ["heal.breaker_open = 1h", "heal.breaker_open = 2h"] {
        let changed = format!("{more}\n{bound}\nheal.wait = 21s").replacen("heal.breaker_open = 1h\n", "", 1);
        world.app.apply(anew(&world, &changed)).expect("it is in order");
        assert_eq!(world.get(&pages[4].image_path(TILE)).await.header("heal-status"), "cooling");
    }
    assert_eq!(world.bed.counts().canvas, asked);
}
