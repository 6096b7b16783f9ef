//! A Redis that misbehaves in each way that it can: nobody waits for it for long, and nobody goes without a picture.
#![allow(
    clippy::disallowed_methods,
    reason = "a proxy of the tests connects to Redis; the rule is for the product"
)]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use testbed::Client;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};

use crate::support::cluster_world::{AS_SHIPPED, Fleet, Server, TILE, all_served, book};

/// How a Redis behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// Each command arrives late.
    Slow(Duration),
    /// It answers this, whatever is asked.
    Says(&'static str),
    /// Packets are swallowed, both ways; connections stay.
    Partitioned,
}

const LOADING: Mood = Mood::Says("-LOADING Redis is loading the dataset in memory\r\n");
const MOVED: Mood = Mood::Says("-MOVED 3999 127.0.0.1:1\r\n");
const NONSENSE: Mood = Mood::Says("HTTP/1.1 400 Bad Request\r\n\r\n");
const ANOTHER_TYPE: Mood = Mood::Says("*1\r\n:7\r\n");

/// A proxy before a real Redis.
pub(crate) struct Moody {
    port: u16,
    mood: watch::Sender<Mood>,
}

impl Moody {
    pub(crate) async fn before(redis: &Server) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (mood, moods) = watch::channel(Mood::Well);
        let real = redis.port;
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let moods = moods.clone();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, real)).await else { return };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let ((asks, answers), (replies, commands)) = (client.into_split(), server.into_split());
                    let answers = Arc::new(Mutex::new(answers));
                    let back = tokio::spawn(answer(replies, Arc::clone(&answers), moods.clone()));
                    ask(asks, commands, answers, moods).await;
                    back.abort();
                });
            }
        });
        Self { port, mood }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn is(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }
}

async fn ask(
    mut asks: OwnedReadHalf,
    mut commands: OwnedWriteHalf,
    answers: Arc<Mutex<OwnedWriteHalf>>,
    moods: watch::Receiver<Mood>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = asks.read(&mut buffer).await {
        let mood = *moods.borrow();
        let sent = match mood {
            Mood::Well => commands.write_all(&buffer[..read]).await,
            Mood::Slow(time) => {
                tokio::time::sleep(time).await;
                commands.write_all(&buffer[..read]).await
            }
            Mood::Says(text) => answers.lock().await.write_all(text.as_bytes()).await,
            Mood::Partitioned => Ok(()),
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn answer(
    mut replies: OwnedReadHalf,
    answers: Arc<Mutex<OwnedWriteHalf>>,
    moods: watch::Receiver<Mood>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = replies.read(&mut buffer).await {
        let is_cut = *moods.borrow() == Mood::Partitioned;
        if !is_cut && answers.lock().await.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// One node that loses Redis in this way heals alone, says so once and is ready; it joins again when all is well.
async fn loses_it(mood: Mood) {
    let redis = Server::redis(&[]).await;
    let moody = Moody::before(&redis).await;
    let url = format!("cluster.url = {}", moody.url());
    let fleet = Fleet::start(book(3).await, 1, &url, AS_SHIPPED).await;
    fleet.are_joined(true).await;
    let pages = fleet.bed.pages();
    moody.is(mood);
    let lost = fleet.event(0, "cluster_lost");
    for page in &pages[..2] {
        let started = Instant::now();
        let tile = fleet.asks(0, &page.image_path(TILE)).await.expect("an answer");
        assert_eq!((tile.status, tile.body), (200, page.picture(TILE)), "{mood:?}");
        // Coarse, on a busy machine; benches/heal.rs measures it.
        assert!(started.elapsed() < Duration::from_secs(10), "{mood:?}");
    }
    fleet.are_joined(false).await;
    assert_eq!(fleet.event(0, "cluster_lost"), lost + 1.0, "{mood:?}: it is said once");
    let ready = format!("http://{}/readyz", fleet.nodes[0].app.admin.expect("an admin listener"));
    assert_eq!(fleet.client.get(&ready, &[]).await.expect("an answer").status, 200);
    moody.is(Mood::Well);
    fleet.are_joined(true).await;
    let tile = fleet.asks(0, &pages[2].image_path(TILE)).await.expect("an answer");
    assert_eq!(tile.status, 200);
    fleet.settles().await;
    assert_eq!(fleet.bed.counts().canvas, 3, "{mood:?}");
}

#[tokio::test]
async fn a_slow_redis_is_none() {
    loses_it(Mood::Slow(Duration::from_secs(2))).await;
}

#[tokio::test]
async fn a_redis_that_is_loading_is_none() {
    loses_it(LOADING).await;
}

#[tokio::test]
async fn a_redis_whose_keys_have_moved_to_nowhere_is_none() {
    loses_it(MOVED).await;
}

#[tokio::test]
async fn a_redis_that_answers_nonsense_is_none() {
    loses_it(NONSENSE).await;
    loses_it(ANOTHER_TYPE).await;
}

#[tokio::test]
async fn a_redis_behind_a_partition_is_none() {
    loses_it(Mood::Partitioned).await;
}

#[tokio::test]
async fn a_partition_in_the_middle_of_a_storm_costs_a_request_a_side_and_no_viewer_a_picture() {
    let redis = Server::redis(&[]).await;
    let (here, there) = (Moody::before(&redis).await, Moody::before(&redis).await);
    let mut fleet = Fleet { bed: book(20).await, nodes: Vec::new(), client: Client::default() };
    for moody in [&here, &here, &there] {
        fleet.adds(&format!("cluster.url = {}\n{AS_SHIPPED}", moody.url())).await;
    }
    fleet.bed.service.image_server_url(format!("http://{}/iiif/2", fleet.nodes[0].app.addresses[0]));
    fleet.are_joined(true).await;
    let pages = fleet.bed.pages();
    let everywhere: Vec<_> =
        pages.iter().flat_map(|page| [page.clone(), page.clone(), page.clone()]).collect();
    fleet.bed.service.stalls_canvas();
    let storm = fleet.storm(&everywhere);
    fleet.bed.ledger.until(|counts| counts.canvas >= 1).await;
    there.is(Mood::Partitioned);
    fleet.bed.service.releases();
    all_served(storm).await;
    fleet.settles().await;
    let visits = fleet.bed.counts().canvas;
    // Under load the two nodes of one side may lose each other, too.
    assert!((20..=60).contains(&visits), "at most one request a node and canvas: {visits}");
    there.is(Mood::Well);
    fleet.are_joined(true).await;
}
