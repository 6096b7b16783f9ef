//! Reports problems of the setup, after commands on the configuration or the index.

use std::io::{self, Write};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::app;
use crate::batch::command::BatchServices;
use crate::config::{ConfigOrigin, Settings};
use crate::setup::{SetupFinding, check, check_index, check_settings, write_problems};

/// Time limit of the setup check: a start may wait for this command.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Prints what keeps images from being healed: in the configuration, in the index if there is one, at the servers. `is_built`:
/// the index was built just now, which told what is wrong with its sources.
pub(super) fn tell_of_all(origin: &ConfigOrigin, is_built: bool, out: &mut dyn Write) -> io::Result<()> {
    let Ok(settings) = origin.load(std::env::vars_os()) else { return Ok(()) };
    // Without an index only the configuration can be checked, and none is created.
    if !settings.index.path.exists() {
        return write_apart(&check_settings(&settings), out);
    }
    let Some((runtime, services)) = services(settings) else { return Ok(()) };
    let BatchServices { settings, index, healer, .. } = &services;
    let checked = runtime
        .block_on(async { tokio::time::timeout(CHECK_TIMEOUT, check(healer, index, settings)).await })
        .unwrap_or_else(|_| Some(check_index(healer, index, settings)));
    drop(services);
    runtime.shutdown_background();
    let mut findings = checked.unwrap_or_default();
    findings.retain(|finding| !(is_built && finding.is_about_sources()));
    write_apart(&findings, out)
}

/// Writes the problems below an empty line, where there are any.
fn write_apart(findings: &[SetupFinding], out: &mut dyn Write) -> io::Result<()> {
    if findings.iter().any(|finding| !finding.is_good()) {
        writeln!(out)?;
    }
    write_problems(findings, out)
}

/// Prints to stderr what keeps the images of the index from being healed, but for what `index build` itself said of its
/// sources. No request is sent.
pub(super) fn tell_of_index(settings: Settings) {
    let Some((runtime, services)) = services(settings) else { return };
    let mut findings = check_index(&services.healer, &services.index, &services.settings);
    findings.retain(|finding| !finding.is_about_sources());
    drop(services);
    runtime.shutdown_background();
    let _ = write_problems(&findings, &mut io::stderr().lock());
}

/// `None`: mistakes in the configuration, which the command itself reports.
fn services(mut settings: Settings) -> Option<(Runtime, BatchServices)> {
    // The check needs no other node.
    settings.cluster.urls.clear();
    let runtime = Builder::new_current_thread().enable_all().build().ok()?;
    let entered = runtime.enter();
    let services = app::batch_services(settings).ok();
    drop(entered);
    services.map(|services| (runtime, services))
}
