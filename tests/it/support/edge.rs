//! iiif-mender before peers of the test's own making, and viewers that say every byte themselves.
#![allow(clippy::disallowed_methods, reason = "viewers connect to the proxy; the rule is for the product")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use iiif_mender::app::App;
use iiif_mender::config::Settings;
use testbed::{Client, Fetched};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::world::{checked, metric, patiently};

/// A proxy with routes of the test's choice. Ends with the test.
pub(crate) struct Edge {
    pub(crate) app: App,
    pub(crate) client: Client,
    _folder: tempfile::TempDir,
}

/// One route, as it stands in a configuration.
pub(crate) fn route(prefix: &str, upstream: &str, kind: &str, more: &str) -> String {
    format!("[[routes]]\nprefix = \"{prefix}\"\nupstream = \"{upstream}\"\nkind = \"{kind}\"\n{more}\n")
}

impl Edge {
    /// Everything goes to one plain upstream.
    pub(crate) async fn before(upstream: &str) -> Self {
        Self::with(upstream, "").await
    }

    /// The same with more lines `section.key = value`.
    pub(crate) async fn with(upstream: &str, more: &str) -> Self {
        Self::routed(&route("/", &format!("{upstream}/"), "plain", ""), more).await
    }

    /// Routes in full, and more lines `section.key = value`.
    pub(crate) async fn routed(routes: &str, more: &str) -> Self {
        Self::knowing(&[], routes, more).await
    }

    /// The same with manifests in the index.
    pub(crate) async fn knowing(manifests: &[String], routes: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        for (number, manifest) in manifests.iter().enumerate() {
            std::fs::write(folder.path().join(format!("{number}.json")), manifest).expect("a file");
        }
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [index]\nsources = [{{ path = \".\" }}]\n{routes}"
        );
        let app = App::start(checked(folder.path(), &text, more)).await.expect("it starts");
        let edge = Self { app, client: Client::default(), _folder: folder };
        #[allow(clippy::cast_precision_loss, reason = "few")]
        let many = manifests.len() as f64;
        patiently("the manifests are indexed", || edge.metric("iiif_mender_index_manifests") == many).await;
        edge
    }

    /// With settings of the test's own.
    pub(crate) async fn on(settings: Settings) -> Self {
        let app = App::start(settings).await.expect("it starts");
        Self { app, client: Client::default(), _folder: tempfile::tempdir().expect("a directory") }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.app.addresses[0]
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    pub(crate) async fn get(&self, path: &str) -> Fetched {
        self.get_with(path, &[]).await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Fetched {
        self.client.get(&self.url(path), headers).await.expect("an answer")
    }

    /// A viewer on a connection of its own.
    pub(crate) async fn viewer(&self) -> Viewer {
        Viewer::to(self.address()).await
    }

    /// Says this on a connection of its own, and gives everything that comes back until the proxy closes.
    pub(crate) async fn says(&self, request: &str) -> String {
        let mut viewer = self.viewer().await;
        viewer.says(request).await;
        viewer.rest().await.text
    }

    pub(crate) fn metric(&self, series: &str) -> f64 {
        metric(&self.app, series)
    }

    /// Waits until no request is with an upstream any more.
    pub(crate) async fn rests(&self) {
        patiently("every place with an upstream is free again", || {
            self.metric("iiif_mender_upstream_in_flight") == 0.0
        })
        .await;
    }

    /// Waits until no viewer is connected either.
    pub(crate) async fn is_alone(&self) {
        self.rests().await;
        patiently("every viewer's connection is closed", || self.metric("iiif_mender_connections") == 0.0)
            .await;
    }
}

/// A manifest of one page: this canvas owns the image with this identifier.
pub(crate) fn manifest(name: &str, canvas: &str, identifier: &str) -> String {
    let image = format!("https://us.example/iiif/2/{identifier}");
    serde_json::json!({
        "@context": "http://iiif.io/api/presentation/2/context.json", "@type": "sc:Manifest",
        "@id": format!("https://us.example/iiif-service/fedora/presentation/{name}"), "label": name,
        "sequences": [{ "@type": "sc:Sequence", "canvases": [{
            "@id": canvas, "@type": "sc:Canvas", "label": "1", "height": 1, "width": 1,
            "images": [{ "@type": "oa:Annotation", "on": canvas, "resource": {
                "@id": format!("{image}/full/full/0/default.jpg"), "@type": "dctypes:Image",
                "service": { "@id": image, "@context": "http://iiif.io/api/image/2/context.json" } } }],
        }] }],
    })
    .to_string()
}

/// A viewer that speaks bytes.
pub(crate) struct Viewer {
    stream: TcpStream,
}

/// All that came before the end.
#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) text: String,
    /// It ended with RST and not with FIN.
    pub(crate) reset: bool,
}

/// Long enough for a slow machine, short enough to see a hang.
const PATIENCE: Duration = Duration::from_secs(20);

impl Viewer {
    pub(crate) async fn to(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).await.expect("a connection"))
    }

    pub(crate) fn on(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket option");
        Self { stream }
    }

    pub(crate) async fn says(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("it is sent");
    }

    /// Sends what it can; the proxy may have closed already.
    pub(crate) async fn tries(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        tokio::time::timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("no hang")
    }

    /// A GET without a body.
    pub(crate) async fn gets(&mut self, path: &str) {
        self.says(&format!("GET {path} HTTP/1.1\r\nHost: viewer.example\r\n\r\n")).await;
    }

    /// Reads until `end` stands there.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        let mut seen = Vec::new();
        while !seen.ends_with(end.as_bytes()) {
            let byte = tokio::time::timeout(PATIENCE, self.stream.read_u8()).await;
            match byte {
                Ok(Ok(byte)) => seen.push(byte),
                ended => panic!("{end:?} never came ({ended:?}): {:?}", String::from_utf8_lossy(&seen)),
            }
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// The head of an answer.
    pub(crate) async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// Everything until the connection ends.
    pub(crate) async fn rest(&mut self) -> Rest {
        let mut seen = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut seen)).await;
        let reset = ended.expect("the connection ends").is_err();
        Rest { text: String::from_utf8_lossy(&seen).into_owned(), reset }
    }

