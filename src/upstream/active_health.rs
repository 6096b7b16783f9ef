//! Active checks: each server gets a request for a path on a schedule, apart from all traffic.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::StatusCode;
use http::request::Parts;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::attempt::Attempt;
use super::body::Body;
use super::server::{InFlightGuard, UpstreamServer};
use super::{Upstream, internal_request};
use crate::config::settings::{HealthSettings, Timeouts};

/// The longest body of a check that is read, so that its connection is kept; a longer one costs the connection.
const LONGEST: usize = 64 << 10;

/// Health check of an upstream's servers: request, expected status, interval.
#[derive(Debug)]
pub(super) struct HealthCheck {
    head: Parts,
    status: StatusCode,
    interval: Duration,
    timeout: Duration,
}

impl HealthCheck {
    /// `None`: the path or the host cannot be written into a request; the configuration has seen to that.
    pub(super) fn new(path: &str, host: &str, name: &str, bounds: &HealthSettings) -> Option<Self> {
        let mut head = internal_request(host, name).ok()?;
        head.uri = path.parse().ok()?;
        let status = StatusCode::from_u16(bounds.status).ok()?;
        Some(Self { head, status, interval: bounds.interval, timeout: bounds.timeout })
    }
}

impl Upstream {
    /// Checks the servers for as long as the upstream exists; ends at once where nothing is to be checked.
    pub async fn keep_checked(upstream: Weak<Self>) {
        let Some(pace) = upstream.upgrade().and_then(|own| Some(own.check.as_ref()?.interval)) else {
            return;
        };
        let mut every = interval(pace);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let Some(own) = upstream.upgrade() else { return };
            let Some(check) = &own.check else { return };
            let checks = own.servers.iter().map(|server| check_once(server, check));
            futures_util::future::join_all(checks).await;
        }
    }
}

/// Checks one server once.
async fn check_once(server: &Arc<UpstreamServer>, check: &HealthCheck) {
    let patience = check.timeout;
    let times = Timeouts { connect: patience, first_byte: patience, body: patience };
    let mut attempt = Attempt::new(None);
    let mut body = Body::Empty;
    let ask = attempt.ask(InFlightGuard::on(server), &check.head, &mut body, &times);
    let asked = timeout(patience, ask).await;
    let is_healthy = match asked {
        Ok(Ok(answer)) => {
            let is_expected = answer.status() == check.status;
            if let Some(exchange) = attempt.answered(patience) {
                let _read = timeout(patience, exchange.into_body().collect(LONGEST)).await;
            }
            is_expected
        }
        Ok(Err(_)) | Err(_) => false,
    };
    server.checked(is_healthy);
}
