//! heal, while the canvas service misbehaves: the others are healed, and every failure is told with its reason.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use serde_json::json;
use testbed::{Flow, Origin, Testbed};

use crate::support::batch_world::Batch;

fn uuid(number: usize) -> String {
    format!("00000000-0000-3000-8000-{number:012}")
}

/// A canvas service whose canvases misbehave each in its way, told by the number of the canvas.
fn service(how: impl Fn(usize, usize) -> Option<http::Response<Flow>> + Send + Sync + 'static) -> Origin {
    let alive: Arc<Mutex<HashSet<usize>>> = Arc::default();
    let asked: Arc<Mutex<HashMap<usize, usize>>> = Arc::default();
    Origin::start(move |seen| {
        let name = seen.path().rsplit('/').next().unwrap_or_default();
        if seen.path().contains("/resources/") {
            let number: usize = name[24..].parse().expect("a number");
            if alive.lock().expect("alive").contains(&number) {
                return Origin::answer(200, &[], Flow::sized(format!("http://files/{number}")));
            }
            return Origin::answer(404, &[], Flow::sized(format!("Resource with id {name} not found!")));
        }
        let number: usize = name.parse().expect("a number");
        let before = {
            let mut asked = asked.lock().expect("asked");
            let times = asked.entry(number).or_default();
            *times += 1;
            *times - 1
        };
        how(number, before).unwrap_or_else(|| {
            alive.lock().expect("alive").insert(number);
            let image = json!({"resource": {"@id": format!("http://x/iiif/2/{}/full/full/0/default.jpg", uuid(number)),
                "service": {"@id": format!("http://x/iiif/2/{}", uuid(number))}}});
            let canvas = json!({"@id": format!("https://api.library.tamu.edu{}", seen.path()), "@type": "sc:Canvas",
                "images": [image]});
            Origin::answer(200, &[], Flow::sized(canvas.to_string()))
        })
    })
}

/// A folder with one manifest of so many canvases, served by `service`.
async fn book(service: &Origin, canvases: usize, more: &str) -> Batch {
    let mut batch = Batch::over(Testbed::builder().single("obj/other").start().await);
    let list: Vec<_> = (0..canvases)
        .map(|number| {
            let image = format!("https://api.library.tamu.edu/iiif/2/{}", uuid(number));
            json!({"@id": format!("https://api.library.tamu.edu/iiif-service/fedora/canvas/{number}"),
                "@type": "sc:Canvas", "label": format!("Page {number}"),
                "images": [{"@type": "oa:Annotation", "resource": {"@id": format!("{image}/full/full/0/default.jpg"),
                "service": {"@id": image}}}]})
        })
        .collect();
    let manifest = json!({"@id": "https://api.library.tamu.edu/iiif-service/fedora/presentation/book",
        "@type": "sc:Manifest", "label": "A book in trouble", "sequences": [{"canvases": list}]});
    std::fs::write(batch.file("book.json"), manifest.to_string()).expect("a file");
    batch.reconfigure(&service.url(), more);
    batch
}

const QUICK: &str = "cooldown = \"50ms\"\nbackoff_max = \"2s\"\nbreaker_failures = 100";

fn canvas_requests(service: &Origin, number: usize) -> usize {
    let path = format!("/iiif-service/fedora/canvas/{number}");
    service.seen().iter().filter(|seen| seen.path() == path).count()
}

