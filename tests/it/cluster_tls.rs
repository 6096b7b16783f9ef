//! A Redis that is spoken to by TLS, and nodes whose clocks are wrong.

use std::time::Duration;

use iiif_mender::cluster::{Cluster, PermitResult};
use iiif_mender::observe::Metrics;
use testbed::Client;

use crate::support::cluster_world::{Fleet, PATIENT, Process, Server, TILE, all_served, book, free_port};
use crate::support::tls::makes;
use crate::support::world::{asks_until, patiently, settings};

/// A Redis with a certificate for localhost, which it shows on another port than the plain one.
async fn with_tls(folder: &std::path::Path) -> (Server, u16) {
    makes(folder, "ca", "localhost");
    let (cert, key) = (folder.join("ca.pem"), folder.join("ca.key"));
    let port = free_port();
    let (cert, key) = (cert.to_string_lossy(), key.to_string_lossy());
    let number = port.to_string();
    let tls = ["--tls-port", &number, "--tls-cert-file", &cert, "--tls-key-file", &key];
    let tls = [&tls[..], &["--tls-auth-clients", "no"]].concat();
    (Server::redis(&tls).await, port)
}

#[tokio::test]
async fn redis_by_tls_is_believed_by_its_authority_and_by_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_redis, port) = with_tls(folder.path()).await;
    let url = format!("cluster.url = rediss://localhost:{port}");
    let ca = format!("{url}\ncluster.ca = {}", folder.path().join("ca.pem").display());
    let fleet = Fleet::start(book(1).await, 3, &ca, PATIENT).await;
    fleet.are_joined(true).await;
    all_served(fleet.storm(&vec![fleet.bed.page(); 9])).await;
    fleet.settles().await;
    assert_eq!(fleet.bed.counts().canvas, 1);
    // The system's authorities do not know it.
    let alone = Fleet::start(book(1).await, 1, &url, PATIENT).await;
    all_served(alone.storm(&alone.bed.pages())).await;
    alone.are_joined(false).await;
    assert_eq!(alone.event(0, "cluster_joined"), 0.0);
}

#[tokio::test]
async fn clocks_that_are_an_hour_apart_cost_no_request_and_no_lease() {
    let redis = Server::redis(&[]).await;
    let bed = book(2).await;
    let more = format!(
        "[heal]\nladder = [\"visit\"]\nahead = 0\n[cluster]\nurl = \"{}\"\nlease = \"2s\"\ncommand_timeout = \"10s\"",
        redis.url()
    );
    let mut early = Process::start_at(&bed, &more, "-3600s").await;
    let late = Process::start_at(&bed, &more, "+3600s").await;
    bed.service.image_server_url(format!("http://127.0.0.1:{}/iiif/2", late.port));
    let client = Client::default();
    let ask = |port: u16, page: &testbed::Page| {
        let (client, url) = (client.clone(), format!("http://127.0.0.1:{port}{}", page.image_path(TILE)));
        tokio::spawn(async move { client.get(&url, &[]).await })
    };
    let pages = bed.pages();
    bed.service.stalls_canvas();
    let viewers: Vec<_> =
        [early.port, late.port, early.port, late.port].into_iter().map(|port| ask(port, &pages[0])).collect();
    bed.ledger.until(|counts| counts.canvas == 1).await;
    late.says("iiif_mender_waiting_viewers", |waiting| waiting == 2.0).await;
    early.says("iiif_mender_waiting_viewers", |waiting| waiting == 2.0).await;
    // Longer than a lease: whoever has it keeps it.
    tokio::time::sleep(Duration::from_secs(3)).await;
    bed.service.releases();
    for viewer in viewers {
        assert_eq!(viewer.await.expect("it ends").expect("an answer").status, 200);
    }
    assert_eq!(bed.counts().canvas, 1);
    // And the lease of one that dies ends, whatever its clock said.
    bed.service.stalls_canvas();
    let lost = ask(early.port, &pages[1]);
    bed.ledger.until(|counts| counts.canvas == 2).await;
    let viewer = ask(late.port, &pages[1]);
    late.says("iiif_mender_waiting_viewers", |waiting| waiting == 1.0).await;
    early.dies();
    assert!(lost.await.expect("it ends").is_err());
    bed.ledger.until(|counts| counts.canvas == 3).await;
    bed.service.releases();
    assert_eq!(viewer.await.expect("it ends").expect("an answer").status, 200);
    assert_eq!(bed.counts().canvas, 3);
}

#[tokio::test]
async fn a_viewer_on_one_node_overtakes_the_sweeps_of_all_others() {
    let redis = Server::redis(&[]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let more = format!("{PATIENT}\ncluster.url = {}", redis.url());
    let own = settings(folder.path(), "http://images.test", "http://service.test", &more).cluster;
    let nodes: Vec<_> = (0..4)
        .map(|_| Cluster::start(&own, &std::sync::Arc::new(Metrics::new())).expect("a cluster"))
        .collect();
    patiently("all are joined", || nodes.iter().all(|node| node.is_joined())).await;
    let PermitResult::Granted(held) = nodes[0].acquire("service", 1, false).await else {
        panic!("left alone")
    };
    let (tell, mut order) = tokio::sync::mpsc::unbounded_channel();
    let waits = |node: usize, is_first: bool| {
        let (node, tell) = (std::sync::Arc::clone(&nodes[node]), tell.clone());
        tokio::spawn(async move {
            let place = node.acquire("service", 1, is_first).await;
            tell.send(is_first).expect("somebody listens");
            drop(place);
        })
    };
    let queue = async |name: &str, length: i64| {
        let about = blake3::hash(b"service").to_hex()[..32].to_owned();
        let key = format!("iiif-mender:{{{about}}}:{name}");
        let waiting = async || redis.ask(&["LLEN", &key]).await;
        asks_until(name, waiting, |waiting| *waiting == redis::Value::Int(length)).await;
    };
    let sweeps = [waits(1, false), waits(2, false)];
    queue("queue", 2).await;
    let viewer = waits(3, true);
    queue("first", 1).await;
    drop(held);
    assert_eq!(order.recv().await, Some(true), "the viewer is first");
    viewer.await.expect("it ends");
    for sweep in sweeps {
        sweep.await.expect("it ends");
    }
}
