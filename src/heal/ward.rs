//! What all heals share: the services, the flights in the air, what is remembered.

use std::net::IpAddr;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use governor::DefaultKeyedRateLimiter;
use http::StatusCode;
use http::request::Parts;
use hyper::Response;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::climb::{SMALL_TILE, Verdict};
use super::direct::Passage;
use super::firsts::{FirstAsk, Firsts};
use super::fleet::Fleet;
use super::flight::{Flights, Seat};
use super::lanes::Lane;
use super::mass::Detector;
use super::memory::{Memory, RungOf};
use super::poison::Mends;
use super::readers::Readers;
use super::server::SendRequest;
use super::service::{CanvasAnswer, CanvasService};
use super::timed_cache::TimedCache;
use super::truth::Said;
use crate::config::Settings;
use crate::iiif::identifier::uuid_of_file_url;
use crate::iiif::{IdentifierKind, ImageRequest, Target};
use crate::index::recorder::Recorder;
use crate::index::{Index, Owner};
use crate::observe::{Metrics, Span, Trace};
use crate::upstream::guard::Guard;
use crate::upstream::{Body, UpstreamError, own_request};

/// An image request at the door: whose image, on which route.
#[derive(Debug, Clone, Copy)]
pub struct Lobby<'a> {
    /// Position of the image route in `settings.routes`.
    pub route: usize,
    /// The request as read.
    pub request: ImageRequest<'a>,
    /// Who asks.
    pub trace: &'a Trace,
}

/// An image that may be healed.
#[derive(Debug, Clone)]
pub struct Patient {
    /// Position of the image route in `settings.routes`.
    pub(super) route: usize,
    /// Lookup key.
    pub(super) key: Arc<str>,
    /// As sent.
    pub(super) sent: Arc<str>,
    pub(super) kind: IdentifierKind,
    pub(super) owners: Arc<[Owner]>,
    /// Who asks for it: what is done for its sake is done in this name.
    pub(super) trace: Trace,
}

/// Identifier behind the image route with this mark.
pub(super) type ImageKey = (u64, Arc<str>);

/// What all heals share.
#[derive(Debug)]
pub(super) struct Ward {
    pub(super) settings: Arc<Settings>,
    pub(super) services: Vec<Arc<CanvasService>>,
    /// In the order of `settings.routes`.
    pub(super) servers: Vec<Arc<dyn SendRequest>>,
    /// What each route is remembered by, in the same order: every image asks for it.
    pub(super) marks: Vec<u64>,
    pub(super) fleet: Fleet,
    pub(super) guard: Guard,
    pub(super) index: Arc<Index>,
    pub(super) metrics: Arc<Metrics>,
    /// Where what goes on behind the viewers' backs runs.
    pub(super) home: Handle,
    pub(super) climbs: Flights<ImageKey, Verdict>,
    pub(super) canvases: Flights<RungOf, CanvasAnswer>,
    pub(super) cures: Flights<RungOf, ()>,
    pub(super) firsts: Arc<Firsts>,
    pub(super) memory: Memory,
    pub(super) mends: Arc<Mends>,
    pub(super) history: Recorder,
    pub(super) readers: Arc<Readers>,
    pub(super) expiries: Arc<Detector>,
    /// Idle, sweeping, or asked to stop: see `sweep`.
    pub(super) sweeping: Arc<AtomicU8>,
    /// Base64 identifiers, and those of them that hold an encoded slash.
    pub(super) base64: Passage,
    pub(super) base64_with_slash: Passage,
    pub(super) clients: Arc<DefaultKeyedRateLimiter<IpAddr>>,
    pub(super) waiting: Arc<Semaphore>,
    /// UUIDs whose file URL stands in the index, or will in a moment.
    pub(super) filed: TimedCache<Uuid>,
    /// An identifier that was alive a short while ago: it shows whether info.json works at all.
    pub(super) witness: Mutex<Option<Patient>>,
}

impl Ward {
    /// What this image's route is remembered by.
    pub(super) fn mark(&self, patient: &Patient) -> u64 {
        self.marks[patient.route]
    }

