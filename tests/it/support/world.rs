//! The world of a test: stand-ins, an index made from their manifests, and iiif-mender before them.

use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use http::Method;
use iiif_mender::app::App;
use iiif_mender::config::Settings;
use testbed::{Client, Fetched, Page, Testbed};
use tokio::task::JoinHandle;

/// A tile of 64×64 pixels.
pub(crate) const TILE: &str = "0,0,256,256/64,/0/default.jpg";

/// Lines of configuration: images come back by visits and rebuilds of their canvas alone, and only those that are asked for.
pub(crate) const VISIT: &str = "heal.ahead = 0\nheal.ladder = visit,rebuild";

/// A book of so many pages of 600×800 pixels, and iiif-mender before it.
pub(crate) async fn book(pages: u32, more: &str) -> World {
    World::over(Testbed::builder().book("obj/book", pages).page_size(600, 800).start().await, more).await
}

/// A book that is healed as [`VISIT`] says, unless `more` says otherwise.
pub(crate) async fn visited_book(pages: u32, more: &str) -> World {
    book(pages, &format!("{VISIT}\n{more}")).await
}

/// What two answers must share to be the same to a viewer and to every cache.
pub(crate) fn assert_same(ours: &Fetched, live: &Fetched) {
    assert_eq!((ours.status, &ours.body), (live.status, &live.body));
    for (name, value) in &live.headers {
        if !["date", "connection", "transfer-encoding"].contains(&name.as_str()) {
            assert_eq!(ours.headers.get(name), Some(value), "{name}");
        }
    }
}

/// A folder for a configuration, with the manifests of this testbed in `manifests`.
pub(crate) fn folder_of(bed: &Testbed) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let manifests = folder.path().join("manifests");
    std::fs::create_dir(&manifests).expect("a directory");
    bed.write_manifests(&manifests).expect("manifests");
    folder
}

/// Waits until the index answers for each of these pages. (Its counts are no sign of that: they are read from the new file, a
/// moment before lookups are.)
pub(crate) async fn answers_for(app: &App, pages: &[Page]) {
    let is_known = |page: &Page| !app.index.owners(&page.identifier).expect("an index").is_empty();
    patiently("the index answers", || pages.iter().all(is_known)).await;
}

/// iiif-mender in front of this image server and this canvas service (URLs), with an index of the testbed's manifests, which
/// answers already. With sources of its own in `more`, nobody waits for the index.
pub(crate) async fn proxy(
    bed: &Testbed,
    images: &str,
    service: &str,
    more: &str,
) -> (App, tempfile::TempDir) {
    let folder = folder_of(bed);
    let app = App::start(settings(folder.path(), images, service, more)).await.expect("it starts");
    if !more.contains("index.sources") {
        answers_for(&app, &bed.pages()).await;
    }
    (app, folder)
}

/// iiif-mender in front of a testbed. Ends with the test.
pub(crate) struct World {
    pub(crate) bed: Testbed,
    pub(crate) app: App,
    pub(crate) client: Client,
    /// Configuration, manifests and index; deleted with the world.
    pub(crate) folder: tempfile::TempDir,
}

impl World {
    /// Everything with defaults.
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    /// With more lines of configuration, given as `section.key = value`.
    pub(crate) async fn with(more: &str) -> Self {
        Self::over(Testbed::start().await, more).await
    }

    /// Before a testbed of one's own.
    pub(crate) async fn over(bed: Testbed, more: &str) -> Self {
        Self::beside(bed, more, |_| ()).await
    }

