//! The index while we serve: directories are watched, sources have intervals, files are learned.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use iiif_mender::index::Index;
use iiif_mender::index::command::{Exit, IndexCommand, run};
use iiif_mender::index::learn::file_urls::{RequestPace, learn_files};
use iiif_mender::index::sources::RefreshOptions;
use iiif_mender::index::sources::build::Build;
use iiif_mender::upstream::fetch::FetcherFactory;
use serde_json::{Value, json};
use testbed::{Flow, Kind, Origin, Testbed};

use crate::support::world::{World, folder_of, patiently, settings};

/// A manifest of one canvas with these images.
fn manifest(name: &str, images: &[&str]) -> String {
    let service =
        |image: &&str| json!({"resource": {"service": {"@id": format!("https://x.test/iiif/2/{image}")}}});
    let images: Vec<Value> = images.iter().map(service).collect();
    json!({"@id": format!("https://x.test/{name}"), "@type": "sc:Manifest", "sequences": [{"canvases": [
        {"@id": format!("https://x.test/canvas/{name}"), "@type": "sc:Canvas", "images": images}]}]})
    .to_string()
}

fn is_known(index: &Index, image: &str) -> bool {
    !index.owners(image).expect("an index").is_empty()
}

#[tokio::test]
async fn a_file_that_comes_changes_or_goes_is_noticed_while_serving() {
    // Looked at once an hour: what is noticed here, the watch told.
    let world = World::with("index.refresh = 1h").await;
    let file = world.folder.path().join("manifests/new.json");
    let gauge = || world.metric("iiif_mender_index_images");
    patiently("it is counted", || gauge() > 0.0).await;
    let before = gauge();
    std::fs::write(&file, manifest("new", &["one"])).expect("a file");
    patiently("the new file is read", || is_known(&world.app.index, "one")).await;
    patiently("the gauge follows", || gauge() == before + 1.0).await;
    // As an editor writes: beside it, then over it.
    let beside = world.folder.path().join("manifests/.new.json.tmp");
    std::fs::write(&beside, manifest("new", &["two", "three"])).expect("a file");
    std::fs::rename(&beside, &file).expect("the same disk");
    patiently("the change is read", || is_known(&world.app.index, "two")).await;
    assert!(!is_known(&world.app.index, "one"));
    std::fs::remove_file(&file).expect("it is there");
    patiently("it is gone", || world.app.index.stats().expect("an index").vanished == 1).await;
    assert!(is_known(&world.app.index, "two"), "kept for the grace");
    let more = world.folder.path().join("manifests/more");
    std::fs::create_dir(&more).expect("a directory");
    std::fs::write(more.join("deep.json"), manifest("deep", &["deep"])).expect("a file");
    patiently("directories within are read", || is_known(&world.app.index, "deep")).await;
}

#[tokio::test]
async fn a_url_is_asked_again_at_the_interval_of_its_source_and_others_are_not() {
    let often = Origin::start(|_| Origin::answer(200, &[], Flow::sized(manifest("often", &["often"]))));
    let once = Origin::start(|_| Origin::answer(200, &[], Flow::sized(manifest("once", &["once"]))));
    let more = format!(
        "index.sources = [{{ url = '{}/m', interval = '5ms', rate = 0 }}, {{ url = '{}/m' }}]",
        often.url(),
        once.url()
    );
    let world = World::with(&more).await;
    often.seen_at_least(4).await;
    patiently("both are known", || is_known(&world.app.index, "often") && is_known(&world.app.index, "once"))
        .await;
    assert_eq!(once.seen().len(), 1);
    patiently("they are counted", || world.metric("iiif_mender_index_images") == 2.0).await;
}

#[tokio::test]
async fn what_passes_through_is_read_but_nothing_that_it_mentions_is_fetched() {
    let origin = Origin::start(|seen| {
        let here = format!("http://{}", seen.header("host"));
        let links = json!({"@id": "c", "@type": "sc:Collection", "manifests": [format!("{here}/iiif-service/m")],
            "service": {"@id": format!("{here}/iiif-service/search")}});
        Origin::answer(200, &[("content-type", "application/json")], Flow::sized(links.to_string()))
    });
    let folder = tempfile::tempdir().expect("a folder");
    let settings = settings(folder.path(), &origin.url(), &origin.url(), "index.sources = []");
    let app = iiif_mender::app::App::start(settings).await.expect("it starts");
    testbed::get(&format!("http://{}/iiif-service/c", app.addresses[0])).await;
    patiently("it was looked at", || app.metrics.scrape().contains("learn_nothing")).await;
    assert_eq!(origin.seen().len(), 1);
}

