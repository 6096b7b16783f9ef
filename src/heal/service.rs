//! One canvas service, as the ladder sees it: asked politely, through lanes and a breaker.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use uuid::Uuid;

use super::breaker::{Breaker, BreakerState};
use super::lanes::{Lane, Lanes, Place};
use super::memory::RungOf;
use super::remarks::Remarks;
use super::server::SendRequest;
use super::truth::Truth;
use super::urgency::Urgency;
use super::ward::Patient;
use super::wellness::Wellness;
use crate::cluster::{self, Cluster, Placed};
use crate::config::Settings;
use crate::config::settings::Timeouts;
use crate::iiif::identifier;
use crate::iiif::manifest;
use crate::observe::{Event, Metrics, Span, Trace};
use crate::upstream::{UpstreamError, own_request};

/// The longest canvas that is read; beyond it nothing is known of its contents.
const LONGEST_CANVAS: usize = 16 << 20;

/// The longest answer to `/resources/{uuid}` that is read.
const LONGEST_RESOURCE: usize = 16 << 10;

/// How long `/resources/{uuid}` may take: it is one look into Redis.
const RESOURCE_PATIENCE: Duration = Duration::from_secs(2);

/// One canvas service.
#[derive(Debug)]
pub(super) struct CanvasService {
    /// Its position in `settings.routes`.
    pub(super) route: usize,
    /// Its [mark](crate::config::settings::Route::mark).
    pub(super) mark: u64,
    server: Arc<dyn SendRequest>,
    scheme: String,
    /// Host and port as configured.
    authority: String,
    /// Path that ends in `/`, before `fedora/…` and `resources/…`.
    base: String,
    /// What its requests say in `Host`.
    host: String,
    /// What they say in `Via`.
    name: String,
    times: Timeouts,
    patience: Duration,
    pub(super) lanes: Arc<Lanes>,
    /// The other nodes, which share its places.
    cluster: Option<Arc<Cluster>>,
    places: usize,
    open_for: Duration,
    pub(super) breaker: Arc<Breaker>,
    pub(super) truth: Truth,
    pub(super) wellness: Arc<Wellness>,
    pub(super) remarks: Arc<Remarks>,
    metrics: Arc<Metrics>,
}

/// What a canvas request brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CanvasAnswer {
    /// The canvas, and it carries the image.
    Carries,
    /// The canvas without the image: poisoned, or the file is gone.
    Lacks,
    /// Good JSON, or none at all, that says nothing about the image.
    Unclear,
    /// The service does not know the canvas, or cannot build it: it speaks against this canvas only.
    Refused,
    /// The service asks for a pause.
    Busy,
    /// No answer, or one that speaks against the service.
    Unwell,
    /// It was not asked: the breaker is open.
    Withheld,
}

/// Was the canvas built for this request?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// For certain.
    Now,
    /// Or it came out of the service's cache.
    NowOrLongAgo,
}

impl CanvasAnswer {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Carries => "carries",
            Self::Lacks => "lacks",
            Self::Unclear => "unclear",
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::Unwell => "unwell",
            Self::Withheld => "withheld",
        }
    }
}

impl CanvasService {
    /// `before`: the same service under other settings; what is known of it stays.
    pub(super) fn new(
        route: usize,
        server: Arc<dyn SendRequest>,
        lanes: Arc<Lanes>,
        settings: &Settings,
        cluster: Option<Arc<Cluster>>,
        metrics: Arc<Metrics>,
        before: Option<&Self>,
    ) -> Self {
        let heal = &settings.heal;
        let (failures, open_for) = (heal.breaker_failures, heal.breaker_open);
        let breaker = match before.map(|before| &before.breaker) {
            Some(breaker) if breaker.keeps_to(failures, open_for) => Arc::clone(breaker),
            Some(breaker) => Arc::new(breaker.under(failures, open_for)),
            None => Arc::new(Breaker::new(failures, open_for)),
        };
        let mut base = settings.routes[route].upstream.path.clone();
        if !base.ends_with('/') {
            base.push('/');
        }
        let host = match settings.server.public_hosts.first() {
            Some(public) if settings.routes[route].preserve_host => public.as_str(),
            _ => settings.routes[route].upstream.authority.as_str(),
        };
        Self {
            route,
            mark: settings.routes[route].mark(),
            base,
            host: host.to_owned(),
            name: settings.server.name.clone(),
            server,
            scheme: settings.routes[route].upstream.scheme.to_string(),
            authority: settings.routes[route].upstream.authority.to_string(),
            times: settings.timeouts(route),
            patience: heal.timeout,
            lanes,
            cluster,
            places: heal.concurrency,
            open_for,
            breaker,
            truth: Truth::new(heal.alive_for, heal.resources_recheck),
            wellness: before.map(|before| Arc::clone(&before.wellness)).unwrap_or_default(),
            remarks: before.map(|before| Arc::clone(&before.remarks)).unwrap_or_default(),
            metrics,
        }
    }