    /// The identifier with its owners, if the index knows it and it may be healed.
    pub(super) fn admit(&self, at: &Lobby<'_>) -> Option<Patient> {
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
        (!owners.is_empty()).then(|| Patient {
            route: at.route,
            key: key.into(),
            sent: identifier.as_sent().into(),
            kind: identifier.kind(),
            owners,
            trace: at.trace.clone(),
        })
    }

    /// A seat on the climb for this image; where there is none it starts now.
    pub(super) fn board(self: &Arc<Self>, patient: &Patient, lane: Lane) -> Seat<Verdict> {
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

    /// May this image be healed now? Heals go on when their viewers leave, and some never had any: without a bound
    /// whoever asks for one expired image after the other would fill the memory with them.
    pub(super) fn may_board(&self, patient: &Patient) -> bool {
        let may = self.climbs.len() < self.settings.heal.max_flights
            || self.climbs.find(&(self.mark(patient), Arc::clone(&patient.key))).is_some();
        if !may {
            self.metrics.event("heal_refused");
        }
        may
    }

    pub(super) fn is_climbing(&self, at: &Lobby<'_>) -> bool {
        self.climbs.len() > 0
            && self.climbs.find(&(self.marks[at.route], Arc::from(&*at.request.identifier.key()))).is_some()
    }

    /// The turn of a request that asks before anything is known. An info.json has none: it proves nothing.
    pub(super) async fn first_ask(&self, at: &Lobby<'_>) -> FirstAsk {
        if at.request.target == Target::Info {
            return FirstAsk::free();
        }
        let held = || self.metrics.event("first_ask_held");
        self.firsts
            .ask(self.marks[at.route], at.request.identifier.as_sent(), &self.settings.heal, held)
            .await
    }

    /// The lane for this client: one that starts very many heals stands behind the other readers for a while.
    pub(super) fn fair(self: &Arc<Self>, patient: &Patient, client: IpAddr, lane: Lane) -> Lane {
        let is_flying = self.climbs.find(&(self.mark(patient), Arc::clone(&patient.key))).is_some();
        if is_flying || self.clients.check_key(&client).is_ok() && !self.is_greedy_elsewhere(client) {
            return lane;
        }
        self.metrics.event("client_demoted");
        lane.max(Lane::Ahead)
    }

    /// Forgets clients that were not seen for a while. Call it every minute or so.
    pub(super) fn prune(&self) {
        self.clients.retain_recent();
    }

    /// A place among the viewers who may wait at once.
    pub(super) fn wait_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.waiting).try_acquire_owned().ok()
    }

    pub(super) fn is_expiry(&self, status: StatusCode) -> bool {
        self.settings.heal.statuses.contains(&status.as_u16())
    }

    /// Sends `request` to the image server of this route.
    pub(super) async fn ask_image(
        &self,
        patient: &Patient,
        request: &Parts,
    ) -> Result<Response<Body>, UpstreamError> {
        let times = self.settings.timeouts(patient.route);
        let mut span = Span::call(&patient.trace, request);
        let sent = self.servers[patient.route].send(&span.onward(request), times).await;
        span.answered(&sent);
        sent
    }

    /// Asks the image server for `{identifier}/{tail}` on our own behalf.
    pub(super) async fn look_at(&self, patient: &Patient, tail: &str) -> Result<StatusCode, UpstreamError> {
        self.look_at_id(patient, &patient.sent, tail).await
    }

    /// The same for another identifier of the same image server.
    pub(super) async fn look_at_id(
        &self,
        patient: &Patient,
        id: &str,
        tail: &str,
    ) -> Result<StatusCode, UpstreamError> {
        let route = &self.settings.routes[patient.route];
        let mut head = own_request(route.upstream.authority.as_str(), &self.settings.server.name)?;
        let target = format!("{}{id}/{tail}", route.upstream.path);
        head.uri = target.parse().map_err(|_| UpstreamError::Target)?;
        patient.trace.send_on(&mut head.headers);
        let answer = self.ask_image(patient, &head).await?;
        let status = answer.status();
        // Read to its end, so that the connection is kept; a body that is too long only costs the connection.
        let _ = tokio::time::timeout(Duration::from_secs(10), answer.into_body().collect(1 << 20)).await;
        Ok(status)
    }

    /// The services that may know this identifier, those of its canvases first.
    pub(super) fn services_of(&self, patient: &Patient) -> Vec<Arc<CanvasService>> {
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

    pub(super) fn service(&self, route: usize) -> Option<&Arc<CanvasService>> {
        self.services.iter().find(|service| service.route == route)
    }

    /// What the canvas service says of this identifier now.
    pub(super) async fn ask(&self, patient: &Patient) -> Said {
        let IdentifierKind::Uuid { uuid, .. } = patient.kind else { return Said::Nothing };
        for service in self.services_of(patient) {
            if !service.truth.is_open(Instant::now()) {
                continue;
            }
            let said = match service.resource(uuid, &patient.trace).await {
                Ok((status, body)) => service.truth.hear(uuid, status, &body, Instant::now()),
                Err(error) => {
                    self.metrics.upstream_error(error.kind());
                    service.truth.no_answer(Instant::now());
                    Said::Nothing
                }
            };
            self.metrics.resource_check(match said {
                Said::Alive(_) => "alive",
                Said::Expired => "expired",
                Said::Nothing => "nothing",
            });
            if let Said::Alive(file_url) = &said {
                self.learn_file_url(uuid, file_url);
                self.bear_witness(patient);
            }
            if said != Said::Nothing {
                return said;
            }
        }
        Said::Nothing
    }

    /// The same, but "alive" is believed for a while.
    pub(super) async fn ask_remembered(&self, patient: &Patient) -> Said {
        if self.knows_alive(patient) { Said::Alive(String::new()) } else { self.ask(patient).await }
    }

    /// The service said "alive" a short while ago.
    pub(super) fn knows_alive(&self, patient: &Patient) -> bool {
        let IdentifierKind::Uuid { uuid, .. } = patient.kind else { return false };
        self.services_of(patient).iter().any(|service| service.truth.remembers_alive(uuid))
    }

    /// The image server answered 404, so "alive" is not believed any more.
    pub(super) fn doubt(&self, patient: &Patient) {
        let IdentifierKind::Uuid { uuid, .. } = patient.kind else { return };
        for service in &self.services {
            service.truth.doubt(uuid);
        }
    }

    /// The image was said to be alive, and is 404: is its file gone? Remembered, so it is asked with care. The key may
    /// have been lost again in between, and one request may be 404 for a reason of its own.
    pub(super) async fn is_missing(&self, patient: &Patient) -> bool {
        if self.memory.is_missing(self.mark(patient), &patient.key, Instant::now()) {
            return true;
        }
        let tile = self.look_at(patient, SMALL_TILE).await;
        let is_missing = tile.is_ok_and(|status| self.is_expiry(status))
            && matches!(self.ask(patient).await, Said::Alive(_));
        if is_missing {
            self.file_is_missing(patient);
        }
        is_missing
    }

    pub(super) fn file_url(&self, uuid: Uuid) -> Option<String> {
        self.index.file_url(uuid).ok().flatten()
    }

    /// Remembers where the file is, if the claim is true. Written behind; nobody waits for it.
    fn learn_file_url(&self, uuid: Uuid, file_url: &str) {
        if self.filed.contains(&uuid) || uuid_of_file_url(file_url) != uuid {
            return;
        }
        self.filed.insert(uuid, (), super::opening::FILED_FOR);
        if self.file_url(uuid).is_none() {
            self.tell_file_url(uuid, file_url);
            self.history.learn_file_url(uuid, file_url);
        }
    }

    /// This identifier is alive: it can show later whether info.json works at all.
    pub(super) fn bear_witness(&self, patient: &Patient) {
        *self.witness.lock().unwrap_or_else(PoisonError::into_inner) = Some(patient.clone());
    }

    pub(super) fn witness(&self) -> Option<Patient> {
        self.witness.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