#[expect(clippy::print_stdout, reason = "`--nocapture` shows the figures")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_files_change_while_serving_and_every_lookup_is_right() {
    const FILES: usize = 1000;
    let bed = Testbed::builder().single("obj/one").start().await;
    let world = World::over(bed, "index.refresh = 1h").await;
    let folder = world.folder.path().join("manifests");
    let write = |at: usize, turn: &str| {
        let text = manifest(&format!("m{at}"), &[&format!("keep-{at}"), &format!("{turn}-{at}")]);
        std::fs::write(folder.join(format!("m{at}.json")), text).expect("a file");
    };
    let all_known = |turn: &'static str| {
        let index = Arc::clone(&world.app.index);
        move || (0..FILES).rev().all(|at| is_known(&index, &format!("{turn}-{at}")))
    };
    (0..FILES).for_each(|at| write(at, "old"));
    patiently("all files are read", all_known("old")).await;
    let done = Arc::new(AtomicBool::new(false));
    let (index, stop) = (Arc::clone(&world.app.index), Arc::clone(&done));
    let reader = std::thread::spawn(move || {
        let (mut asked, mut longest, mut idle) = (0_u64, Duration::ZERO, Duration::ZERO);
        while !stop.load(Ordering::Relaxed) {
            for at in 0..FILES {
                let started = Instant::now();
                let owners = index.owners(&format!("keep-{at}")).expect("an index");
                longest = longest.max(started.elapsed());
                assert_eq!(owners.len(), 1, "keep-{at}");
                assert_eq!(owners[0].canvas, format!("https://x.test/canvas/m{at}"));
                asked += 1;
                // What the machine itself takes away from a thread that does nothing for as long as a lookup.
                let started = Instant::now();
                while started.elapsed() < Duration::from_micros(30) {}
                idle = idle.max(started.elapsed());
            }
        }
        (asked, longest, idle)
    });
    let started = Instant::now();
    (0..FILES).for_each(|at| write(at, "new"));
    patiently("all changes are read", all_known("new")).await;
    let took = started.elapsed();
    done.store(true, Ordering::Relaxed);
    let (asked, longest, idle) = reader.join().expect("every lookup is right");
    println!(
        "{FILES} files changed and read in {took:?}; {asked} lookups, the longest {longest:?} (idle: {idle:?})"
    );
    assert!((0..FILES).all(|at| !is_known(&world.app.index, &format!("old-{at}"))));
}

#[tokio::test]
async fn files_are_learned_while_identifiers_are_alive_and_the_rest_is_asked_for_next_time() {
    let bed = Testbed::builder().book("obj/book", 4).page_size(64, 64).start().await;
    let folder = folder_of(&bed);
    let settings = settings(folder.path(), &bed.images.origin(), &bed.service.origin(), "");
    let index = Index::open(&settings.index.path, 100).expect("an index").with_names(&settings);
    Build::new(&index, &RefreshOptions::default())
        .run(&settings.index.sources, &mut |_, _| {})
        .expect("it builds");
    let web = FetcherFactory::new(Arc::new(settings.clone())).expect("TLS");
    let index = Arc::new(index.with_web(web, tokio::runtime::Handle::current()));
    let learn = || {
        let index = Arc::clone(&index);
        let manners = RequestPace { concurrency: 2, rate: 0 };
        tokio::task::spawn_blocking(move || learn_files(&index, manners, &mut |_| {}).expect("an index"))
    };
    bed.registers_everything();
    let pages = bed.pages();
    bed.expires(&pages[2].identifier);
    let first = learn().await.expect("no panic");
    assert_eq!((first.asked, first.learned, first.expired, first.problems.len()), (4, 3, 1, 0));
    let file = |at: usize| index.file_url(pages[at].uuid.parse().expect("a UUID")).expect("an index");
    assert_eq!(file(0).as_deref(), Some(&*pages[0].file_url));
    assert_eq!(file(2), None);
    bed.registers_everything();
    let second = learn().await.expect("no panic");
    assert_eq!((second.asked, second.learned), (1, 1), "those that are known are not asked for again");
    assert_eq!(bed.targets(Kind::Resources).len(), 5);
    let third = learn().await.expect("no panic");
    assert_eq!(third.asked, 0);
}

