//! What canvas services do with the requests of a heal: whether they build beside, refuse, or redirect, and what operators are
//! shown of that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Response;
use testbed::{Flow, Origin, Seen};

use crate::support::healing_world::{Before, book, lost, read};
use crate::support::world::World;

#[tokio::test]
async fn whether_a_canvas_service_builds_beside_is_shown_on_the_page_in_the_api_and_in_the_scrape() {
    for (honours, word, text) in [
        (true, "honoured", "builds beside the stored canvas"),
        (false, "ignored", "the stored canvas itself is asked for"),
    ] {
        let world = World::with("heal.ahead = 0").await;
        if !honours {
            world.bed.service.ignores_disallow();
        }
        let admin = |path: &str| format!("http://{}{path}", world.app.admin.expect("an admin listener"));
        let shown = async || {
            let servers: serde_json::Value =
                serde_json::from_slice(&testbed::get(&admin("/api/v1/servers")).await.body).expect("JSON");
            servers["canvas_services"][0].clone()
        };
        assert_eq!(shown().await["variants"], "unknown");
        world.bed.expires_everything();
        assert_eq!(world.get(&world.bed.page().image_path("0,0,64,64/64,/0/default.jpg")).await.status, 200);
        world.settles().await;
        let service = shown().await;
        assert_eq!((&service["variants"], &service["breaker"]), (&word.into(), &"closed".into()));
        let page = testbed::get(&admin("/")).await.text();
        assert!(page.contains("Canvas services") && page.contains(text), "{page}");
        let upstream = service["upstream"].as_str().expect("text");
        for state in ["honoured", "ignored", "unknown"] {
            let series =
                format!(r#"iiif_mender_canvas_service_variants{{upstream="{upstream}",state="{state}"}}"#);
            assert_eq!(world.metric(&series), f64::from(u8::from(state == word)), "{series}");
        }
    }
}

/// Ways in which a gateway before a canvas service keeps requests with a `disallow` from it.
const REFUSALS: [&str; 9] = ["302", "400", "403", "404", "414", "429", "500", "503", "a page"];

fn refused(kind: &str, seen: &Seen) -> Response<Flow> {
    match kind {
        "302" => Origin::answer(302, &[("location", seen.path())], Flow::sized("")),
        "a page" => {
            Origin::answer(200, &[("content-type", "text/html")], Flow::sized("<html>blocked</html>"))
        }
        status => Origin::answer(status.parse().expect("a status"), &[], Flow::sized("no")),
    }
}

fn is_canvas(seen: &Seen) -> bool {
    seen.path().contains("/fedora/canvas/")
}

#[tokio::test]
async fn a_gateway_that_refuses_the_parameter_of_a_variant_keeps_no_image_from_being_healed() {
    for kind in REFUSALS {
        for json_kept in [false, true] {
            // These say nothing of the parameter, so that nothing is built over.
            if json_kept && matches!(kind, "a page" | "500") {
                continue;
            }
            let world = book(6, "").await;
            let pages = world.bed.pages();
            world.bed.expires_all(json_kept);
            let before = Before::of(&world);
            let is_variant =
                |seen: &Seen| is_canvas(seen) && seen.query().is_some_and(|query| query.contains("disallow"));
            world.bed.service.answers(move |seen| is_variant(seen).then(|| refused(kind, seen)));
            let statuses = read(&world, &pages, 0).await;
            assert_eq!(lost(&statuses), 0, "{kind}, JSON kept: {json_kept}: {statuses:?}");
            world.settles().await;
            before.no_worse(&world);
            let counts = world.bed.counts();
            assert!(counts.visits + counts.rebuilds <= 12, "{kind}, JSON kept: {json_kept}: {counts:?}");
        }
    }
}

#[tokio::test]
async fn a_canvas_that_moved_within_its_service_is_followed() {
    let locations: [fn(&Seen) -> String; 3] = [
        |seen| format!("{}&moved=1", seen.target),
        |seen| format!("https://api.library.tamu.edu{}&moved=1", seen.target),
        |seen| format!("?{}&moved=1", seen.query().unwrap_or_default()),
    ];
    for location in locations {
        for json_kept in [false, true] {
            let world = book(6, "").await;
            let pages = world.bed.pages();
            world.bed.expires_all(json_kept);
            let before = Before::of(&world);
            world.bed.service.answers(move |seen| {
                let has_moved = is_canvas(seen) && !seen.target.contains("moved=");
                has_moved.then(|| Origin::answer(301, &[("location", &location(seen))], Flow::sized("")))
            });
            let statuses = read(&world, &pages, 0).await;
            assert_eq!(lost(&statuses), 0, "JSON kept: {json_kept}: {statuses:?}");
            world.settles().await;
            before.no_worse(&world);
            assert_eq!(world.bed.counts().rebuilds, 0, "it builds beside");
        }
    }
}

#[tokio::test]
async fn a_redirect_out_of_the_canvas_service_or_in_a_circle_is_not_followed() {
    let elsewhere = Origin::fixed(200, "{}");
    let world = book(2, "").await;
    let pages = world.bed.pages();
    world.bed.expires_everything();
    let away = format!("{}/iiif-service/fedora/canvas/obj/book", elsewhere.url());
    for location in
        [away.as_str(), "?again", "/resources/x", "/../x", "https://api.library.tamu.edu/iiif/2/x"]
    {
        let to = location.to_owned();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        world.bed.service.answers(move |seen| {
            is_canvas(seen).then(|| {
                counted.fetch_add(1, Ordering::Relaxed);
                Origin::answer(302, &[("location", &to)], Flow::sized(""))
            })
        });
        let statuses = read(&world, &pages[..1], 0).await;
        assert_eq!(statuses, [404], "{location}");
        world.settles().await;
        assert!(asked.load(Ordering::Relaxed) <= 16, "{location}: {asked:?}");
    }
    assert!(elsewhere.seen().is_empty());
}

/// Timers of connections to this port, as the kernel shows them; "02" is that of keep-alive probes.
fn timers_of_connections_to(port: u16) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a table of connections");
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let is_open = |row: &Vec<&str>| row[2].ends_with(&format!(":{port:04X}")) && row[3] == "01";
    rows.filter(is_open).map(|row| row[5][..2].to_owned()).collect()
}

#[tokio::test]
async fn a_connection_to_a_service_is_probed_so_that_a_host_that_is_gone_is_noticed() {
    let world = book(1, "").await;
    world.bed.expires_everything();
    assert_eq!(lost(&read(&world, &world.bed.pages(), 0).await), 0);
    world.settles().await;
    let url: http::Uri = world.bed.service.url().parse().expect("a URL");
    let timers = timers_of_connections_to(url.port_u16().expect("a port"));
    // The image server has connections of its own to the service.
    assert!(timers.contains(&"02".to_owned()), "{timers:?}");
}
