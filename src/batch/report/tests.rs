//! Tests of the reports, by one run that found something of each kind.

use schemars::generate::SchemaSettings;

use super::{ReportFormat, table};
use crate::batch::summary::{Summary, UnreadSource};
use crate::batch::{CanvasTask, ImageResult, ImageVerdict, ManifestRef};
use crate::setup::{FindingState, SetupFinding};

const BOOKS: &str = "https://library.test/iiif-service/fedora/presentation/obj/";

fn book(name: &str, label: &str) -> ManifestRef {
    ManifestRef { uri: format!("{BOOKS}{name}"), label: Some(label.to_owned()) }
}

fn page(of: &ManifestRef, number: u32, before: ImageVerdict, reason: Option<&str>) -> ImageResult {
    let task = CanvasTask {
        manifest: of.clone().into(),
        canvas: Some(format!("https://library.test/iiif-service/fedora/canvas/{number}")),
        label: Some(format!("Page {number}")),
        images: Vec::new(),
        lacks: None,
        place: number.into(),
    };
    task.entry(&format!("image-{number}"), before, reason.map(str::to_owned))
}

/// Three volumes of one name, of which the second is broken, and a book whose manifest is not well.
fn found(command: &str) -> Summary {
    let mut summary = Summary {
        command: command.to_owned(),
        sources: vec!["manifests".to_owned()],
        image_base: "https://library.test/iiif/2/".to_owned(),
        asked: Some(1),
        took: 1.25,
        ..Summary::default()
    };
    let volumes = ["one", "two", "three"].map(|name| book(name, "Minutes"));
    summary.take(&volumes[0], 300, Vec::new(), 0);
    let expired = page(&volumes[1], 1, ImageVerdict::Expired, Some("the image server has forgotten it"));
    let gone = page(&volumes[1], 2, ImageVerdict::Missing, None);
    let mut healed = page(&volumes[1], 3, ImageVerdict::Expired, None);
    (healed.after, healed.rung) = (Some(ImageVerdict::Ok), Some("variant".to_owned()));
    healed.duration_ms = Some(1204);
    summary.take(&volumes[1], 301, vec![expired, gone, healed], 0);
    summary.take(&volumes[2], 1, Vec::new(), 0);
    let other = book("other", "=SUM(1) <b>&\u{1b}[31m");
    summary.row(&other).trouble = Some("poisoned: served without the images of 1 canvas".to_owned());
    summary.problems.push(UnreadSource {
        source: "torn.json".to_owned(),
        message: "not JSON".to_owned(),
        is_all_of_it: false,
    });
    summary.setup.push(SetupFinding {
        about: "clock",
        state: FindingState::Bad,
        text: "the image server's is 90 s ahead of ours: run NTP on both".to_owned(),
    });
    summary.complete();
    summary
}

fn table(summary: &Summary, width: Option<usize>) -> String {
    let mut out = Vec::new();
    table::write(summary, width, &mut out).expect("a vector takes everything");
    String::from_utf8(out).expect("text")
}

fn written(format: ReportFormat, summary: &Summary) -> String {
    let mut out = Vec::new();
    format.write(summary, &mut out).expect("a vector takes everything");
    String::from_utf8(out).expect("text")
}

