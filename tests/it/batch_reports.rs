//! Reports parse, and hold every broken image with its reason.

use testbed::Testbed;

use crate::support::batch_world::Batch;
use crate::support::json_schema::assert_valid;

const REPORTS: [&str; 8] =
    ["--report", "r.json", "--report", "r.csv", "--report", "r.html", "--report", "r.xml"];

#[tokio::test]
async fn every_report_holds_every_broken_image() {
    let bed = Testbed::builder().book("obj/one", 6).book("obj/two", 2).page_size(64, 64).start().await;
    let batch = Batch::over(bed);
    let pages = batch.bed.pages();
    for page in &pages[..3] {
        batch.bed.expires(&page.identifier);
    }
    batch.bed.fedora.removes_file(&pages[4].path);
    let mut args = vec!["check", "--tiles"];
    args.extend(REPORTS);
    assert_eq!(batch.run(&args).await.code, 1);
    let read = |name: &str| std::fs::read_to_string(batch.file(name)).expect("a report");
    let broken = [&pages[0], &pages[1], &pages[2], &pages[4]];

    let json: serde_json::Value = serde_json::from_str(&read("r.json")).expect("JSON");
    assert_eq!(json["images"].as_array().expect("images").len(), 4);

    let csv = read("r.csv");
    let mut rows = csv::Reader::from_reader(csv.as_bytes());
    assert_eq!(rows.headers().expect("columns").iter().collect::<Vec<_>>().join(","), columns_of_the_docs());
    assert_eq!(
        rows.records().filter(|row| row.as_ref().is_ok_and(|row| row.len() == 11)).count(),
        4,
        "{csv}"
    );

    let xml = read("r.xml");
    let junit = roxmltree::Document::parse(&xml).expect("well formed");
    let failures = junit.descendants().filter(|node| node.has_tag_name("failure")).count();
    assert_eq!(failures, 4);
    assert_eq!(junit.root_element().attribute("failures"), Some("4"));
    assert_eq!(junit.root_element().attribute("tests"), Some("8"));

    let html = read("r.html");
    assert!(!html.contains("<script") && !html.contains("stylesheet"), "it stands alone");
    for page in broken {
        for report in [&csv, &xml, &html] {
            assert!(
                report.contains(&page.identifier) && report.contains(&page.canvas_url),
                "{}",
                page.identifier
            );
        }
    }
    assert!(html.contains("prefers-color-scheme"));
}

