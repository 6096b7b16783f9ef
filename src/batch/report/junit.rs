//! JUnit XML: a suite for each manifest, a failure for each image that is not well. Build servers show it.

use std::io::{self, Write};
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::batch::ImageVerdict;
use crate::batch::summary::Summary;

pub(super) fn write(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    let mut report = Report::new(format!("iiif-mender {}", summary.command));
    report.set_time(Duration::try_from_secs_f64(summary.took).unwrap_or_default());
    for (row, entries) in summary.by_manifest() {
        let mut suite = TestSuite::new(row.name());
        suite.extra.insert("id".into(), row.manifest.as_str().into());
        if let Some(trouble) = row.trouble.as_deref().filter(|_| row.is_troubled()) {
            suite.add_test_case(failure("manifest", &row.manifest, "manifest", trouble));
        }
        for entry in entries.into_iter().filter(|entry| entry.now() != ImageVerdict::Ok) {
            let image = if entry.image.is_empty() { &entry.canvas } else { &entry.image };
            let (reason, advice) = (entry.reason.as_deref(), entry.advice.as_deref());
            let [reason, advice] = [reason, advice].map(Option::unwrap_or_default);
            let text = format!("{reason}\n{advice}\nimage {}\ncanvas {}", entry.image, entry.canvas);
            let name = entry.label.as_deref().unwrap_or(image);
            suite.add_test_case(failure(name, &entry.manifest, entry.now().as_str(), &text));
        }
        // Healthy images are counted and not listed: there may be millions.
        let well = row.counts.images.saturating_sub(row.counts.left());
        suite.tests += usize::try_from(well).unwrap_or(0);
        report.add_test_suite(suite);
    }
    let problems = summary.problems.iter();
    let problems = problems.map(|problem| failure(&problem.source, "source", "unreadable", &problem.message));
    let bad = summary.setup.iter().filter(|finding| finding.is_bad());
    let bad = bad.map(|finding| failure(finding.about, "deployment", "bad", &finding.text));
    for (name, failures) in [("sources", problems.collect::<Vec<_>>()), ("deployment", bad.collect())] {
        if !failures.is_empty() {
            let mut suite = TestSuite::new(name);
            suite.add_test_cases(failures);
            report.add_test_suite(suite);
        }
    }
    report.serialize(out).map_err(io::Error::other)
}

fn failure(name: &str, class: &str, kind: &str, text: &str) -> TestCase {
    let mut failure = TestCaseStatus::non_success(NonSuccessKind::Failure);
    failure.set_type(kind).set_message(text.lines().next().unwrap_or_default()).set_description(text);
    let mut case = TestCase::new(name, failure);
    case.set_classname(class);
    case
}
