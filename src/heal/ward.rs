//! What all heals share: the services, the flights in the air, what is remembered.

use std::net::IpAddr;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::DefaultKeyedRateLimiter;
use http::StatusCode;
use http::request::Parts;
use http::response;
use hyper::Response;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use uuid::Uuid;

use crate::config::Settings;
use crate::heal::background::mass_expiry_detector::MassExpiryDetector;
use crate::heal::background::reading::ReadingActivity;
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::canvas_service::registration::Said;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::canvas_service::shared_heals::SharedHeals;
use crate::heal::cooldowns::{CanvasRequestKey, Cooldowns};
use crate::heal::evidence::proves_nothing;
use crate::heal::first_requests::{FirstRequestLimiter, FirstRequestPermit};
use crate::heal::image_address::{ImageAddress, ImageAddresses};
use crate::heal::ladder::direct_support::DirectSupport;
use crate::heal::ladder::outcome::HealOutcome;
use crate::heal::missing_files::MissingFiles;
use crate::heal::repair::documents::DocumentRepairs;
use crate::heal::server::SendRequest;
use crate::heal::single_flight::{FlightHandle, SingleFlight};
use crate::heal::timed_cache::TimedCache;
use crate::heal::truthful_probe::TruthfulProbe;
use crate::iiif::identifier::uuid_of_file_url;
use crate::iiif::{IdentifierKind, ImageRequest, Target};
use crate::index::recorder::Recorder;
use crate::index::{Index, Owner};
use crate::observe::{Metrics, Span, Trace};
use crate::upstream::guard::Guard;
use crate::upstream::{Body, Caller, UpstreamError, own_request};

/// An image request at the door: whose image, on which route.
#[derive(Debug, Clone, Copy)]
pub struct RoutedImage<'a> {
    /// Position of the image route in `settings.routes`.
    pub route: usize,
    /// The request as read.
    pub request: ImageRequest<'a>,
    /// Who asks.
    pub trace: &'a Trace,
}

/// An image that may be healed.
#[derive(Debug, Clone)]
pub struct IndexedImage {
    /// Position of the image route in `settings.routes`.
    pub(in crate::heal) route: usize,
    /// Lookup key.
    pub(in crate::heal) key: Arc<str>,
    /// As sent.
    pub(in crate::heal) sent: Arc<str>,
    /// Where it may stand as well, if nobody has asked for it and it is not known yet.
    pub(in crate::heal) others: Arc<[ImageAddress]>,
    pub(in crate::heal) kind: IdentifierKind,
    pub(in crate::heal) owners: Arc<[Owner]>,
    /// Who asks for it: what is done for its sake is done in this name.
    pub(in crate::heal) trace: Trace,
}

/// That a file URL is in the index is remembered for so long: writing it may have failed.
const FILED_FOR: Duration = Duration::from_mins(10);

/// Identifier behind the image route with this mark.
pub(in crate::heal) type ImageKey = (u64, Arc<str>);

