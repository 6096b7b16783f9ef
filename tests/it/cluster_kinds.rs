//! Whatever Redis is: behind Sentinels, as a Redis Cluster, with a password. And whoever dies.

use std::time::Duration;

use testbed::Client;

use crate::support::cluster_world::{Fleet, PATIENT, Process, Server, TILE, all_served, book, free_port};

#[tokio::test]
async fn the_node_that_asks_is_killed_and_the_other_asks_once_more_and_serves() {
    let redis = Server::redis(&[]).await;
    let bed = book(1).await;
    let page = bed.page();
    let more = format!(
        "[heal]\nladder = [\"visit\"]\nahead = 0\n[cluster]\nurl = \"{}\"\nlease = \"2s\"\ncommand_timeout = \"10s\"",
        redis.url()
    );
    let mut first = Process::start(&bed, &more).await;
    let second = Process::start(&bed, &more).await;
    bed.service.image_server_url(format!("http://127.0.0.1:{}/iiif/2", second.port));
    bed.service.stalls_canvas();
    let client = Client::default();
    let ask = |port: u16| {
        let (client, url) = (client.clone(), format!("http://127.0.0.1:{port}{}", page.image_path(TILE)));
        tokio::spawn(async move { client.get(&url, &[]).await })
    };
    let lost = ask(first.port);
    bed.ledger.until(|counts| counts.canvas == 1).await;
    let viewers: Vec<_> = (0..20).map(|_| ask(second.port)).collect();
    second.says("iiif_mender_waiting_viewers", |waiting| waiting == 20.0).await;
    first.dies();
    assert!(lost.await.expect("it ends").is_err(), "its viewer is lost with it");
    bed.ledger.until(|counts| counts.canvas == 2).await;
    bed.service.releases();
    for viewer in viewers {
        let answer = viewer.await.expect("it ends").expect("an answer");
        assert_eq!((answer.status, answer.body), (200, page.picture(TILE)));
    }
    second.says("iiif_mender_flights", |flights| flights == 0.0).await;
    assert_eq!(bed.counts().canvas, 2, "one more, after the lease");
}

#[tokio::test]
async fn sentinels_name_the_master_and_the_next_one_after_a_failover() {
    let mut master = Server::redis(&[]).await;
    let of = ["--replicaof", "127.0.0.1", &master.port.to_string()].map(str::to_owned);
    let replica = Server::redis(&of.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut sentinels = Vec::new();
    for _ in 0..3 {
        let port = free_port();
        let file = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
        let text = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {} 2\n\
             sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 3000\n",
            master.port
        );
        std::fs::write(&file, text).expect("a file");
        let path = file.to_str().expect("a path").to_owned();
        sentinels.push((Server::start("redis-sentinel", port, &[&path]).await, file));
    }
    // They know each other and the replica, or there will be no failover.
    for (sentinel, _) in &sentinels {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        loop {
            let known = sentinel.text(&["INFO", "sentinel"]).await;
            if known.contains("slaves=1,sentinels=3") {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{known}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let urls: Vec<_> = sentinels.iter().map(|(sentinel, _)| format!("\"{}\"", sentinel.url())).collect();
    let redis = format!("cluster.url = [{}]\ncluster.kind = sentinel", urls.join(", "));
    let fleet = Fleet::start(book(3).await, 3, &redis, PATIENT).await;
    fleet.are_joined(true).await;
    let pages = fleet.bed.pages();
    all_served(fleet.storm(&vec![pages[0].clone(); 9])).await;
    fleet.settles().await;
    assert_eq!(fleet.bed.counts().canvas, 1);
    // In the middle of a storm: nobody waits for the failover.
    fleet.bed.service.stalls_canvas();
    let storm = fleet.storm(&vec![pages[1].clone(); 9]);
    fleet.bed.ledger.until(|counts| counts.canvas == 2).await;
    master.dies();
    fleet.are_joined(false).await;
    fleet.bed.service.releases();
    all_served(storm).await;
    fleet.settles().await;
    let alone = fleet.bed.counts().canvas;
    assert!((2..=4).contains(&alone), "at most one request a node: {alone}");
    // It closes its connections as it becomes the master.
    let replica_leads = async || {
        let said = replica.try_ask(&["INFO", "replication"]).await;
        said.is_ok_and(|said| format!("{said:?}").contains("role:master"))
    };
    let deadline = std::time::Instant::now() + Duration::from_mins(1);
    while !replica_leads().await {
        assert!(std::time::Instant::now() < deadline, "no failover");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fleet.are_joined(true).await;
    all_served(fleet.storm(&vec![pages[2].clone(); 9])).await;
    fleet.settles().await;
    assert_eq!(fleet.bed.counts().canvas, alone + 1);
}

#[tokio::test]
async fn a_redis_cluster_of_three_shares_as_one_server_does() {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(Server::redis(&["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]).await);
    }
    let thirds = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
    for (server, (from, to)) in servers.iter().zip(thirds) {
        server.ask(&["CLUSTER", "ADDSLOTSRANGE", from, to]).await;
        server.ask(&["CLUSTER", "MEET", "127.0.0.1", &servers[0].port.to_string()]).await;
    }
    for server in &servers {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        loop {
            let info = server.text(&["CLUSTER", "INFO"]).await;
            if info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3") {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{info}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let urls: Vec<_> = servers.iter().map(|server| format!("\"{}\"", server.url())).collect();
    let redis = format!("cluster.url = [{}]\ncluster.kind = cluster", urls.join(", "));
    let fleet = Fleet::start(book(20).await, 3, &redis, PATIENT).await;
    fleet.are_joined(true).await;
    let pages = fleet.bed.pages();
    let everywhere: Vec<_> =
        pages.iter().flat_map(|page| [page.clone(), page.clone(), page.clone()]).collect();
    all_served(fleet.storm(&everywhere)).await;
    fleet.settles().await;
    let counts = fleet.bed.counts();
    assert_eq!(counts.canvas, 20);
    assert!(counts.canvas_most <= 2, "{}", counts.canvas_most);
    for (at, server) in servers.iter().enumerate() {
        let scripts = server.commands().await.into_iter().find(|(name, _)| name == "evalsha");
        assert!(scripts.is_some_and(|(_, calls)| calls > 0), "node {at} has its share");
    }
}

#[tokio::test]
async fn a_password_is_sent_and_a_wrong_one_leaves_the_node_alone_and_serving() {
    let redis = Server::redis(&["--protected-mode", "no"]).await;
    redis
        .ask(&["ACL", "SETUSER", "mender", "on", ">secret", "~iiif-mender:*", "&iiif-mender:*", "+@all"])
        .await;
    let with = |password: &str| {
        format!("cluster.url = {}\ncluster.username = mender\ncluster.password = {password}", redis.url())
    };
    let fleet = Fleet::start(book(1).await, 1, &with("secret"), PATIENT).await;
    fleet.are_joined(true).await;
    let alone = Fleet::start(book(1).await, 1, &with("wrong"), PATIENT).await;
    let page = alone.bed.page();
    assert_eq!(alone.asks(0, &page.image_path(TILE)).await.expect("an answer").status, 200);
    alone.are_joined(false).await;
    let ready = format!("http://{}/readyz", alone.nodes[0].app.admin.expect("an admin listener"));
    assert_eq!(alone.client.get(&ready, &[]).await.expect("an answer").status, 200, "readiness stays green");
}