    /// A place here, in the lane that is right by then, and with it one among all nodes' requests. `None`: another node
    /// found that the service only fails.
    pub(super) async fn place(&self, urgency: &Urgency) -> Option<(Place, cluster::Place)> {
        let own = urgency.place(&self.lanes).await;
        let Some(cluster) = &self.cluster else { return Some((own, cluster::Place::default())) };
        let is_first = urgency.lane() == Lane::Viewer;
        match cluster.place(&self.authority, self.places, is_first).await {
            Placed::Place(shared) => Some((own, shared)),
            Placed::LeftAlone(left) => {
                if self.breaker_is_closed() {
                    self.tell(true);
                }
                self.breaker.leave_alone(Instant::now() + left);
                None
            }
        }
    }

    /// What a flight is called on every node: they need not number their routes alike. Two flights of one node never
    /// have the same name: all that makes a [mark](crate::config::settings::Route::mark) is in it.
    pub(super) fn name_of(&self, flight: &RungOf) -> String {
        format!("{}://{}{} {}", self.scheme, self.authority, self.base, flight.words())
    }

    /// The breaker is closed by hand.
    pub(super) fn close_breaker(&self) {
        self.answers();
        if let Some(cluster) = &self.cluster {
            cluster.leave_alone_no_more(&self.authority);
        }
    }

    /// Asks for a canvas and says whether it carries the patient.
    pub(super) async fn canvas(&self, target: &str, patient: &Patient, made: Made) -> CanvasAnswer {
        let _counted = crate::observe::Gauged::one(&self.metrics.canvas_in_flight);
        let answer = match self.get(target, &patient.trace, self.patience, LONGEST_CANVAS).await {
            Ok((status, body)) => read_canvas(status, &body, &patient.key),
            Err(error) => {
                self.metrics.upstream_error(error.kind());
                tracing::warn!(request = %patient.trace, canvas = target, error = %crate::upstream::Chain(&error), "canvas request failed");
                CanvasAnswer::Unwell
            }
        };
        self.note(answer, made);
        answer
    }

    /// Asks whether the service knows where the file of `uuid` is: its own answer, not a copy.
    pub(super) async fn resource(
        &self,
        uuid: Uuid,
        trace: &Trace,
    ) -> Result<(StatusCode, Bytes), UpstreamError> {
        let target = format!("{}resources/{uuid}", self.base);
        let asked = self.get(&target, trace, RESOURCE_PATIENCE, LONGEST_RESOURCE);
        // All of it together: queueing and dialling have patience of their own, and a viewer waits for this.
        let answer = tokio::time::timeout(RESOURCE_PATIENCE, asked).await;
        answer.unwrap_or(Err(UpstreamError::FirstByteTimeout))
    }

    /// Registers one image anew: `{base}{path}?update=true`, where `path` is `fedora/image/…`.
    pub(super) async fn register(&self, path: &str, trace: &Trace) -> CanvasAnswer {
        let target = format!("{}{path}?update=true", self.base);
        let answer = match self.get(&target, trace, self.patience, LONGEST_CANVAS).await {
            Ok((status, _)) if status.is_success() => CanvasAnswer::Carries,
            Ok((status, _)) => classify(status),
            Err(_) => CanvasAnswer::Unwell,
        };
        self.note(answer, Made::Now);
        answer
    }

    /// Asks for a document of any kind; `Err`: what the answer says instead.
    pub(super) async fn document(&self, target: &str, trace: &Trace) -> Result<Bytes, CanvasAnswer> {
        match self.get(target, trace, self.patience, LONGEST_CANVAS).await {
            Ok((status, body)) if status.is_success() => Ok(body),
            Ok((status, _)) => {
                let answer = classify(status);
                self.note(answer, Made::Now);
                Err(answer)
            }
            Err(_) => {
                self.note(CanvasAnswer::Unwell, Made::Now);
                Err(CanvasAnswer::Unwell)
            }
        }
    }

