//! Several `heal` runs are one job: against a real Redis, each run a process of its own.

use std::collections::HashMap;
use std::process::Output;

use testbed::{Kind, Testbed};

use crate::support::batch_world::Batch;
use crate::support::cluster_world::Server;

const PAGES: u32 = 40;

/// Two canvas requests at once among all of them, and a Redis that is patient on a busy machine.
async fn world(redis: &Server, pages: u32) -> Batch {
    let more = format!(
        "[cluster]\nurl = \"{}\"\ncommand_timeout = \"10s\"\nconnect_timeout = \"10s\"\nlease = \"2s\"",
        redis.url()
    );
    let bed = Testbed::builder().book("obj/book", pages).page_size(64, 64).start().await;
    let batch = Batch::with(bed, &more);
    batch.bed.expires_everything();
    batch
}

/// How often each canvas was asked for.
fn asked(batch: &Batch) -> HashMap<String, usize> {
    let mut asked = HashMap::new();
    for target in batch.bed.targets(Kind::Visit) {
        *asked.entry(target).or_default() += 1;
    }
    asked
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const JOB: [&str; 4] = ["heal", "--json", "--job", "tonight"];

#[tokio::test]
async fn three_runs_share_one_job_each_canvas_is_asked_for_once_and_each_reports_all() {
    let redis = Server::redis(&[]).await;
    let batch = world(&redis, PAGES).await;
    batch.bed.service.stalls_canvas();
    let runs: Vec<_> = (0..3).map(|_| batch.command(&JOB).spawn().expect("it starts")).collect();
    batch.bed.ledger.until(|counts| counts.canvas >= 1).await;
    batch.bed.service.releases();
    let mut own = 0;
    for run in runs {
        let output = run.wait_with_output().await.expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        let totals = json(&output)["totals"].clone();
        assert_eq!((&totals["images"], &totals["healed"]), (&PAGES.into(), &PAGES.into()), "{totals}");
        let words = told(&output);
        let line = words.lines().find_map(|line| line.strip_prefix("job tonight: ")).expect("its share");
        if line.contains(" by this run") {
            own += line.split(' ').next().and_then(|share| share.parse::<u32>().ok()).expect("a number");
        }
    }
    assert_eq!(own, PAGES, "nobody did what another did");
    let asked = asked(&batch);
    assert_eq!(asked.len(), PAGES as usize);
    assert!(asked.values().all(|times| *times == 1), "{asked:?}");
    assert!(batch.bed.counts().canvas_most <= 2, "{}", batch.bed.counts().canvas_most);
}

#[tokio::test]
async fn whoever_comes_when_the_job_is_done_is_told_so_and_has_the_whole_report() {
    let redis = Server::redis(&[]).await;
    let batch = world(&redis, 6).await;
    let first = batch.run(&JOB).await;
    assert_eq!(first.code, 0, "{}", first.stderr);
    batch.bed.ledger.clear();
    let late = batch.run(&JOB).await;
    assert_eq!(late.code, 0, "{}", late.stderr);
    assert!(late.stderr.contains("job tonight: 6 canvases, all by others"), "{}", late.stderr);
    assert_eq!(late.verdicts(), first.verdicts());
    let counts = batch.bed.counts();
    assert_eq!((counts.canvas, counts.resources), (0, 0), "it does not even look");
    let other = batch.run(&["heal", "--all", "--job", "tonight"]).await;
    assert_eq!(other.code, 2);
    assert!(other.stderr.contains("the job tonight is of another run (heal)"), "{}", other.stderr);
}

#[tokio::test]
async fn a_run_that_is_killed_leaves_its_canvases_to_the_others_and_only_those_are_asked_for_again() {
    let redis = Server::redis(&[]).await;
    let batch = world(&redis, 12).await;
    batch.bed.service.stalls_canvas();
    let mut first = batch.command(&JOB).spawn().expect("it starts");
    batch.bed.ledger.until(|counts| counts.canvas == 2).await;
    let second = batch.command(&JOB).spawn().expect("it starts");
    first.start_kill().expect("it is there");
    first.wait().await.expect("it ends");
    batch.bed.service.releases();
    let output = second.wait_with_output().await.expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(json(&output)["totals"]["images"], 12);
    let asked = asked(&batch);
    assert_eq!(asked.len(), 12);
    let again = asked.values().filter(|times| **times > 1).count();
    assert!(again <= 2 && asked.values().all(|times| *times <= 2), "{asked:?}");
}

#[tokio::test]
async fn a_job_waits_while_redis_is_away_and_goes_on_when_it_is_back() {
    let mut redis = Server::redis(&[]).await;
    let batch = world(&redis, 12).await;
    batch.bed.service.stalls_canvas();
    let run = batch.command(&JOB).spawn().expect("it starts");
    batch.bed.ledger.until(|counts| counts.canvas == 2).await;
    redis.dies();
    batch.bed.service.releases();
    redis.comes_back().await;
    let output = run.wait_with_output().await.expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(json(&output)["totals"]["images"], 12);
    assert!(asked(&batch).values().all(|times| *times == 1), "{:?}", asked(&batch));
}

#[tokio::test]
async fn without_redis_there_is_no_job() {
    let batch = Batch::book(1).await;
    let refused = batch.run(&JOB).await;
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("[cluster] url"), "{}", refused.stderr);
}