#[tokio::test]
async fn a_file_that_is_not_the_identifiers_own_is_not_learned_and_a_closed_door_ends_the_asking() {
    let lies = Arc::new(AtomicBool::new(true));
    let lying = Arc::clone(&lies);
    let origin = Origin::start(move |_| {
        if lying.load(Ordering::SeqCst) {
            Origin::answer(200, &[], Flow::sized("http://localhost/fcrepo/rest/else/files/else.tif"))
        } else {
            Origin::answer(403, &[], Flow::sized("Forbidden"))
        }
    });
    let folder = tempfile::tempdir().expect("a folder");
    let manifests = folder.path().join("manifests");
    std::fs::create_dir(&manifests).expect("a directory");
    let uuids: Vec<String> = (1..=600).map(|n| format!("00000000-0000-3000-8000-{n:012}")).collect();
    for (at, uuid) in uuids.iter().enumerate() {
        std::fs::write(manifests.join(format!("{at}.json")), manifest(&at.to_string(), &[uuid]))
            .expect("a file");
    }
    let settings = settings(folder.path(), &origin.url(), &origin.url(), "");
    let ask = |command: IndexCommand| {
        let settings = settings.clone();
        let work = move || {
            let mut out = Vec::new();
            let exit = run(&command, &settings, true, &mut out).expect("an index");
            (exit, serde_json::from_slice::<Value>(&out).expect("JSON"))
        };
        tokio::task::spawn_blocking(work)
    };
    let (exit, _) = ask(IndexCommand::Build { sources: Vec::new() }).await.expect("no panic");
    assert_eq!(exit, Exit::Well);
    let learn = || IndexCommand::LearnFiles { concurrency: 8, rate: 0 };
    let (exit, told) = ask(learn()).await.expect("no panic");
    assert_eq!((exit, &told["wrong"], &told["learned"]), (Exit::Well, &600.into(), &0.into()));
    lies.store(false, Ordering::SeqCst);
    let (exit, told) = ask(learn()).await.expect("no panic");
    assert_eq!((exit, &told["silent"]), (Exit::Broken, &200.into()), "not all 600 of them");
    assert!(told["problems"][0]["hint"].as_str().is_some_and(|hint| hint.contains("closed")), "{told}");
}

#[tokio::test]
async fn the_command_line_adds_refreshes_and_removes_urls() {
    let origin = Origin::start(|seen| {
        let here = format!("http://{}", seen.header("host"));
        let text = match seen.path() {
            "/c" => {
                json!({"@id": "c", "@type": "sc:Collection", "manifests": [format!("{here}/m")]}).to_string()
            }
            _ => manifest("m", &["one"]),
        };
        Origin::answer(200, &[], Flow::sized(text))
    });
    let folder = tempfile::tempdir().expect("a folder");
    let settings = settings(folder.path(), &origin.url(), &origin.url(), "index.sources = []");
    let ask = |command: IndexCommand, json: bool| {
        let settings = settings.clone();
        let work = move || {
            let mut out = Vec::new();
            let exit = run(&command, &settings, json, &mut out).expect("an index");
            (exit, String::from_utf8(out).expect("text"))
        };
        tokio::task::spawn_blocking(work)
    };
    let sources = vec![format!("{}/c", origin.url())];
    let (exit, told) = ask(IndexCommand::Add { sources: sources.clone() }, true).await.expect("no panic");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!((exit, &told["manifests"], &told["images"]), (Exit::Well, &1.into(), &1.into()));
    let (exit, told) = ask(IndexCommand::Refresh { sources: Vec::new() }, false).await.expect("no panic");
    assert_eq!(exit, Exit::Well);
    assert!(told.contains("unchanged              1"), "{told}");
    let (exit, told) = ask(IndexCommand::Remove { sources: sources.clone() }, true).await.expect("no panic");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!((exit, &told[0]["documents"]), (Exit::Well, &2.into()));
    assert_eq!(ask(IndexCommand::Remove { sources }, true).await.expect("no panic").0, Exit::Broken);
    assert!(!is_known(&Index::open(Path::new(&settings.index.path), 10).expect("an index"), "one"));
}