    pub(super) fn breaker_is_closed(&self) -> bool {
        self.breaker.state(Instant::now()) == BreakerState::Closed
    }

    /// It answers as a healthy service does, or somebody knows that it will.
    pub(super) fn answers(&self) {
        if self.breaker.good() {
            self.tell(false);
        }
    }

    fn tell(&self, open: bool) {
        self.metrics.tell(|| Event::Breaker { upstream: self.authority.clone(), open });
    }

    fn note(&self, answer: CanvasAnswer, made: Made) {
        match answer {
            CanvasAnswer::Carries => {
                self.answers();
                // One out of the cache says nothing of the health now.
                if made == Made::Now {
                    self.wellness.good();
                }
            }
            CanvasAnswer::Lacks => {
                self.answers();
                self.wellness.fault();
            }
            // It answers, only not for this canvas, which has its own cool-down: five dead links in a row must not
            // keep every other image from being healed.
            CanvasAnswer::Unclear | CanvasAnswer::Refused => self.answers(),
            CanvasAnswer::Withheld => {}
            CanvasAnswer::Busy | CanvasAnswer::Unwell => {
                if self.breaker.bad(Instant::now()) {
                    self.metrics.event("breaker_opened");
                    if let Some(cluster) = &self.cluster {
                        cluster.leave_alone(&self.authority, self.open_for);
                    }
                    self.tell(true);
                    tracing::warn!(
                        upstream = %self.authority,
                        "the canvas service only fails: leaving it alone for a while ([heal] breaker_open)"
                    );
                }
            }
        }
    }

    /// `Accept` names text too, because `/resources/{uuid}` answers 406 to JSON alone.
    fn head(&self, target: &str) -> Result<Parts, UpstreamError> {
        let mut head = own_request(&self.host, &self.name)?;
        head.uri = target.parse().map_err(|_| UpstreamError::Target)?;
        let accept = HeaderValue::from_static("text/plain, application/json, */*;q=0.5");
        head.headers.insert(header::ACCEPT, accept);
        Ok(head)
    }

    pub(super) async fn get(
        &self,
        target: &str,
        trace: &Trace,
        patience: Duration,
        most: usize,
    ) -> Result<(StatusCode, Bytes), UpstreamError> {
        let mut head = self.head(target)?;
        trace.send_on(&mut head.headers);
        let mut span = Span::call(trace, &head);
        let times = self.times.first_byte(patience);
        let until = tokio::time::Instant::now() + patience;
        let answer = self.server.send(&span.onward(&head), times).await;
        span.answered(&answer);
        // A look into Redis is no news: 404 is its word for "expired".
        if most != LONGEST_RESOURCE {
            match &answer {
                Ok(answer) => self.remarks.answered(target, answer.status(), answer.headers()),
                Err(error) => self.remarks.failed(target, error),
            }
        }
        let answer = answer?;
        let status = answer.status();
        // A body that is too long or breaks says nothing; the status still does.
        let body = tokio::time::timeout_at(until, answer.into_body().collect(most)).await;
        let body = body.ok().and_then(Result::ok);
        if body.is_none() && most != LONGEST_RESOURCE {
            self.remarks.broke_off(target);
        }
        Ok((status, body.unwrap_or_default()))
    }
}

fn classify(status: StatusCode) -> CanvasAnswer {
    match status {
        StatusCode::TOO_MANY_REQUESTS => CanvasAnswer::Busy,
        // UPSTREAM: an unknown canvas and a Fedora that answers 4xx or 5xx are both 500 (upstream.md "Errors").
        StatusCode::INTERNAL_SERVER_ERROR => CanvasAnswer::Refused,
        status if status.is_server_error() => CanvasAnswer::Unwell,
        status if status.is_success() => CanvasAnswer::Unclear,
        _ => CanvasAnswer::Refused,
    }
}

/// What an answer to a canvas request says about one image.
fn read_canvas(status: StatusCode, body: &[u8], image: &str) -> CanvasAnswer {
    if !status.is_success() {
        return classify(status);
    }
    let Ok((_, canvases)) = manifest::read(body) else { return CanvasAnswer::Unclear };
    let mut images = canvases.iter().flat_map(|canvas| &canvas.images).peekable();
    if !canvases.is_empty() && images.peek().is_none() {
        CanvasAnswer::Lacks
    } else if images.any(|own| identifier::same_file(own, image)) {
        CanvasAnswer::Carries
    } else {
        CanvasAnswer::Unclear
    }
}