/// What all heals share.
#[derive(Debug)]
pub(in crate::heal) struct Ward {
    pub(in crate::heal) settings: Arc<Settings>,
    pub(in crate::heal) services: Vec<Arc<CanvasService>>,
    /// In the order of `settings.routes`.
    pub(in crate::heal) servers: Vec<Arc<dyn SendRequest>>,
    /// What each route is remembered by, in the same order: every image asks for it.
    pub(in crate::heal) marks: Vec<u64>,
    /// Which probe tells the truth on each route, in the same order.
    pub(in crate::heal) probes: Vec<Arc<TruthfulProbe>>,
    /// Images that a probe has shown to be alive, by their keys and the marks of their routes.
    pub(in crate::heal) alive: TimedCache<ImageKey, Instant>,
    /// When images were healed.
    pub(in crate::heal) healed: TimedCache<ImageKey, Instant>,
    /// Images of which the canvas service says that they are alive, while the image server finds nothing.
    pub(in crate::heal) doubted: TimedCache<ImageKey>,
    pub(in crate::heal) fleet: SharedHeals,
    pub(in crate::heal) guard: Guard,
    pub(in crate::heal) index: Arc<Index>,
    pub(in crate::heal) metrics: Arc<Metrics>,
    /// Where what goes on behind the viewers' backs runs.
    pub(in crate::heal) home: Handle,
    pub(in crate::heal) climbs: SingleFlight<ImageKey, HealOutcome>,
    pub(in crate::heal) canvases: SingleFlight<CanvasRequestKey, CanvasResponse>,
    pub(in crate::heal) cures: SingleFlight<CanvasRequestKey, ()>,
    /// What the last visits brought that did not help.
    pub(in crate::heal) visited: TimedCache<CanvasRequestKey, CanvasResponse>,
    /// Addresses that echoes are known to come from.
    pub(in crate::heal) callers: TimedCache<IpAddr>,
    /// Questions to `/resources` that many wait for, and when each was asked.
    pub(in crate::heal) asked: SingleFlight<Uuid, (Instant, Said)>,
    pub(in crate::heal) addresses: ImageAddresses,
    pub(in crate::heal) firsts: Arc<FirstRequestLimiter>,
    pub(in crate::heal) memory: Cooldowns,
    pub(in crate::heal) missing: MissingFiles,
    pub(in crate::heal) mends: Arc<DocumentRepairs>,
    pub(in crate::heal) history: Recorder,
    pub(in crate::heal) readers: Arc<ReadingActivity>,
    pub(in crate::heal) expiries: Arc<MassExpiryDetector>,
    /// Idle, sweeping, or asked to stop: see `sweep`.
    pub(in crate::heal) sweeping: Arc<AtomicU8>,
    /// Base64 identifiers, and those of them that hold an encoded slash.
    pub(in crate::heal) base64: DirectSupport,
    pub(in crate::heal) base64_with_slash: DirectSupport,
    pub(in crate::heal) clients: Arc<DefaultKeyedRateLimiter<IpAddr>>,
    pub(in crate::heal) waiting: Arc<Semaphore>,
    /// UUIDs whose file URL stands in the index, or will in a moment.
    pub(in crate::heal) filed: TimedCache<Uuid>,
    /// An identifier that was alive a short while ago: it shows whether info.json works at all.
    pub(in crate::heal) witness: Mutex<Option<IndexedImage>>,
}

impl Ward {
    /// What this image's route is remembered by.
    pub(in crate::heal) fn mark(&self, patient: &IndexedImage) -> u64 {
        self.marks[patient.route]
    }

    /// The identifier with its owners, if the index knows it and it may be healed.
    pub(in crate::heal) fn admit(&self, at: &RoutedImage<'_>) -> Option<IndexedImage> {
        let identifier = at.request.identifier;
        let key = identifier.key();
        if !self.settings.heal.enabled
            || self.settings.heal.identifiers.as_ref().is_some_and(|pattern| !pattern.is_match(&key))
        {
            return None;
        }
        let step = Span::step(at.trace, "index");
        let owners = self.index.owners(&key);
        drop(step);
        let owners = match owners {
            Ok(owners) => owners,
            Err(error) => {
                self.metrics.index_lookup("error");
                tracing::error!(request = %at.trace, %error, "the index cannot be read: nothing can be healed until it can");
                return None;
            }
        };
        self.metrics.index_lookup(if owners.is_empty() { "unknown" } else { "known" });
        (!owners.is_empty()).then(|| IndexedImage {
            route: at.route,
            key: key.into(),
            sent: identifier.as_sent().into(),
            others: Arc::default(),
            kind: identifier.kind(),
            owners,
            trace: at.trace.clone(),
        })
    }

    /// A seat on the climb for this image; where there is none it starts now.
    pub(in crate::heal) fn board(
        self: &Arc<Self>,
        patient: &IndexedImage,
        lane: Priority,
    ) -> FlightHandle<HealOutcome> {
        let key = (self.mark(patient), Arc::clone(&patient.key));
        self.climbs.board(&key, lane, |urgency| {
            urgency.is_led_by(&patient.trace);
            let (ward, patient) = (Arc::clone(self), patient.clone());
            async move {
                let (mark, sent) = (ward.mark(&patient), Arc::clone(&patient.sent));
                let verdict = Arc::clone(&ward).climb(patient, urgency).await;
                // Whether that helped or not: the next one asks for it first.
                ward.firsts.forget(mark, &sent);
                verdict
            }
        })
    }

