//! Many readers of one document that nobody has yet: they wait for the first one only, and nobody is sent away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use iiif_mender::app::App;
use testbed::Client;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::world::{checked, library_before};

/// A service that takes so long for each request; the first one may hang for ever.
struct Slow {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Slow {
    async fn start(delay: Duration, first_hangs: bool, until_close: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    let _ = serve(stream, &counted, delay, first_hangs, until_close).await;
                });
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut stream: TcpStream,
    asked: &AtomicUsize,
    delay: Duration,
    first_hangs: bool,
    until_close: bool,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    if asked.fetch_add(1, Ordering::SeqCst) == 0 && first_hangs {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(delay).await;
    let body = r#"{"@id":"https://lib.test/svc/book","@type":"sc:Manifest","sequences":[]}"#;
    let length = if until_close { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let fields = "content-type: application/json\r\nvary: Origin, Accept-Language\r\nconnection: close\r\n";
    stream.write_all(format!("HTTP/1.1 200 OK\r\n{fields}{length}\r\n{body}").as_bytes()).await?;
    stream.shutdown().await
}

async fn before(service: &Slow, folder: &std::path::Path, more: &str) -> App {
    let text = library_before(&format!("http://{}", service.address));
    App::start(checked(folder, &text, more)).await.expect("it starts")
}

/// The readers ask at once, each by a field of its own; how many were answered with each status, and how long that took.
async fn crowd(app: &App, readers: usize, name: &'static str) -> (usize, usize, Duration) {
    let (client, began) = (Client::default(), Instant::now());
    let ask = |number: usize| {
        let (client, url) = (client.clone(), format!("http://{}/svc/book", app.addresses[0]));
        tokio::spawn(async move {
            let value = match name {
                "origin" => format!("https://{number}.example"),
                "if-none-match" => format!("\"{number}\""),
                _ => format!("x-{number}"),
            };
            client.get(&url, &[(name, &*value)]).await.map(|answer| answer.status)
        })
    };
    let all = join_all((0..readers).map(ask)).await;
    let statuses: Vec<u16> =
        all.into_iter().map(|reader| reader.expect("it ends").expect("an answer")).collect();
    let of = |status| statuses.iter().filter(|one| **one == status).count();
    (of(200), of(503), began.elapsed())
}

/// The fields by which readers of the same document are told apart, those included that make a request go alone.
const FIELDS: [&str; 4] = ["origin", "accept-language", "cookie", "if-none-match"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_readers_of_a_slow_document_wait_for_the_first_only() {
    for (name, millis) in FIELDS.into_iter().map(|name| (name, 200)).chain([("origin", 1000)]) {
        for more in ["", "presentation.collapse = false"] {
            let delay = Duration::from_millis(millis);
            let service = Slow::start(delay, false, more.is_empty()).await;
            let folder = tempfile::tempdir().expect("a directory");
            let app = before(&service, folder.path(), more).await;
            let (good, refused, took) = crowd(&app, 60, name).await;
            assert_eq!((good, refused, service.asked()), (60, 0, 60), "{name} {more}");
            // One after another would be sixty times as long.
            assert!(took < 20 * delay + Duration::from_secs(4), "{name} {more}: {took:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_refused_because_the_first_one_hangs() {
    for name in FIELDS {
        let service = Slow::start(Duration::from_millis(50), true, false).await;
        let folder = tempfile::tempdir().expect("a directory");
        let app = before(&service, folder.path(), "heal.wait = 1s\nupstream.first_byte_timeout = 15s").await;
        // The one that hangs is not waited for: it is the first of sixty.
        let first = {
            let (client, url) = (Client::default(), format!("http://{}/svc/book", app.addresses[0]));
            tokio::spawn(
                async move { client.get(&url, &[(name, "first")]).await.map(|answer| answer.status) },
            )
        };
        crate::support::world::patiently("the first is on its way", || service.asked() == 1).await;
        let (good, refused, _) = crowd(&app, 60, name).await;
        assert_eq!((good, refused, service.asked()), (60, 0, 61), "{name}");
        first.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_permits_are_queued_for_and_nobody_is_refused() {
    let service = Slow::start(Duration::from_millis(50), false, false).await;
    let folder = tempfile::tempdir().expect("a directory");
    let app = before(&service, folder.path(), "upstream.max_requests = 16").await;
    let (good, refused, _) = crowd(&app, 60, "origin").await;
    assert_eq!((good, refused, service.asked()), (60, 0, 60));
}
