//! A bad file is no reason not to serve: the real program with an index, a token, a certificate or a port that is of no use.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use testbed::{Client, Testbed};

use crate::support::program::{Serving, program};
use crate::support::tls::makes;
use crate::support::world::folder_of;

/// A library of one book, and the program in a folder of its own.
struct Place {
    bed: Testbed,
    folder: tempfile::TempDir,
}

impl Place {
    async fn new(admin: &str) -> Self {
        let bed = Testbed::builder().book("obj/book", 6).page_size(600, 800).start().await;
        let folder = folder_of(&bed);
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\npublic_hosts = [\"api.library.tamu.edu\"]\n\
             [admin]\n{admin}\nsetup_check = \"0s\"\n[log]\nformat = \"json\"\n[index]\npath = \"index.sqlite3\"\n\
             [cache]\nmemory = 0\n[heal]\nahead = 0\ncooldown = \"1ms\"\nladder = [\"visit\"]\n{}[[index.sources]]\npath = \"manifests\"\n",
            testbed::routes(&bed.images.origin(), &bed.service.origin())
        );
        fs::write(folder.path().join("config.toml"), text).expect("a file");
        Self { bed, folder }
    }

    async fn built() -> Self {
        let place = Self::new("listen = \"127.0.0.1:0\"").await;
        let built = program(place.folder.path(), &["index", "build"]).output().expect("it runs");
        assert!(built.status.success(), "{built:?}");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The generation in use. There is none while a damaged index is put aside and another one begun.
    fn file(&self) -> PathBuf {
        let began = Instant::now();
        loop {
            match fs::canonicalize(self.path("index.sqlite3")) {
                Ok(file) => return file,
                Err(error) => assert!(began.elapsed() < Duration::from_secs(10), "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn aside(&self) -> Vec<String> {
        let names =
            fs::read_dir(self.folder.path()).expect("ours").map(|entry| entry.expect("an entry").file_name());
        let names = names.map(|name| name.into_string().expect("text"));
        names.filter(|name| name.starts_with("index.sqlite3.damaged-2") && !name.contains("Z-")).collect()
    }

    /// Asks once for each page, all of which are gone; how many came back.
    async fn healed(&self, serving: &Serving, client: &Client) -> usize {
        self.bed.service.image_server_url(format!("http://{}/iiif/2", serving.viewers));
        self.bed.expires_everything();
        let mut healed = 0;
        for page in self.bed.pages() {
            let url =
                format!("http://{}{}", serving.viewers, page.image_path("0,0,256,256/64,/0/default.jpg"));
            healed += usize::from(client.get(&url, &[]).await.is_ok_and(|answer| answer.status == 200));
        }
        healed
    }

    /// Until every page heals.
    async fn heals(&self, serving: &mut Serving, what: &str) {
        let (client, began) = (Client::default(), Instant::now());
        loop {
            assert!(serving.child.0.try_wait().expect("a child").is_none(), "{what}: it is gone");
            if self.healed(serving, &client).await == self.bed.pages().len() {
                return;
            }
            assert!(began.elapsed() < Duration::from_mins(1), "{what}: it never heals");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn asked(serving: &Serving, path: &str) -> String {
    testbed::get(&format!("http://{}{path}", serving.admin)).await.text()
}

async fn says_soon(serving: &Serving, path: &str, wanted: impl Fn(&str) -> bool) {
    let began = Instant::now();
    loop {
        let text = asked(serving, path).await;
        if wanted(&text) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{path}: {text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn overwrite(file: &Path, from: u64, with: &[u8]) {
    let mut open = fs::File::options().write(true).open(file).expect("a file");
    open.seek(SeekFrom::Start(from)).expect("a place");
    open.write_all(with).expect("written");
}

fn cut(file: &Path, length: u64) {
    fs::File::options().write(true).open(file).expect("a file").set_len(length).expect("cut");
}

/// Cuts a file to so many quarters; false: there is none.
fn try_cut(file: &Path, quarters: u64) -> bool {
    let open = fs::File::options().write(true).open(file);
    open.is_ok_and(|file| {
        let length = file.metadata().expect("metadata").len();
        file.set_len(length * quarters / 4).expect("cut");
        true
    })
}

fn length(file: &Path) -> u64 {
    fs::metadata(file).expect("a file").len()
}

fn sql(file: &Path, text: &str) {
    let conn = rusqlite::Connection::open(file).expect("SQLite");
    conn.execute_batch(text).expect("it is done");
}

/// What is done to a file.
type Damage = fn(&Path);

/// What may have become of an index while nobody looked.
const DAMAGES: [(&str, Damage); 9] = [
    ("zeros", |file| fs::write(file, vec![0; 8192]).expect("written")),
    ("nothing but its first half", |file| cut(file, length(file) / 2)),
    ("a part of its first page", |file| cut(file, 1000)),
    ("another magic", |file| overwrite(file, 0, b"SQLight format 3\0")),
    ("text", |file| fs::write(file, "this is no database\n").expect("written")),
    ("other tables", |file| sql(file, "DROP VIEW owners; DROP TABLE images; CREATE TABLE images (x)")),
    ("a table less", |file| sql(file, "DROP TABLE files")),
    ("a newer version", |file| sql(file, "PRAGMA user_version = 99")),
    ("a directory", |file| {
        fs::remove_file(file).expect("gone");
        fs::create_dir(file).expect("a directory");
    }),
];

#[tokio::test]
async fn with_an_index_that_is_of_no_use_it_serves_and_builds_another() {
    let place = Place::built().await;
    for (damage, does) in DAMAGES {
        does(&place.file());
        let mut serving = Serving::start(place.folder.path());
        place.heals(&mut serving, damage).await;
        says_soon(&serving, "/readyz", |text| text == "ready\n").await;
        let scrape = asked(&serving, "/metrics").await;
        assert!(
            scrape.contains("iiif_mender_events_total{kind=\"index_begun_anew\"} 1"),
            "{damage}: {scrape}"
        );
        assert!(scrape.contains("iiif_mender_degraded{part=\"index\"} 0"), "{damage}: {scrape}");
        serving.gets("-TERM");
        let lines = serving.all();
        let told = lines.iter().find(|line| line["part"] == "index" && line["level"] == "ERROR");
        let told = told.unwrap_or_else(|| panic!("{damage}: not told in {lines:?}"))["message"].to_string();
        assert!(told.contains("Put aside as") && told.contains(".damaged-2"), "{damage}: {told}");
    }
    assert_eq!(place.aside().len(), 3, "{:?}", place.aside());
}

#[tokio::test]
async fn what_no_source_tells_is_taken_over_as_far_as_it_can_be_read() {
    let place = Place::built().await;
    sql(&place.file(), "INSERT INTO sources (kind, location, added) VALUES ('path', '/nowhere/else', 1)");
    sql(&place.file(), "DROP TABLE canvas_urls");
    let mut serving = Serving::start(place.folder.path());
    place.heals(&mut serving, "a table less").await;
    serving.gets("-TERM");
    serving.ends().await;
    let conn = rusqlite::Connection::open(place.file()).expect("SQLite");
    let added = "SELECT count(*) FROM sources WHERE added = 1 AND location = '/nowhere/else'";
    assert_eq!(conn.query_row(added, [], |row| row.get::<_, i64>(0)).expect("a number"), 1);
}

#[tokio::test]
async fn another_programs_file_is_left_alone_and_traffic_is_served_all_the_same() {
    let place = Place::new("listen = \"127.0.0.1:0\"").await;
    let file = place.path("index.sqlite3");
    sql(&file, "CREATE TABLE bookmarks (url)");
    let before = fs::read(&file).expect("a file");
    let serving = Serving::start(place.folder.path());
    assert_eq!(testbed::get(&format!("http://{}/livez", serving.admin)).await.status, 200);
    says_soon(&serving, "/readyz", |text| text == "ready\ndegraded: index\n").await;
    let page = &place.bed.pages()[0];
    let tile = format!("http://{}{}", serving.viewers, page.image_path("0,0,256,256/64,/0/default.jpg"));
    assert_eq!(testbed::get(&tile).await.status, 200);
    assert_eq!(testbed::get(&format!("http://{}/", serving.admin)).await.status, 200, "the page");
    assert!(fs::read(&file).expect("a file") == before && place.aside().is_empty());
    // As soon as there is a place for it, there is an index.
    fs::remove_file(&file).expect("gone");
    says_soon(&serving, "/readyz", |text| text == "ready\n").await;
    let mut serving = serving;
    place.heals(&mut serving, "a place").await;
}

#[tokio::test]
async fn damage_that_is_found_while_serving_is_mended() {
    let place = Place::built().await;
    let mut serving = Serving::start(place.folder.path());
    place.heals(&mut serving, "nothing yet").await;
    for (damage, does) in [
        (
            "pages",
            (|file: &Path| overwrite(file, 4096, &vec![0xa5; usize::try_from(length(file)).unwrap() - 4096]))
                as fn(&Path),
        ),
        ("zeros", |file| overwrite(file, 0, &vec![0; usize::try_from(length(file)).unwrap()])),
    ] {
        let before = place.file();
        does(&before);
        // What was found before is remembered; what was learned since makes it ask again.
        for page in place.bed.pages() {
            let url = format!("http://{}{}", serving.viewers, page.image_path("full/64,/0/default.jpg"));
            testbed::get(&url).await;
        }
        let began = Instant::now();
        while fs::canonicalize(place.path("index.sqlite3")).is_ok_and(|now| now == before) {
            assert!(serving.child.0.try_wait().expect("a child").is_none(), "{damage}: it is gone");
            assert!(began.elapsed() < Duration::from_mins(1), "{damage}: it is never found");
            place.healed(&serving, &Client::default()).await;
        }
        place.heals(&mut serving, damage).await;
        says_soon(&serving, "/readyz", |text| text == "ready\n").await;
        // One that is damaged again within a minute waits so long.
        if damage == "pages" {
            serving.gets("-TERM");
            serving.ends().await;
            serving = Serving::start(place.folder.path());
            place.heals(&mut serving, damage).await;
        }
    }
    assert_eq!(place.aside().len(), 2);
}

#[tokio::test]
async fn an_index_that_is_cut_while_requests_run_ends_nothing() {
    let place = Place::built().await;
    for suffix in ["", "-wal"] {
        for part in [0, 2] {
            let mut serving = Serving::start(place.folder.path());
            place.heals(&mut serving, "whole").await;
            let what = format!("index{suffix} cut to {part}/4");
            let mut file = place.file().into_os_string();
            file.push(suffix);
            let client = Client::default();
            let healing = async {
                for _ in 0..3 {
                    place.healed(&serving, &client).await;
                }
            };
            let cutting = async {
                tokio::task::yield_now().await;
                // The log comes with the first write. A file that was put aside has another name.
                let began = Instant::now();
                while !try_cut(Path::new(&file), part) && began.elapsed() < Duration::from_secs(2) {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::join!(healing, cutting);
            place.heals(&mut serving, &what).await;
            serving.gets("-TERM");
            let ended = serving.ends().await;
            assert_eq!(ended.code(), Some(0), "{what}: {ended} {:?}", serving.all().split_off(20));
        }
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_read_shuts_the_pages_and_nothing_else() {
    let place = Place::new("listen = \"127.0.0.1:0\"\ntoken_file = \"token\"").await;
    let mut serving = Serving::start(place.folder.path());
    place.heals(&mut serving, "no token").await;
    assert_eq!(asked(&serving, "/readyz").await, "ready\ndegraded: admin_token\n");
    let stats = format!("http://{}/api/v1/stats", serving.admin);
    let shown = [("authorization", "Bearer a-token-that-is-long")];
    assert_eq!(testbed::get_with(&stats, &shown).await.status, 401);
    assert_eq!(testbed::get_with(&stats, &[("authorization", "Bearer ")]).await.status, 401);
    // A token that comes later opens them.
    fs::write(place.path("token"), "a-token-that-is-long\n").expect("a file");
    says_soon(&serving, "/readyz", |text| text == "ready\n").await;
    assert_eq!(testbed::get_with(&stats, &shown).await.status, 200);
}

#[tokio::test]
async fn a_port_that_is_taken_delays_the_pages_and_nothing_else() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let admin = taken.local_addr().expect("bound");
    let place = Place::new(&format!("listen = \"{admin}\"")).await;
    let mut serving = Serving::of_viewers(program(place.folder.path(), &["serve"]));
    place.heals(&mut serving, "no port").await;
    drop(taken);
    serving.admin = admin;
    serving.says("in order again");
    says_soon(&serving, "/readyz", |text| text == "ready\n").await;
    says_soon(&serving, "/metrics", |text| text.contains("iiif_mender_degraded{part=\"admin\"} 0")).await;
}

#[tokio::test]
async fn a_certificate_of_the_pages_that_is_of_no_use_delays_them_and_nothing_else() {
    let place =
        Place::new("listen = \"127.0.0.1:0\"\ntls = { cert = \"cert.pem\", key = \"cert.key\" }").await;
    fs::write(place.path("cert.pem"), "no certificate").expect("a file");
    let mut serving = Serving::of_viewers(program(place.folder.path(), &["serve"]));
    place.heals(&mut serving, "no certificate").await;
    makes(place.folder.path(), "cert", "localhost");
    serving.says("in order again");
}

#[tokio::test]
async fn authorities_of_upstreams_that_cannot_be_read_are_left_out() {
    let place = Place::new("listen = \"127.0.0.1:0\"").await;
    let config = place.path("config.toml");
    let text = fs::read_to_string(&config).expect("a file");
    let more = "[upstream]\nca = \"nowhere.pem\"\n[telemetry]\notlp = \"https://127.0.0.1:9\"\n";
    fs::write(&config, format!("{more}{text}")).expect("a file");
    let mut serving = Serving::start(place.folder.path());
    place.heals(&mut serving, "no authorities").await;
    assert_eq!(asked(&serving, "/readyz").await, "ready\ndegraded: upstream_tls\n");
}

#[tokio::test]
async fn sources_and_redis_that_are_away_are_no_reason_not_to_serve() {
    let place = Place::new("listen = \"127.0.0.1:0\"").await;
    let config = place.path("config.toml");
    let text = fs::read_to_string(&config).expect("a file");
    let more = "[[index.sources]]\npath = \"nowhere\"\n[[index.sources]]\nurl = \"http://127.0.0.1:9/x.json\"\n\
                [cluster]\nurl = \"rediss://127.0.0.1:9\"\nca = \"nowhere.pem\"\npassword = \"wrong\"\n";
    fs::write(&config, format!("{text}{more}")).expect("a file");
    let mut serving = Serving::start(place.folder.path());
    place.heals(&mut serving, "nothing but ourselves").await;
    assert_eq!(asked(&serving, "/readyz").await, "ready\ndegraded: cluster\n");
}

#[tokio::test]
async fn silent_connections_to_the_admin_listener_delay_no_health_check() {
    let place = Place::new("listen = \"127.0.0.1:0\"").await;
    let serving = Serving::start(place.folder.path());
    let mut silent = Vec::new();
    for at in 0..200 {
        #[expect(clippy::disallowed_methods, reason = "a raw client, on a thread of its own")]
        let mut one = std::net::TcpStream::connect(serving.admin).expect("connected");
        // Some begin a head and do not end it.
        if at % 2 == 0 {
            one.write_all(b"GET /livez HTTP/1.1\r\nhost:").expect("written");
        }
        silent.push(one);
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        let url = format!("http://{}{path}", serving.admin);
        let answer = tokio::time::timeout(Duration::from_secs(5), testbed::get(&url))
            .await
            .expect("no health check waits");
        assert_eq!(answer.status, 200, "{path}");
    }
    let scrape = asked(&serving, "/metrics").await;
    let cut = scrape
        .lines()
        .find_map(|line| line.strip_prefix("iiif_mender_connections_cut_total{kind=\"evicted\"} "));
    assert!(cut.and_then(|cut| cut.parse::<u32>().ok()).is_some_and(|cut| cut > 100), "{cut:?}");
}