    /// Is this image being healed now?
    pub(in crate::heal) fn is_under_way(&self, patient: &IndexedImage) -> bool {
        self.climbs.find(&(self.mark(patient), Arc::clone(&patient.key))).is_some()
    }

    /// May this image be healed now? Heals go on when their viewers leave, and some never had any: without a bound
    /// whoever asks for one expired image after the other would fill the memory with them.
    pub(in crate::heal) fn may_board(&self, patient: &IndexedImage) -> bool {
        let may = self.climbs.len() < self.settings.heal.max_flights || self.is_under_way(patient);
        if !may {
            self.metrics.event("heal_refused");
        }
        may
    }

    /// The turn of a request that asks before anything is known. An info.json has none: it proves nothing.
    pub(in crate::heal) async fn first_ask(&self, at: &RoutedImage<'_>) -> FirstRequestPermit {
        if at.request.target == Target::Info {
            return FirstRequestPermit::free();
        }
        let held = || self.metrics.event("first_ask_held");
        self.firsts
            .ask(
                self.marks[at.route],
                at.request.identifier.as_sent(),
                at.request.target,
                &self.settings.heal,
                held,
            )
            .await
    }

    /// The lane for this client: one that starts very many heals stands behind the other readers for a while.
    pub(in crate::heal) fn fair(
        self: &Arc<Self>,
        patient: &IndexedImage,
        client: IpAddr,
        lane: Priority,
    ) -> Priority {
        let is_flying = self.climbs.find(&(self.mark(patient), Arc::clone(&patient.key))).is_some();
        if is_flying || self.clients.check_key(&client).is_ok() && !self.is_greedy_elsewhere(client) {
            return lane;
        }
        self.metrics.event("client_demoted");
        lane.max(Priority::Prefetch)
    }

    /// Forgets clients that were not seen for a while. Call it every minute or so.
    pub(in crate::heal) fn prune(&self) {
        self.clients.retain_recent();
    }

