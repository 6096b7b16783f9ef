//! Nothing is silently off: whatever keeps images from being healed is told at the start, by the commands, on the dashboard
//! and in a metric, with what to do.

use std::path::Path;

use http::StatusCode;
use serde_json::Value;
use testbed::{Flow, Origin, Testbed};

use crate::support::program::{Serving, program};
use crate::support::world::{World, folder_of, patiently};

/// A library whose configuration is in order, on disk.
struct Library {
    bed: Testbed,
    folder: tempfile::TempDir,
}

/// What is wrong with it.
struct Fault {
    about: &'static str,
    label: &'static str,
    state: &'static str,
    says: &'static [&'static str],
    make: fn(&mut String, &Library),
}

impl Library {
    async fn start() -> Self {
        let bed = Testbed::builder().book("obj/book", 3).page_size(64, 64).start().await;
        let folder = folder_of(&bed);
        Self { bed, folder }
    }

    fn config(&self) -> String {
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\npublic_hosts = [\"api.library.tamu.edu\"]\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n[heal]\nahead = 0\n\
             {}[[index.sources]]\npath = \"manifests\"\n",
            testbed::routes(&self.bed.images.origin(), &self.bed.service.origin())
        )
    }

    fn write(&self, config: &str) -> &Path {
        std::fs::write(self.folder.path().join("config.toml"), config).expect("a file");
        self.folder.path()
    }
}

/// The first finding about this that is told while serving.
fn told(serving: &Serving, about: &str) -> Value {
    loop {
        let line = serving.says("setup: ");
        if line["about"] == about {
            return line;
        }
    }
}

const FAULTS: [Fault; 9] = [
    Fault {
        about: "canvases",
        label: "canvases",
        state: "bad",
        says: &[
            "0 of 3 canvases",
            "api.library.tamu.edu (3)",
            "public_hosts = [\"other.test\", \"api.library.tamu.edu\"]",
        ],
        make: |config, _| *config = config.replace("[\"api.library.tamu.edu\"]", "[\"other.test\"]"),
    },
    Fault {
        about: "index",
        label: "index",
        state: "bad",
        says: &["it is empty", "[[index.sources]]"],
        make: |config, _| *config = config.replace("[[index.sources]]\npath = \"manifests\"\n", ""),
    },
    Fault {
        about: "sources",
        label: "sources",
        state: "bad",
        says: &["no image is known from", "nothing-here"],
        make: |config, library| {
            std::fs::create_dir(library.folder.path().join("nothing-here")).expect("a folder");
            config.push_str("[[index.sources]]\npath = \"nothing-here\"\n");
        },
    },
    Fault {
        about: "sources",
        label: "sources",
        state: "bad",
        says: &["gone", "cannot be read", "No such file"],
        make: |config, _| config.push_str("[[index.sources]]\npath = \"gone\"\n"),
    },
    Fault {
        about: "public @id",
        label: "public_id",
        state: "bad",
        says: &[
            "http://cantaloupe.internal:8182/iiif/2/x",
            "https://api.library.tamu.edu/iiif/2/",
            "X-Forwarded-Host",
        ],
        make: |config, library| {
            let images = Origin::start(|_| {
                let info = r#"{"@id": "http://cantaloupe.internal:8182/iiif/2/x"}"#;
                Origin::answer(StatusCode::OK.as_u16(), &[], Flow::sized(info))
            });
            *config = config.replace(&library.bed.images.origin(), &images.url());
            // It lives as long as the test.
            std::mem::forget(images);
        },
    },
    Fault {
        about: "/resources",
        label: "resources",
        state: "note",
        says: &["closed", "/resources/{uuid}"],
        make: |_, library| library.bed.service.closes_resources(),
    },
    Fault {
        about: "canvas service",
        label: "canvas_service",
        state: "bad",
        says: &["http://127.0.0.1:9/iiif-service/", "[[routes]]"],
        make: |config, library| *config = config.replace(&library.bed.service.origin(), "http://127.0.0.1:9"),
    },
    Fault {
        about: "image server",
        label: "image_server",
        state: "bad",
        says: &["http://127.0.0.1:9/iiif/2/", "[[routes]]"],
        make: |config, library| *config = config.replace(&library.bed.images.origin(), "http://127.0.0.1:9"),
    },
    Fault {
        about: "ladder",
        label: "ladder",
        state: "bad",
        says: &["direct, register need to know", "of 3 images", "index learn-files"],
        make: |config, _| {
            *config = config.replace("ahead = 0", "ahead = 0\nladder = [\"direct\", \"register\"]");
        },
    },
];