    /// With more documents, which are written beside the testbed's manifests.
    pub(crate) async fn beside(bed: Testbed, more: &str, write: impl FnOnce(&Path)) -> Self {
        let folder = folder_of(&bed);
        write(&folder.path().join("manifests"));
        let settings = settings(folder.path(), &bed.images.origin(), &bed.service.origin(), more);
        let app = App::start(settings).await.expect("it starts");
        // The echo comes back through us.
        bed.service.image_server_url(format!("http://{}/iiif/2", app.addresses[0]));
        if !more.contains("index.sources") {
            answers_for(&app, &bed.pages()).await;
        }
        Self { bed, app, client: Client::default(), folder }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.app.addresses[0])
    }

    pub(crate) async fn get(&self, path: &str) -> Fetched {
        self.get_with(path, &[]).await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Fetched {
        self.client.get(&self.url(path), headers).await.expect("an answer")
    }

    /// The file behind this page is known, as if its info.json had once passed while it was alive.
    pub(crate) fn knows_file_of(&self, page: &Page) {
        let uuid = page.uuid.parse().expect("a UUID");
        self.app.index.learn_file_url(uuid, &page.file_url).expect("it is true");
    }

    /// How often this event was counted.
    pub(crate) fn events(&self, kind: &str) -> f64 {
        self.metric(&format!(r#"iiif_mender_events_total{{kind="{kind}"}}"#))
    }

    /// How many documents that passed through were read with this result.
    pub(crate) fn learned(&self, kind: &str) -> f64 {
        self.metric(&format!(r#"iiif_mender_learned_total{{kind="{kind}"}}"#))
    }

    /// A GET by a viewer of its own, who waits.
    pub(crate) fn asks(&self, path: &str) -> JoinHandle<Fetched> {
        self.asks_with(Method::GET, path)
    }

    /// A request by a viewer of its own, who waits.
    pub(crate) fn asks_with(&self, method: Method, path: &str) -> JoinHandle<Fetched> {
        let (client, url) = (self.client.clone(), self.url(path));
        tokio::spawn(async move { client.send(method, &url, &[]).await.expect("an answer") })
    }

    /// What the image server itself answers, asked in our name.
    pub(crate) async fn asks_directly(&self, path: &str) -> Fetched {
        let (host, port) = (self.app.addresses[0].to_string(), self.app.addresses[0].port().to_string());
        let forwarded =
            [("x-forwarded-host", &*host), ("x-forwarded-port", &port), ("x-forwarded-proto", "http")];
        testbed::get_with(&format!("{}{path}", self.bed.images.origin()), &forwarded).await
    }

    pub(crate) fn metric(&self, series: &str) -> f64 {
        metric(&self.app, series)
    }

    /// Waits until all that was started has ended: no heal in the air, no viewer waiting.
    pub(crate) async fn settles(&self) {
        patiently("all gauges are back to zero", || is_settled(&self.app)).await;
    }
}

/// The value of a metric in the scrape, zero where it is absent. `series` is its name with all labels.
pub(crate) fn metric(app: &App, series: &str) -> f64 {
    let scrape = app.metrics.scrape();
    let line = scrape.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}

/// True if no heal is in the air and no viewer waits.
pub(crate) fn is_settled(app: &App) -> bool {
    let gauges = ["flights", "waiting_viewers", "canvas_in_flight"];
    gauges.iter().all(|gauge| metric(app, &format!("iiif_mender_{gauge}")) == 0.0)
}

/// Settings for a world in `folder`; `more` has lines `section.key = value`, laid over as the environment would.
pub(crate) fn settings(folder: &Path, images: &str, service: &str, more: &str) -> Settings {
    let text = format!(
        r#"
        [server]
        listen = "127.0.0.1:0"
        public_hosts = ["api.library.tamu.edu"]
        [admin]
        listen = "127.0.0.1:0"
        {}
        [[routes]]
        prefix = "/"
        upstream = "{images}/"
        kind = "plain"
        [[index.sources]]
        path = "manifests"
        "#,
        testbed::routes(images, service)
    );
    checked(folder, &text, more)
}

/// `config.toml` before an image server and a canvas service at one `origin`, without an index source: what is known is learned.
pub(crate) fn library_before(origin: &str) -> String {
    format!(
        r#"
        [server]
        listen = "127.0.0.1:0"
        public_hosts = ["lib.test"]
        [admin]
        listen = "127.0.0.1:0"
        [[routes]]
        prefix = "/iiif/2/"
        upstream = "{origin}/images/"
        kind = "image"
        [[routes]]
        prefix = "/svc/"
        upstream = "{origin}/service/"
        kind = "presentation"
        "#
    )
}

/// Settings out of a configuration file in `folder`, with `more` laid over.
pub(crate) fn checked(folder: &Path, text: &str, more: &str) -> Settings {
    let config = folder.join("config.toml");
    let lines = more.lines().map(str::trim).filter(|line| !line.is_empty());
    // One thread, as a test has, and nothing kept: a test counts what is sent on. No request but those of the test. Who wants
    // more says so.
    let checks = more.contains("admin.setup_check");
    let quiet = (!checks).then_some("admin.setup_check = 0s");
    let env = ["server.workers = 1", "cache.memory = 0"].into_iter().chain(quiet).chain(lines).map(|line| {
        let (key, value) = line.split_once(" = ").expect("section.key = value");
        (format!("IIIF_MENDER__{}", key.to_uppercase().replace('.', "__")), value.to_owned())
    });
    Settings::from_text(&config, text, env).unwrap_or_else(|errors| panic!("{errors:#}"))
}

/// Waits for a condition that other tasks bring about.
///
/// # Panics
/// After 20 seconds.
pub(crate) async fn patiently(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Asks again and again until an answer is good, for 20 s at most, and returns that answer.
///
/// # Panics
/// When no answer was good in time.
pub(crate) async fn asks_until<T: Debug>(
    what: &str,
    mut ask: impl AsyncFnMut() -> T,
    is_good: impl Fn(&T) -> bool,
) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let answer = ask().await;
        if is_good(&answer) {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "never came true: {what}; now {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
