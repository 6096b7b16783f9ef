//! `serve` and the command line at the same time, on one index.

use std::fs;

use iiif_mender::index::history::{HistoryFilter, HistoryPage};
use testbed::Testbed;
use tokio::task::JoinHandle;

use super::{Answer, Library, key, manifest};
use crate::support::world::{World, patiently};

const TILE: &str = "0,0,64,64/64,/0/default.jpg";

/// A library on the index of a running world, with the world's manifests.
fn library_of(world: &World) -> Library {
    let library = Library::new();
    for entry in fs::read_dir(world.folder.path().join("manifests")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, library.manifests().join(path.file_name().unwrap())).unwrap();
    }
    library.configure(world.app.index.path());
    library
}

/// Runs a command beside the proxy.
fn start(library: &Library, words: &[&str]) -> JoinHandle<Answer> {
    let mut command = library.mender(words);
    tokio::task::spawn_blocking(move || Answer::of(&command.output().unwrap()))
}

async fn run(library: &Library, words: &[&str]) -> Answer {
    start(library, words).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_by_the_command_line_is_seen_by_the_running_proxy_which_heals_all_the_while() {
    let bed = Testbed::builder().book("obj/book", 8).page_size(64, 64).start().await;
    let world = World::over(bed, "heal.ladder = visit\nheal.ahead = 0\nheal.cooldown = 0s").await;
    let library = library_of(&world);
    let pages = world.bed.pages();
    for round in 0..4 {
        fs::write(library.manifests().join("new.json"), manifest(0, round)).unwrap();
        let mut building = start(&library, &["index", "build"]);
        let mut healed = 0;
        let built = loop {
            world.bed.expires_everything();
            let page = &pages[healed % pages.len()];
            let tile = world.get(&page.image_path(TILE)).await;
            assert_eq!(tile.status, 200, "{healed}: {:?}", tile.headers);
            assert_eq!(tile.body, page.picture(TILE));
            healed += 1;
            if building.is_finished() {
                break (&mut building).await.unwrap();
            }
        };
        built.succeeds();
        let is_known = |round| !world.app.index.owners(&key(0, round, 0)).unwrap().is_empty();
        patiently("the proxy sees what was built", || is_known(round)).await;
        assert!(round == 0 || !is_known(round - 1), "and no more what was there before");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heals_are_in_the_history_with_all_that_is_known_of_them_and_a_build_keeps_them() {
    let bed = Testbed::builder().book("obj/book", 3).page_size(64, 64).start().await;
    let world = World::over(bed, "heal.ladder = visit\nheal.ahead = 0").await;
    let library = library_of(&world);
    let page = world.bed.page();
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let viewers: Vec<_> = (0..3)
        .map(|_| {
            let (client, url) = (world.client.clone(), world.url(&page.image_path(TILE)));
            tokio::spawn(async move { client.get(&url, &[]).await.expect("an answer").status })
        })
        .collect();
    patiently("all wait", || world.metric("iiif_mender_waiting_viewers") >= 3.0).await;
    world.bed.service.releases();
    for viewer in viewers {
        assert_eq!(viewer.await.unwrap(), 200);
    }
    let all = || world.app.index.history(&HistoryFilter::default(), HistoryPage::default()).unwrap();
    patiently("it is written", || !all().is_empty()).await;
    run(&library, &["index", "build"]).await.succeeds();
    let told = run(&library, &["--json", "index", "history"]).await;
    told.succeeds();
    let told: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told.as_array().unwrap().len(), 1, "{told}");
    let heal = &told[0];
    assert_eq!(heal["identifier"], *page.identifier);
    assert_eq!(heal["canvas"], *page.canvas_url);
    assert!(heal["manifest"].as_str().unwrap().ends_with(&page.presentation_path), "{heal}");
    assert_eq!(
        (&heal["verdict"], &heal["rung"], &heal["lane"]),
        (&"healed".into(), &"visit".into(), &"viewer".into())
    );
    assert_eq!(heal["waiting"], 3, "{heal}");
    let line = run(&library, &["index", "history", "--limit", "1"]).await;
    assert!(
        line.stdout.contains(&format!("3 waiting  {}  {}", page.identifier, page.canvas_url)),
        "{line:?}"
    );
}