/// The columns of the CSV as docs/BATCH.md names them.
fn columns_of_the_docs() -> String {
    let text = crate::docs::read("docs/BATCH.md");
    let from = text.find("`manifest,canvas").expect("the columns") + 1;
    text[from..].split('`').next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn what_json_prints_is_what_the_schema_says() {
    let schema = serde_json::from_str(&crate::docs::read("docs/batch-report.schema.json")).expect("JSON");
    let batch =
        Batch::over(Testbed::builder().book("obj/one", 6).pdf("obj/two", 2).page_size(64, 64).start().await);
    std::fs::write(batch.file("torn.json"), "{").expect("a file");
    let pages = batch.bed.pages();
    assert_valid(&schema, &batch.run(&["check", "--json"]).await.json());
    batch.bed.expires(&pages[0].identifier);
    batch.bed.expires(&pages[1].identifier);
    batch.bed.fedora.removes_file(&pages[4].path);
    for command in [
        &["check", "--json", "--tiles", "--manifests"][..],
        &["heal", "--json", "--dry-run"],
        &["heal", "--json", "--limit", "1"],
        &["heal", "--json", "--tiles", "manifests", "torn.json"],
        &["heal", "--json", "--all", "nowhere.json"],
    ] {
        assert_valid(&schema, &batch.run(command).await.json());
    }
}

#[tokio::test]
async fn each_broken_image_has_its_book_its_page_a_reason_and_what_to_do() {
    let batch =
        Batch::over(Testbed::builder().book("obj/one", 3).book("obj/two", 3).page_size(64, 64).start().await);
    let pages = batch.bed.pages();
    batch.bed.expires(&pages[1].identifier);
    batch.bed.fedora.removes_file(&pages[5].path);
    let listed = batch.run(&["index", "list", "--json"]).await.json();
    let label = |name: &str| {
        let mut listed = listed.as_array().expect("a list").iter();
        let is_it = |row: &&serde_json::Value| row["uri"].as_str().is_some_and(|uri| uri.ends_with(name));
        listed.find(is_it).and_then(|row| row["label"].as_str()).expect("a label").to_owned()
    };
    let (one, two) = (label("obj/one"), label("obj/two"));
    for source in [&[][..], &["manifests"], &[&pages[1].canvas_url, &pages[5].canvas_url]] {
        let mut args = vec!["check", "--tiles", "--json"];
        args.extend(source.iter().map(|source| &**source));
        let json = batch.run(&args).await.json();
        let [expired, missing] = &json["images"].as_array().expect("images")[..] else { panic!("{json}") };
        assert_eq!(
            (&expired["manifest_label"], &expired["label"]),
            (&one.clone().into(), &"Page 2".into()),
            "{json}"
        );
        assert_eq!(
            (&missing["manifest_label"], &missing["label"]),
            (&two.clone().into(), &"Page 3".into()),
            "{json}"
        );
        assert_eq!(expired["reason"], "the image server has forgotten it");
        assert_eq!(expired["advice"], "`iiif-mender heal` brings it back");
        assert_eq!(missing["reason"], "the file itself is gone");
        assert!(
            missing["advice"].as_str().is_some_and(|advice| advice.contains("restore the file")),
            "{json}"
        );
    }
    let text = batch.run(&["check"]).await.stdout;
    let row = |label: &str| {
        text.lines().position(|line| line.starts_with(label)).unwrap_or_else(|| panic!("{text}"))
    };
    assert!(row(&one) < row(&two), "what is broken comes first: {text}");
    assert!(
        text.contains(&format!("\n{one}\nhttps://api.library.tamu.edu{}\n", pages[1].presentation_path)),
        "{text}"
    );
}

#[tokio::test]
async fn a_dry_run_shows_whole_urls() {
    let name = "obj/a-book-with-a-name-that-is-rather-long-for-a-terminal-and-for-a-pipe-too";
    let batch = Batch::over(Testbed::builder().book(name, 2).page_size(64, 64).start().await);
    batch.bed.expires_everything();
    let text = batch.run(&["heal", "--dry-run"]).await.stdout;
    for page in batch.bed.pages() {
        assert!(text.contains(&format!("would ask for {}\n", page.canvas_url)), "{text}");
    }
    assert!(!text.contains('…'), "{text}");
}

#[tokio::test]
async fn a_hostile_label_stays_text_everywhere() {
    let batch = Batch::book(1).await;
    let evil = r#"=cmd()|<script>alert(1)</script>\u0000\u001b[31m"&]]>"#;
    let text = batch.bed.manifest_json("obj/book").replace("Page 1", &evil.replace('"', "\\\""));
    std::fs::write(batch.file("evil.json"), text).expect("a file");
    batch.bed.expires_everything();
    let mut args = vec!["check", "evil.json"];
    args.extend(REPORTS);
    let checked = batch.run(&args).await;
    assert_eq!(checked.code, 1, "{}", checked.stderr);
    assert!(!checked.stdout.contains('\u{1b}'), "{:?}", checked.stdout);
    let read = |name: &str| std::fs::read_to_string(batch.file(name)).expect("a report");
    assert!(!read("r.html").contains("<script"));
    roxmltree::Document::parse(&read("r.xml")).expect("well formed");
    assert!(read("r.csv").contains("\"'=cmd()"), "{}", read("r.csv"));
}

#[tokio::test]
async fn a_report_of_unknown_kind_is_refused_before_anything_is_done() {
    let batch = Batch::book(1).await;
    batch.bed.expires_everything();
    let refused = batch.run(&["heal", "--report", "r.pdf"]).await;
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("must end in .json, .csv, .html or .xml"), "{}", refused.stderr);
    assert_eq!(batch.bed.counts().canvas, 0);
}

#[tokio::test]
async fn on_a_terminal_of_80_columns_every_line_fits() {
    let bed = Testbed::builder().book("obj/a-book-with-a-name-that-is-rather-long-for-a-terminal", 30);
    let batch = Batch::over(bed.page_size(64, 64).start().await);
    batch.bed.expires_everything();
    batch.bed.fedora.removes_file(&batch.bed.page().path);
    batch.bed.service.canvas_delay(std::time::Duration::from_millis(60));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_iiif-mender"));
    command.arg("--config").arg(batch.file("config.toml")).arg("heal").current_dir(batch.folder.path());
    command.env("TERM", "xterm-256color");
    let seen = tokio::task::spawn_blocking(move || {
        use expectrl::Expect as _;
        let mut session = expectrl::Session::spawn(command).expect("a terminal");
        session.get_process_mut().set_window_size(80, 24).expect("80 columns");
        session.set_expect_timeout(Some(std::time::Duration::from_secs(30)));
        let all = session.expect(expectrl::Eof).expect("it ends");
        String::from_utf8_lossy(all.as_bytes()).into_owned()
    })
    .await
    .expect("a thread");
    let ansi = regex::Regex::new("\u{1b}\\[[0-9;?]*[A-Za-z]").expect("a pattern");
    let plain = ansi.replace_all(&seen, "");
    assert!(plain.contains("broken, ") && plain.contains("/s"), "the bar was seen: {plain}");
    assert!(plain.contains("30 images, 30 broken, "), "{plain}");
    for line in plain.split(['\r', '\n']) {
        // The terminal breaks a URL by itself, so that it can be copied.
        let is_url = line.starts_with("http") && !line.contains(' ');
        assert!(is_url || line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
    }
}
