//! What the demo plays on: the stand-ins, and two iiif-menders before them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iiif_mender::app::App;
use iiif_mender::config::Settings;
use testbed::{Client, Fetched, Kind, Page, Testbed};

use crate::{Whatever, page};

/// How long the canvas service thinks before it registers an image; real ones take longer.
const THINKS: Duration = Duration::from_millis(250);

/// How long it goes on building the canvas after that.
const GOES_ON: Duration = Duration::from_millis(200);

/// Everything that runs.
pub(crate) struct Stage {
    pub(crate) bed: Arc<Testbed>,
    /// With the whole ladder.
    mender: App,
    /// With visit and rebuild only.
    careful: App,
    client: Client,
    page: SocketAddr,
    /// Configuration, manifests and indexes; deleted in the end.
    _folder: tempfile::TempDir,
}

/// An answer, and how long it took.
pub(crate) struct Timed {
    pub(crate) answer: Fetched,
    pub(crate) took: Duration,
}

impl Stage {
    /// Starts everything and waits until the manifests are indexed.
    pub(crate) async fn set(listen: SocketAddr) -> Result<Self, Whatever> {
        let bed = Testbed::builder().book("obj/minutes", 8).pdf("obj/report", 3).single("obj/map");
        let bed = Arc::new(bed.start().await);
        bed.service.canvas_delay(THINKS);
        bed.service.delay_after_key(GOES_ON);
        let folder = tempfile::tempdir()?;
        let manifests = folder.path().join("manifests");
        std::fs::create_dir(&manifests)?;
        bed.write_manifests(&manifests)?;

        let ports = page::Ports::default();
        let page = page::serve(Arc::clone(&bed), Arc::clone(&ports)).await?;
        let whole = "direct,register,variant,visit,rebuild";
        let mender = App::start(settings(folder.path(), &bed, page, "whole", whole, listen)?).await?;
        let anywhere = SocketAddr::new(listen.ip(), 0);
        let careful =
            App::start(settings(folder.path(), &bed, page, "careful", "visit,rebuild", anywhere)?).await?;
        let _ = ports.set([&mender, &careful].map(|app| app.addresses[0].port()));
        // As in life: the canvas service asks for images under their public name, which is iiif-mender.
        bed.service.image_server_url(format!("http://127.0.0.1:{}/iiif/2", mender.addresses[0].port()));
        let stage = Self { bed, mender, careful, client: Client::default(), page, _folder: folder };
        stage.is_indexed().await?;
        Ok(stage)
    }

    pub(crate) async fn ends(self) {
        self.mender.stop().await;
        self.careful.stop().await;
    }

    async fn is_indexed(&self) -> Result<(), Whatever> {
        let pages = self.bed.pages();
        let deadline = Instant::now() + Duration::from_secs(20);
        for (app, page) in [&self.mender, &self.careful]
            .into_iter()
            .flat_map(|app| pages.iter().map(move |page| (app, page)))
        {
            while app.index.owners(&page.identifier)?.is_empty() {
                if Instant::now() > deadline {
                    return Err("the manifests were not indexed within 20 s".into());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(())
    }

    pub(crate) fn introduces_itself(&self) -> Result<(), Whatever> {
        let stats = self.mender.index.stats()?;
        println!("iiif-mender demo\n");
        println!("  {:<16} {}", "image server", self.bed.images.origin());
        println!(
            "  {:<16} {}   needs {} ms to bring an image back",
            "canvas service",
            self.bed.service.origin(),
            THINKS.as_millis()
        );
        println!("  {:<16} {}   in front of both", "iiif-mender", self.url(""));
        println!(
            "  {:<16} {} manifests, {} canvases, {} images",
            "index", stats.manifests, stats.canvases, stats.images
        );
        println!("  {:<16} http://{}   (served through iiif-mender, too)\n", "demo page", self.page);
        println!(
            "Image server and canvas service are stand-ins that behave as the real ones were measured to.\n"
        );
        Ok(())
    }

    /// A URL of iiif-mender.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.mender.addresses[0])
    }

    /// A URL of the iiif-mender that only visits and rebuilds.
    pub(crate) fn careful_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.careful.addresses[0])
    }

    /// Asks iiif-mender.
    pub(crate) async fn ask(&self, path: &str) -> Result<Timed, Whatever> {
        self.timed(&self.url(path)).await
    }

    /// Asks the image server itself.
    pub(crate) async fn ask_image_server(&self, path: &str) -> Result<Timed, Whatever> {
        self.timed(&format!("{}{path}", self.bed.images.origin())).await
    }

    async fn timed(&self, url: &str) -> Result<Timed, Whatever> {
        let started = Instant::now();
        let answer = tokio::time::timeout(Duration::from_mins(1), self.client.get(url, &[])).await??;
        Ok(Timed { answer, took: started.elapsed() })
    }

    /// How often the canvas of this page was asked for until now.
    pub(crate) fn canvas_requests(&self, of: &Page) -> usize {
        let targets = [Kind::Visit, Kind::Rebuild, Kind::Variant].map(|kind| self.bed.targets(kind)).concat();
        // A rebuild or a variant is the same target with a query appended.
        targets.iter().filter(|target| target.starts_with(&of.canvas_path)).count()
    }

    /// Waits until no heal is in the air.
    pub(crate) async fn settles(&self) -> Result<(), Whatever> {
        let deadline = Instant::now() + Duration::from_secs(30);
        let metrics = &self.mender.metrics;
        while metrics.flights.get() + metrics.waiting.get() + metrics.canvas_in_flight.get() > 0 {
            if Instant::now() > deadline {
                return Err("heals were still under way after 30 s".into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

fn settings(
    folder: &Path,
    bed: &Testbed,
    page: SocketAddr,
    name: &str,
    ladder: &str,
    listen: SocketAddr,
) -> Result<Settings, Whatever> {
    let text = format!(
        r#"
        [server]
        listen = "{listen}"
        public_hosts = ["api.library.tamu.edu"]

        [admin]
        listen = "off"

        {}

        [[routes]]
        prefix = "/"
        upstream = "http://{page}/"
        kind = "plain"

        [index]
        path = "{name}.sqlite3"

        [[index.sources]]
        path = "manifests"

        # A picture from memory would not show that it expired.
        [cache]
        memory = 0

        # Whoever plays with it presses its buttons more often than a real Redis loses its keys.
        [heal]
        cooldown = "1s"
        missing = "3s"
        per_client = 100000
        "#,
        testbed::routes(&bed.images.origin(), &bed.service.origin())
    );
    let env = [("IIIF_MENDER__HEAL__LADDER".to_owned(), ladder.to_owned())];
    Settings::from_text(&folder.join(format!("{name}.toml")), &text, env)
        .map_err(|errors| format!("{errors:#}").into())
}