/// Writes the configuration with this fault, and builds the index. Returns the folder, and what the build wrote to stderr.
fn built_with(library: &Library, make: fn(&mut String, &Library)) -> (&Path, String) {
    let mut config = library.config();
    make(&mut config, library);
    let folder = library.write(&config);
    let built = program(folder, &["index", "build"]).output().expect("it runs");
    (folder, String::from_utf8_lossy(&built.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_why_nothing_can_be_healed_is_told_everywhere_with_what_to_do() {
    for Fault { about, label, state, says, make } in FAULTS {
        let library = Library::start().await;
        let (folder, built) = built_with(&library, make);
        let serving = Serving::start(folder);
        let line = told(&serving, about);
        let text = line["message"].as_str().expect("a message");
        assert!(says.iter().all(|word| text.contains(word)), "{about}: {text}");
        assert_eq!((&line["level"], &line["state"]), (&"WARN".into(), &state.into()), "{line}");
        let url = |path: &str| format!("http://{}{path}", serving.admin);
        let scrape = testbed::get(&url("/metrics")).await.text();
        let series = format!("iiif_mender_setup_finding{{about=\"{label}\",state=\"{state}\"}} 1");
        assert!(scrape.contains(&series), "{series}: {scrape}");
        let page = testbed::get(&url("/")).await.text();
        assert!(page.contains("The setup needs a look") && page.contains(about), "{about}: {page}");
        drop(serving);
        let checked = program(folder, &["config", "check"]).output().expect("it runs");
        let printed = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert_eq!(checked.status.code(), Some(0), "the configuration itself is in order: {printed}");
        assert!(says.iter().all(|word| printed.contains(word)), "{about}: {printed}");
        // A build looks at the index, and asks no server.
        let is_indexed = ["canvases", "index", "sources", "ladder"].contains(&about);
        assert_eq!(says.iter().all(|word| built.contains(word)), is_indexed, "{about}: {built}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_source_is_told_once() {
    for Fault { about, says, make, .. } in FAULTS.into_iter().filter(|fault| fault.about == "sources") {
        let library = Library::start().await;
        let (folder, built) = built_with(&library, make);
        let told_of = |line: &&str| says.iter().all(|word| line.contains(word));
        assert_eq!(built.lines().filter(told_of).count(), 1, "{built}");
        let mut serving = Serving::start(folder);
        told(&serving, about);
        serving.gets("-TERM");
        serving.ends().await;
        let others: Vec<_> = serving.all().into_iter().filter(|line| line["level"] == "WARN").collect();
        assert!(others.is_empty(), "{others:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn before_there_is_an_index_the_configuration_alone_is_looked_at() {
    let library = Library::start().await;
    let folder = library.write(&library.config().replace("kind = \"image\"", "kind = \"plain\""));
    let checked = program(folder, &["config", "check"]).output().expect("it runs");
    let printed = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert_eq!(checked.status.code(), Some(0), "{printed}");
    assert_eq!(printed.matches("no route has kind = \"image\"").count(), 1, "{printed}");
    assert!(printed.contains("wrong: ladder: "), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setup_that_is_right_is_not_warned_of_and_the_start_says_what_runs() {
    let library = Library::start().await;
    let folder = library.write(&library.config());
    let mut serving = Serving::start(folder);
    serving.says("opened the index");
    let good = "iiif_mender_setup_finding{about=\"clock\",state=\"bad\"} 0";
    let url = format!("http://{}", serving.admin);
    let mut scrape = String::new();
    for _ in 0..1000 {
        scrape = testbed::get(&format!("{url}/metrics")).await.text();
        if scrape.contains(good) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(scrape.contains(good) && !scrape.contains("state=\"bad\"} 1"), "{scrape}");
    assert!(!testbed::get(&format!("{url}/")).await.text().contains("The setup needs a look"));
    let page = testbed::get(&format!("{url}/setup")).await.text();
    assert!(page.contains("3 of 3 canvases") && !page.contains("state bad"), "{page}");
    serving.gets("-TERM");
    serving.ends().await;
    let lines = serving.all();
    assert!(
        !lines.iter().any(|line| line["message"].as_str().is_some_and(|it| it.starts_with("setup:"))),
        "{lines:#?}"
    );
    let first = &lines[0];
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!((&first["message"], &first["version"]), (&"starting".into(), &version.into()), "{first}");
    assert_eq!(first["configuration"], "config.toml");
    let routes: Vec<_> = lines.iter().filter(|line| line["message"] == "route").collect();
    assert_eq!(routes.len(), 2, "{lines:#?}");
    assert!(
        routes.iter().any(|route| route["kind"] == "image" && route["prefix"] == "/iiif/2/"),
        "{routes:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_server_is_asked_by_the_address_that_readers_use() {
    let library = Library::start().await;
    let config = format!("{}[rewrite]\npublic_url = \"http://beside.test:8080\"\n", library.config());
    let serving = Serving::start(library.write(&config));
    serving.says("opened the index");
    let url = format!("http://{}/setup", serving.admin);
    let mut page = String::new();
    for _ in 0..1000 {
        page = testbed::get(&url).await.text();
        if page.contains("3 of 3 canvases") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(page.contains("http://beside.test:8080/iiif/2/") && !page.contains("state bad"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_setup_is_checked_again_and_what_is_mended_is_told() {
    let world = World::with("admin.setup_check = 50ms").await;
    let finding = |about: &str| {
        world.metric(&format!("iiif_mender_setup_finding{{about=\"{about}\",state=\"bad\"}}")) > 0.0
    };
    let manifests = world.folder.path().join("manifests");
    let aside = world.folder.path().join("aside");
    std::fs::rename(&manifests, &aside).expect("a folder");
    patiently("the missing folder is told", || finding("sources")).await;
    assert!(!finding("canvases"), "what is known from there is kept");
    std::fs::rename(&aside, &manifests).expect("a folder");
    patiently("it is in order again", || !finding("sources")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_check_is_wanted_no_server_is_asked() {
    let world = World::start().await;
    world.get(&world.bed.page().image_path("full/200,/0/default.jpg")).await;
    assert!(!world.app.metrics.scrape().contains("iiif_mender_setup_finding{"));
}

/// Breaks something in a world.
type Break = fn(&World);

/// The last heal of the history, and of the API.
async fn last_heal(world: &World) -> Value {
    let url = format!("http://{}/api/v1/heals", world.app.admin.expect("an admin listener"));
    let mut told = Value::Null;
    for _ in 0..1000 {
        told = testbed::get(&url).await.json()["items"][0].clone();
        if !told.is_null() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heal_that_did_not_help_says_why() {
    let cases: [(&str, Break, &str); 4] = [
        ("server.public_hosts = other.test", |_| (), "belongs to no presentation route"),
        ("heal.ladder = register", |_| (), "no rung of [heal] ladder fits it"),
        ("", |world| world.bed.service.fails_canvas(500), "the canvas service answered 500"),
        (
            "heal.ladder = visit",
            |world| world.bed.service.fails_canvas(500),
            "the canvas service answered 500",
        ),
    ];
    for (more, make, says) in cases {
        let world = World::with(&format!("heal.ahead = 0\n{more}")).await;
        world.bed.expires_everything();
        make(&world);
        let seen = world.get(&world.bed.page().image_path("full/200,/0/default.jpg")).await;
        assert_eq!(seen.status, 404, "{more}");
        let heal = last_heal(&world).await;
        assert_eq!((&heal["verdict"], &heal["rung"]), (&"failed".into(), &Value::Null), "{more}: {heal}");
        assert!(heal["reason"].as_str().is_some_and(|reason| reason.contains(says)), "{more}: {heal}");
    }
    // One that helped has none.
    let world = World::with("heal.ahead = 0").await;
    world.bed.expires_everything();
    assert_eq!(world.get(&world.bed.page().image_path("full/200,/0/default.jpg")).await.status, 200);
    let heal = last_heal(&world).await;
    assert_eq!((&heal["verdict"], &heal["reason"]), (&"healed".into(), &Value::Null), "{heal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_why_a_heal_did_not_help() {
    let library = Library::start().await;
    let config = library.config().replace("[\"api.library.tamu.edu\"]", "[\"other.test\"]");
    let serving = Serving::start(library.write(&config));
    told(&serving, "canvases");
    library.bed.expires_everything();
    let page = library.bed.page().image_path("full/200,/0/default.jpg");
    assert_eq!(testbed::get(&format!("http://{}{page}", serving.viewers)).await.status, 404);
    let ended = serving.says("heal ended");
    assert_eq!((&ended["verdict"], &ended["heal.rung"]), (&"failed".into(), &"none".into()), "{ended}");
    assert!(ended["reason"].as_str().is_some_and(|it| it.contains("no presentation route")), "{ended}");
}