    /// A place among the viewers who may wait at once.
    pub(in crate::heal) fn wait_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.waiting).try_acquire_owned().ok()
    }

    pub(in crate::heal) fn is_expiry(&self, status: StatusCode) -> bool {
        self.settings.heal.statuses.contains(&status.as_u16())
    }

    /// Sends `request` to the image server of this route, on behalf of `caller`.
    pub(in crate::heal) async fn ask_image(
        &self,
        patient: &IndexedImage,
        request: &Parts,
        caller: &Caller,
    ) -> Result<Response<Body>, UpstreamError> {
        self.ask_image_on(patient.route, patient, request, caller).await
    }

    async fn ask_image_on(
        &self,
        route: usize,
        patient: &IndexedImage,
        request: &Parts,
        caller: &Caller,
    ) -> Result<Response<Body>, UpstreamError> {
        let times = self.settings.timeouts(route);
        let mut span = Span::call(&patient.trace, request);
        let sent = self.servers[route].send(caller, &span.onward(request), times).await;
        span.answered(&sent);
        sent
    }

    /// Asks the image server for `{identifier}/{tail}` on our own behalf.
    pub(in crate::heal) async fn look_at(
        &self,
        patient: &IndexedImage,
        tail: &str,
    ) -> Result<StatusCode, UpstreamError> {
        self.look_at_id(patient, &patient.sent, tail).await
    }

    /// The same for another identifier of the same image server.
    pub(in crate::heal) async fn look_at_id(
        &self,
        patient: &IndexedImage,
        id: &str,
        tail: &str,
    ) -> Result<StatusCode, UpstreamError> {
        self.head_of_id(patient, id, tail).await.map(|head| head.status)
    }

    /// The same: the head of the answer. The image itself is looked for at each address that it may have.
    pub(in crate::heal) async fn head_of_id(
        &self,
        patient: &IndexedImage,
        id: &str,
        tail: &str,
    ) -> Result<response::Parts, UpstreamError> {
        let first = self.head_at(patient, patient.route, id, tail).await;
        let service = self.service_index(&patient.owners);
        let is_gone = |head: &Result<response::Parts, UpstreamError>| {
            head.as_ref().is_ok_and(|head| self.is_expiry(head.status))
        };
        if patient.others.is_empty() || id != &*patient.sent {
            return first;
        }
        if !is_gone(&first) {
            if first.as_ref().is_ok_and(|head| !proves_nothing(head.status)) {
                self.addresses.found(service, patient.route, id);
            }
            return first;
        }
        for other in &*patient.others {
            let head = self.head_at(patient, other.route, &other.sent, tail).await;
            if head.as_ref().is_ok_and(|head| !self.is_expiry(head.status) && !proves_nothing(head.status)) {
                self.addresses.found(service, other.route, &other.sent);
                return head;
            }
        }
        first
    }

    async fn head_at(
        &self,
        patient: &IndexedImage,
        route: usize,
        id: &str,
        tail: &str,
    ) -> Result<response::Parts, UpstreamError> {
        let of = &self.settings.routes[route];
        let mut head = own_request(of.upstream.authority.as_str(), &self.settings.server.name)?;
        let target = format!("{}{id}/{tail}", of.upstream.path);
        head.uri = target.parse().map_err(|_| UpstreamError::Target)?;
        patient.trace.send_on(&mut head.headers);
        let answer = self.ask_image_on(route, patient, &head, &Caller::default()).await?;
        let (head, body) = answer.into_parts();
        // Read to its end, so that the connection is kept; a body that is too long only costs the connection.
        let _ = tokio::time::timeout(Duration::from_secs(10), body.collect(1 << 20)).await;
        Ok(head)
    }

    /// The services that may know this identifier, those of its canvases first.
    pub(in crate::heal) fn services_of(&self, patient: &IndexedImage) -> Vec<Arc<CanvasService>> {
        if let [only] = &*self.services {
            return vec![Arc::clone(only)];
        }
        let mut of: Vec<Arc<CanvasService>> = Vec::new();
        for owner in &*patient.owners {
            let Some(allowed) = self.guard.allow(&owner.canvas) else { continue };
            if let Some(service) = self.service(allowed.route)
                && !of.iter().any(|other| other.route == service.route)
            {
                of.push(Arc::clone(service));
            }
        }
        if of.is_empty() {
            of.extend(self.services.first().cloned());
        }
        of
    }

    pub(in crate::heal) fn service(&self, route: usize) -> Option<&Arc<CanvasService>> {
        self.services.iter().find(|service| service.route == route)
    }

    pub(in crate::heal) fn file_url(&self, uuid: Uuid) -> Option<String> {
        #[cfg(test)]
        if let Some(noted) = self.history.noted_file_url(uuid) {
            return Some(noted);
        }
        self.index.file_url(uuid).ok().flatten()
    }

    /// Remembers where the file is, if the claim is true. Written behind; nobody waits for it.
    pub(in crate::heal) fn learn_file_url(&self, uuid: Uuid, file_url: &str) {
        if self.filed.contains(&uuid) || uuid_of_file_url(file_url) != uuid {
            return;
        }
        self.filed.insert(uuid, (), FILED_FOR);
        if self.file_url(uuid).is_none() {
            self.tell_file_url(uuid, file_url);
            self.history.learn_file_url(uuid, file_url);
        }
    }

    /// This identifier is alive: it can show later whether info.json works at all.
    pub(in crate::heal) fn bear_witness(&self, patient: &IndexedImage) {
        *self.witness.lock().unwrap_or_else(PoisonError::into_inner) = Some(patient.clone());
    }

    pub(in crate::heal) fn witness(&self) -> Option<IndexedImage> {
        self.witness.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
