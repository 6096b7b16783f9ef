//! Killed at any moment, a run goes on without asking twice for what it had done, and its report is whole.

use std::collections::HashMap;
use std::time::Duration;

use testbed::{Kind, Testbed};

use crate::support::batch_world::Batch;

#[tokio::test]
async fn killed_ten_times_and_resumed_each_canvas_is_asked_for_once_more_at_most() {
    let batch = Batch::over(Testbed::builder().book("obj/book", 12).page_size(64, 64).start().await);
    batch.bed.service.canvas_delay(Duration::from_millis(15));
    for round in 0..10 {
        batch.bed.expires_everything();
        batch.bed.ledger.clear();
        let mut child = batch.command(&["heal"]).spawn().expect("it starts");
        let until = fastrand::usize(1..12);
        batch.bed.ledger.until(|counts| counts.canvas >= until).await;
        child.start_kill().expect("it is there");
        child.wait().await.expect("it ends");
        let resumed = batch.run(&["heal", "--resume", "--json"]).await;
        assert_eq!(resumed.code, 0, "round {round}: {}{}", resumed.stdout, resumed.stderr);
        let totals = resumed.json()["totals"].clone();
        assert_eq!(
            (totals["images"].clone(), totals["broken"].clone()),
            (12.into(), 12.into()),
            "round {round}"
        );
        assert_eq!(resumed.verdicts().len(), 12, "round {round}");
        let mut asked: HashMap<String, usize> = HashMap::new();
        for target in batch.bed.targets(Kind::Visit) {
            *asked.entry(target).or_default() += 1;
        }
        assert!(asked.values().all(|times| *times <= 2), "round {round}: {asked:?}");
        // Only what was in flight may be asked for again: two lanes.
        assert!(asked.values().sum::<usize>() <= 14, "round {round}: {asked:?}");
        assert!(!batch.file("iiif-mender.sqlite3.heal-journal").exists());
    }
}

#[tokio::test]
async fn ctrl_c_lets_what_is_under_way_end_and_says_how_to_go_on() {
    let batch = Batch::book(8).await;
    batch.bed.expires_everything();
    batch.bed.service.stalls_canvas();
    let child = batch.command(&["heal", "--json"]).spawn().expect("it starts");
    batch.bed.ledger.until(|counts| counts.canvas == 2).await;
    let pid = child.id().expect("it runs").to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().expect("kill").success());
    let journal = batch.file("iiif-mender.sqlite3.heal-journal");
    assert!(journal.exists());
    batch.bed.service.releases();
    let ended = child.wait_with_output().await.expect("it ends");
    assert_eq!(ended.status.code(), Some(1));
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(told.contains("stopping: what is under way ends"), "{told}");
    assert!(told.contains("--resume goes on from"), "{told}");
    let resumed = batch.run(&["heal", "--resume", "--json"]).await;
    assert_eq!(
        (resumed.code, resumed.json()["totals"]["healed"].clone()),
        (0, 8.into()),
        "{}",
        resumed.stdout
    );
    assert_eq!(batch.bed.counts().canvas, 8);
}

#[tokio::test]
async fn a_second_ctrl_c_ends_it_at_once() {
    let batch = Batch::book(4).await;
    batch.bed.expires_everything();
    batch.bed.service.stalls_canvas();
    let mut child = batch.command(&["heal"]).spawn().expect("it starts");
    batch.bed.ledger.until(|counts| counts.canvas == 2).await;
    let pid = child.id().expect("it runs").to_string();
    let ended = loop {
        let _ = std::process::Command::new("kill").args(["-INT", &pid]).status();
        if let Ok(ended) = tokio::time::timeout(Duration::from_millis(100), child.wait()).await {
            break ended.expect("it ends");
        }
    };
    assert_eq!(ended.code(), Some(1));
    batch.bed.service.releases();
}

#[tokio::test]
async fn a_journal_of_another_run_is_refused_and_a_torn_line_is_cut_off() {
    let batch = Batch::book(3).await;
    let journal = batch.file("journal");
    let begin = r#"{"begin":{"version":1,"command":"heal","sources":["elsewhere"],"started":1}}"#;
    std::fs::write(&journal, format!("{begin}\n")).expect("a file");
    let refused = batch.run(&["heal", "--resume", "--journal", "journal"]).await;
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("heal elsewhere"), "{}", refused.stderr);
    let begin = begin.replace("[\"elsewhere\"]", "[]");
    std::fs::write(&journal, format!("{begin}\n{{\"asking\":12")).expect("a file");
    batch.bed.expires_everything();
    let resumed = batch.run(&["heal", "--resume", "--journal", "journal", "--json"]).await;
    assert_eq!((resumed.code, resumed.json()["started"].clone()), (0, 1.into()), "{}", resumed.stderr);
    assert!(!journal.exists());
}
