//! Optional files (TLS to upstreams, admin token, telemetry): an unusable one is reported, and the process serves without
//! it.

use std::sync::Arc;

use super::StartError;
use super::trace_export::TraceExport;
use crate::admin::{AdminAuth, AdminAuthError};
use crate::config::Settings;
use crate::observe::Metrics;
use crate::upstream::{TlsError, client_tls};

/// The parts, as metrics and the log call them.
const TLS: &str = "upstream_tls";
const TOKEN: &str = "admin_token";
const TELEMETRY: &str = "telemetry";
/// The listener for operators.
pub(super) const ADMIN: &str = "admin";

/// Leaves out the files for TLS to upstreams that cannot be used.
///
/// SECURITY: without the authorities of `[upstream] ca` fewer servers are believed, never more.
pub(super) fn leave_out_unusable(mut settings: Settings, metrics: &Metrics) -> Result<Settings, TlsError> {
    let mut is_whole = true;
    // The certificates of the system alone cannot fail, and are read later.
    while settings.upstream.has_tls_files()
        && let Err(error) = client_tls(&settings.upstream)
    {
        match &error {
            TlsError::Ca { .. } => settings.upstream.ca = None,
            TlsError::Identity { .. } => settings.upstream.client_certificate = None,
            TlsError::Rustls(_) if settings.upstream.ca.take().is_some() => {}
            TlsError::Rustls(_) if settings.upstream.client_certificate.take().is_some() => {}
            TlsError::Rustls(_) => return Err(error),
        }
        is_whole = false;
        let why = format!("{error}. It is left out: servers that need it are not reached");
        metrics.edge.degraded.begins(TLS, &why);
    }
    if is_whole {
        metrics.edge.degraded.ends(TLS);
    }
    Ok(settings)
}

/// Settings of a reload: a part left out at the start is tried again.
pub(super) fn leave_out_again(settings: Settings, metrics: &Metrics) -> Result<Settings, TlsError> {
    if metrics.edge.degraded.is(TLS) { leave_out_unusable(settings, metrics) } else { Ok(settings) }
}

/// Access rules of the admin pages; without a readable token only client certificates count.
pub(super) fn auth(settings: &Settings, metrics: &Metrics) -> AdminAuth {
    match AdminAuth::open(&settings.admin) {
        Ok(auth) => {
            metrics.edge.degraded.ends(TOKEN);
            auth
        }
        Err(error) => {
            metrics.edge.degraded.begins(TOKEN, &format!("{error}. No token opens the admin pages"));
            AdminAuth::shut(&settings.admin)
        }
    }
}

/// Access rules of a reload: a token that was good and is bad is a mistake; a bad one may stay bad.
pub(super) fn auth_again(settings: &Settings, metrics: &Metrics) -> Result<AdminAuth, AdminAuthError> {
    if metrics.edge.degraded.is(TOKEN) {
        Ok(auth(settings, metrics))
    } else {
        AdminAuth::open(&settings.admin)
    }
}

/// Spans to a collector, where they can be sent.
pub(super) fn spans(settings: &Arc<Settings>, metrics: &Metrics) -> Option<TraceExport> {
    TraceExport::start(settings, metrics).unwrap_or_else(|error: StartError| {
        metrics.edge.degraded.begins(TELEMETRY, &format!("{error}. No spans are sent"));
        None
    })
}