#[tokio::test]
async fn half_the_canvases_fail_each_in_its_way_and_all_others_are_healed() {
    let service = service(|number, before| match (number % 6, before) {
        (2, _) => Some(Origin::answer(500, &[], Flow::sized("{}"))),
        (3, 0) => Some(Origin::answer(429, &[("retry-after", "1")], Flow::sized(""))),
        (4, _) => Some(Origin::answer(200, &[], Flow::sized("{\"@id\":").stuck_after(3))),
        (5, _) => Some(Origin::answer(200, &[], Flow::sized("{\"@id\": 1}").cut_after(3))),
        _ => None,
    });
    let batch = book(&service, 12, QUICK).await;
    let healed =
        batch.run(&["heal", "book.json", "--json", "--timeout", "300ms", "--concurrency", "6"]).await;
    assert_eq!(healed.code, 1, "{}", healed.stderr);
    let json = healed.json();
    let entries = json["images"].as_array().expect("entries");
    assert_eq!(entries.len(), 12);
    for entry in entries {
        let number: usize = entry["image"].as_str().expect("an image")[24..].parse().expect("a number");
        let reason = entry["reason"].as_str().unwrap_or_default();
        let (after, told) = match number % 6 {
            2 => ("expired", "the canvas service answered 500"),
            4 | 5 => ("expired", "the answer broke off, or stopped"),
            _ => ("ok", ""),
        };
        assert_eq!(entry["after"], after, "{entry}");
        assert!(reason.contains(told), "{entry}");
        let asked = canvas_requests(&service, number);
        match number % 6 {
            0 | 1 => assert_eq!(asked, 1, "{number}"),
            3 => assert_eq!(asked, 2, "{number}"),
            // A visit, and where the ladder allows it a rebuild; in three rounds where it may pass.
            2 => assert!(asked <= 2, "{number} {asked}"),
            _ => assert!(asked <= 6, "{number} {asked}"),
        }
    }
    assert_eq!((json["totals"]["healed"].clone(), json["totals"]["expired"].clone()), (6.into(), 6.into()));
}

#[tokio::test]
async fn a_service_that_asks_for_a_pause_gets_it() {
    let busy = Arc::new(Mutex::new(None));
    let since = Arc::clone(&busy);
    let service = service(move |number, before| {
        let mut since = since.lock().expect("since");
        if number == 0 && before == 0 {
            *since = Some(std::time::Instant::now());
            return Some(Origin::answer(429, &[("retry-after", "1")], Flow::sized("")));
        }
        if let Some(since) = *since {
            assert!(
                since.elapsed().as_millis() >= 900,
                "asked {:?} after it wanted a pause",
                since.elapsed()
            );
        }
        None
    });
    let batch = book(&service, 6, QUICK).await;
    let healed = batch.run(&["heal", "book.json", "--concurrency", "1"]).await;
    assert_eq!(healed.code, 0, "{}{}", healed.stdout, healed.stderr);
}

#[tokio::test]
async fn a_service_that_does_nothing_but_fail_is_given_up_and_resume_goes_on() {
    let service = service(|_, _| Some(Origin::answer(503, &[], Flow::sized(""))));
    let quick =
        "cooldown = \"50ms\"\nbackoff_max = \"100ms\"\nbreaker_failures = 2\nbreaker_open = \"200ms\"";
    let mut batch = book(&service, 20, quick).await;
    let healed = batch.run(&["heal", "book.json", "--json"]).await;
    assert_eq!(healed.code, 1);
    assert!(healed.stderr.contains("--resume goes on from"), "{}", healed.stderr);
    assert!(healed.stdout.contains("does nothing but fail"), "{}", healed.stdout);
    assert_eq!(healed.verdicts().len(), 20);
    let polite = service.seen().iter().filter(|seen| seen.path().contains("/canvas/")).count();
    assert!(polite < 20, "{polite} requests to a service that only fails");
    let well = self::service(|_, _| None);
    batch.reconfigure(&well.url(), quick);
    let resumed = batch.run(&["heal", "book.json", "--json", "--resume"]).await;
    assert_eq!(resumed.json()["totals"]["images"], 20);
    assert!(resumed.json()["totals"]["healed"].as_u64().expect("a number") >= 15, "{}", resumed.stdout);
}

#[tokio::test]
async fn a_service_that_resets_every_connection_is_told_as_such() {
    let service = service(|_, _| None);
    let batch = book(&service, 2, "cooldown = \"50ms\"\nbackoff_max = \"100ms\"").await;
    service.resets();
    let checked = batch.run(&["heal", "book.json", "--json"]).await;
    assert_eq!(checked.code, 1);
    assert_eq!(checked.verdicts().len(), 2);
    assert!(checked.json()["images"][0]["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
}