    /// The same as bytes.
    pub(crate) async fn rest_bytes(&mut self) -> Vec<u8> {
        let mut seen = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut seen)).await;
        let _may_be_reset = ended.expect("the connection ends");
        seen
    }

    /// Leaves with RST.
    pub(crate) fn leaves(self) {
        self.stream.set_zero_linger().expect("a socket option");
    }
}

/// A field of a head in text, in any case; empty where it is absent.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> &'a str {
    fields(head, name).first().copied().unwrap_or_default()
}

/// All lines of a field.
pub(crate) fn fields<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let lines = head.lines().skip(1).take_while(|line| !line.is_empty());
    let pairs = lines.filter_map(|line| line.split_once(':'));
    pairs.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
}

/// The status of a head in text.
pub(crate) fn status(head: &str) -> u16 {
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("no answer: {head:?}"))
}

/// Viewers that ask for `/` again and again; whatever happens meanwhile, each answer must be 200.
pub(crate) struct Load {
    done: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    viewers: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn on(edge: &Arc<Edge>, viewers: usize) -> Self {
        let (done, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let viewer = |_| {
            let (edge, done, served) = (Arc::clone(edge), Arc::clone(&done), Arc::clone(&served));
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let answer = edge.get("/").await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let viewers = (0..viewers).map(viewer).collect();
        Self { done, served, viewers }
    }

    /// Waits until so many more were served.
    pub(crate) async fn more(&self, count: usize) {
        let aim = self.served.load(Ordering::Relaxed) + count;
        patiently("viewers are served", || self.served.load(Ordering::Relaxed) >= aim).await;
    }

    /// No more requests; says whether each was answered.
    pub(crate) async fn ends(self) {
        self.done.store(true, Ordering::Relaxed);
        for viewer in join_all(self.viewers).await {
            viewer.expect("every GET was answered");
        }
    }
}