#[test]
fn the_table_tells_what_is_broken_first_by_its_names() {
    insta::assert_snapshot!(table(&found("check"), Some(80)), @r"
    manifest              images  expired  missing poisoned    error
    Minutes (obj/two)        301        1        1        ·        ·
    =SUM(1) <b>& [31m          ·        ·        ·        ·        ·
      ! poisoned: served without the images of 1 canvas
    Minutes (obj/one)        300        ·        ·        ·        ·
    Minutes (obj/three)        1        ·        ·        ·        ·
    all                      602        1        1        ·        ·

    Minutes
    https://library.test/iiif-service/fedora/presentation/obj/two
      expired   Page 1 · image-1
      missing   Page 2 · image-2
                the file itself is gone

    what to do
      expired   `iiif-mender heal` brings it back
      missing   restore the file in the repository, or take the canvas out of its
                manifest

    BAD  clock        the image server's is 90 s ahead of ours: run NTP on both
    not read: torn.json
      not JSON

    602 images, 2 broken, 1 canvas request (1.2 s)
    ");
}

#[test]
fn nothing_is_cut_where_no_terminal_is() {
    let mut summary = found("heal");
    let long = "A".repeat(200);
    summary.manifests[0].label = Some(long.clone());
    let many = (10..50).map(|number| page(&book("two", "Minutes"), number, ImageVerdict::Error, None));
    summary.images.extend(many);
    let text = table(&summary, None);
    assert!(text.contains(&long) && text.contains("image-49"), "{text}");
    let text = table(&summary, Some(80));
    assert!(!text.contains("image-49") && text.contains("… and 22 more images"), "{text}");
    // URLs are not wrapped, so that they can be copied.
    assert!(text.contains(&format!("\n{BOOKS}two\n")), "{text}");
}

#[test]
fn one_image_is_not_one_images() {
    let mut summary = Summary { command: "check".to_owned(), ..Summary::default() };
    summary.take(&book("one", "One"), 1, Vec::new(), 0);
    assert!(table(&summary, None).ends_with("\n1 image, nothing broken (0.0 s)\n"));
    let page = page(&book("one", "One"), 1, ImageVerdict::Expired, None);
    summary.command = "heal".to_owned();
    summary.take(&book("one", "One"), 0, vec![page], 0);
    assert!(table(&summary, None).contains("\n1 image, 1 broken, 0 healed, 1 left (0.0 s)\n"));
}

#[test]
fn csv_has_a_line_for_each_and_no_field_is_a_formula() {
    let text = written(ReportFormat::Csv, &found("heal"));
    let mut csv = csv::Reader::from_reader(text.as_bytes());
    let rows: Vec<_> = csv.records().map(|row| row.expect("a row")).collect();
    assert_eq!(rows.len(), 5);
    assert_eq!(rows[0].get(9), Some("Minutes"));
    assert!(rows[0].get(10).is_some_and(|advice| advice.starts_with("`iiif-mender heal` again")));
    assert_eq!(&rows[3][2], "'=SUM(1) <b>&\u{1b}[31m");
    assert!(text.ends_with("\r\n") && text.lines().count() == 6, "{text}");
}

#[test]
fn junit_counts_what_is_well_and_lists_what_is_not() {
    let text = written(ReportFormat::Junit, &found("check"));
    let junit = roxmltree::Document::parse(&text).expect("well formed");
    let count = |name| junit.root_element().attribute(name).map(str::to_owned);
    // 602 images, a manifest, a source, a clock.
    assert_eq!((count("tests"), count("failures")), (Some("605".to_owned()), Some("5".to_owned())));
    let suites: Vec<_> = junit.root_element().children().filter(roxmltree::Node::is_element).collect();
    let told: Vec<_> =
        suites.iter().map(|suite| (suite.attribute("name"), suite.attribute("failures"))).collect();
    assert_eq!(told[0], (Some("Minutes"), Some("2")));
    assert_eq!(told.last(), Some(&(Some("deployment"), Some("1"))));
}

#[test]
fn the_page_shows_what_needs_attention_and_folds_the_rest() {
    let page = written(ReportFormat::Html, &found("heal"));
    let (open, folded) = page.split_once("<details>").expect("something is folded");
    for text in ["image-1", "image-2", "torn.json", "run NTP", "poisoned: ", &format!("href=\"{BOOKS}two\"")]
    {
        assert!(open.contains(text), "{text}: {open}");
    }
    assert!(folded.contains("image-3") && !open.contains("image-3"), "{page}");
    assert!(folded.contains("1 healed image") && folded.contains("4 manifests"), "{folded}");
    assert!(!page.contains("<b>&") && page.contains("overflow-wrap:anywhere"), "{page}");
    let well = written(ReportFormat::Html, &Summary::default());
    assert!(well.contains("No image needs attention"), "{well}");
}

#[test]
fn a_canvas_is_a_link_only_where_it_is_http() {
    let mut summary = found("check");
    summary.images[0].canvas = "javascript:alert(1)".to_owned();
    let page = written(ReportFormat::Html, &summary);
    assert!(page.contains("javascript:alert(1)") && !page.contains("href=\"javascript"), "{page}");
}

#[test]
fn the_schema_in_the_docs_is_that_of_the_report() {
    let settings =
        SchemaSettings::draft2020_12().for_serialize().with(|settings| settings.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<Summary>().to_value();
    let now = format!("{schema:#}\n");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/batch-report.schema.json");
    if std::env::var_os("RENEW_SCHEMA").is_some() {
        std::fs::write(path, &now).expect("it can be written");
    }
    let told = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(told, now, "RENEW_SCHEMA=1 cargo test --lib the_schema_in_the_docs");
}
