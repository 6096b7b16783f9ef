//! The other nodes: a flight that was taken here is taken in the fleet, too, before anybody asks. Without `[cluster]`,
//! or while Redis is away, every flight is ours.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use uuid::Uuid;

use crate::cluster::{Boarding, Flight, Learned};
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::response::CanvasResponse;
pub(in crate::heal) use crate::heal::canvas_service::shared_heals::Freshness;
use crate::heal::cooldowns::CanvasRequestKey;
use crate::heal::flight_priority::FlightPriority;
use crate::heal::missing_files::Proof;
use crate::heal::ward::{IndexedImage, Ward};

/// How long such a client stands behind the other readers.
const DEMOTED_FOR: Duration = Duration::from_secs(10);

impl Ward {
    /// Takes the flight in the fleet, then asks; or waits for the node that has it.
    pub(in crate::heal) async fn take_off(
        &self,
        service: &CanvasService,
        flight: &CanvasRequestKey,
        patient: &IndexedImage,
        urgency: &FlightPriority,
        wanted: Freshness,
    ) -> CanvasResponse {
        let Some(cluster) = self.fleet.joined() else {
            return self.request(service, flight, patient, urgency, &Flight::default(), wanted).await;
        };
        let name = service.name_of(flight);
        let mut anew = wanted == Freshness::Anew;
        loop {
            match cluster.board(&name, anew, || urgency.departs()).await {
                Boarding::Ours(own) => {
                    let answer = self.request(service, flight, patient, urgency, &own, wanted).await;
                    // Not asked: dropped without an answer, so that whoever waits may try.
                    if !matches!(answer, CanvasResponse::Withheld | CanvasResponse::Needless) {
                        own.lands(answer.as_str());
                    }
                    return answer;
                }
                Boarding::Landed { answer, before } => {
                    let answer = CanvasResponse::from_word(&answer);
                    // It helped a moment ago, and the image is gone again.
                    if before && answer.may_help() && !self.is_back(patient).await {
                        anew = true;
                        continue;
                    }
                    self.metrics.event("cluster_shared");
                    urgency.departs();
                    return answer;
                }
                Boarding::Cooling(left) => {
                    self.memory.cool(flight, left, Instant::now());
                    return CanvasResponse::Withheld;
                }
            }
        }
    }

    /// Takes the flight of this name in the fleet. `Err`: another node had it, and it landed with this answer.
    pub(in crate::heal) async fn ours(&self, name: &str) -> Result<Flight, String> {
        let Some(cluster) = self.fleet.joined() else { return Ok(Flight::default()) };
        match cluster.board(name, true, || {}).await {
            Boarding::Ours(own) => Ok(own),
            Boarding::Landed { answer, .. } => Err(answer),
            Boarding::Cooling(_) => Err(String::new()),
        }
    }

    /// The rung did not help, and is left alone for a while: here, and on the other nodes.
    pub(in crate::heal) fn rung_failed(
        &self,
        service: &CanvasService,
        rung: &CanvasRequestKey,
        boarded: Instant,
    ) {
        self.rung_failed_since(service, rung, boarded, service.wellness.well_at());
    }

    /// The service refused this canvas. Others that it answered since show that this one is at fault.
    pub(in crate::heal) fn rung_was_refused(
        &self,
        service: &CanvasService,
        rung: &CanvasRequestKey,
        boarded: Instant,
    ) {
        self.rung_failed_since(service, rung, boarded, service.wellness.built_at());
    }

    fn rung_failed_since(
        &self,
        service: &CanvasService,
        rung: &CanvasRequestKey,
        boarded: Instant,
        well_at: Option<Instant>,
    ) {
        if let Some(pause) = self.memory.failed(rung, boarded, well_at, Instant::now())
            && let Some(cluster) = self.fleet.joined()
        {
            cluster.cool(&service.name_of(rung), pause);
        }
    }

    /// This rung is to be tried again: nothing speaks against it any more, here or in what the other nodes share.
    pub(in crate::heal) fn may_try_again(&self, service: &CanvasService, rung: &CanvasRequestKey) {
        self.memory.forget(rung);
        if let Some(cluster) = self.fleet.joined() {
            cluster.cool_no_more(&service.name_of(rung));
        }
    }

    /// The same for a file that some node found gone.
    pub(in crate::heal) fn file_may_be_there(&self, patient: &IndexedImage) {
        if let Some(cluster) = self.fleet.joined() {
            cluster.file_may_be_there(&self.name_of(patient));
        }
    }

    /// The file behind this image is gone, as far as this proves it.
    pub(in crate::heal) fn file_is_missing(&self, patient: &IndexedImage, proof: Proof) {
        self.file_was_missing(patient, proof, Instant::now());
    }

    /// The same, where the proof was seen a while ago: it is believed from then on.
    pub(in crate::heal) fn file_was_missing(&self, patient: &IndexedImage, proof: Proof, seen: Instant) {
        let life = self.missing.file_is_missing(self.mark(patient), &patient.key, proof, seen);
        let left = life.saturating_sub(seen.elapsed());
        if let (Some(cluster), false) = (self.fleet.joined(), left.is_zero()) {
            cluster.file_is_missing(&self.name_of(patient), left);
        }
    }

    /// Does this service build beside? Where it is not known, another node may know it.
    pub(in crate::heal) async fn honours_variants(&self, service: &CanvasService) -> Option<bool> {
        let known = service.variants.known(Instant::now());
        if let (None, Some(cluster)) = (known, self.fleet.joined())
            && let Some(honoured) = cluster.honours_variants(&service.cluster_name()).await
        {
            service.heard_of_variants(honoured);
            return Some(honoured);
        }
        known
    }

    /// Tells the other nodes what is known by now.
    pub(in crate::heal) fn share_variants(&self, service: &CanvasService) {
        if let (Some(honoured), Some(cluster)) = (service.variants.known(Instant::now()), self.fleet.joined())
            && service.variants.is_to_be_shared(Instant::now())
        {
            cluster.tell_variants(
                &service.cluster_name(),
                honoured,
                crate::heal::canvas_service::variants::RETRY_AFTER,
            );
        }
    }

    /// Has another node found that the file is gone?
    pub(in crate::heal) async fn is_missing_elsewhere(&self, patient: &IndexedImage) -> bool {
        let Some(cluster) = self.fleet.joined() else { return false };
        let Some(left) = cluster.missing(&self.name_of(patient)).await else { return false };
        self.missing.missing_elsewhere(self.mark(patient), &patient.key, left, Instant::now());
        true
    }

    /// We hold the file for missing, and told the others so: was that taken back?
    pub(in crate::heal) async fn was_seen_elsewhere(&self, patient: &IndexedImage) -> bool {
        let Some(cluster) = self.fleet.joined() else { return false };
        cluster.missing(&self.name_of(patient)).await.is_none() && cluster.is_joined()
    }

    /// An image by what it is known on every node: they need not number their routes alike.
    fn name_of(&self, patient: &IndexedImage) -> String {
        let upstream = &self.settings.routes[patient.route].upstream;
        format!("{}{}{}", upstream.authority, upstream.path, patient.key)
    }

    /// Does this client begin too many heals, on all nodes together? Counted behind: the answer is for the next.
    pub(in crate::heal) fn is_greedy_elsewhere(self: &Arc<Self>, client: IpAddr) -> bool {
        let Some(cluster) = self.fleet.joined() else { return false };
        let (cluster, ward) = (Arc::clone(cluster), Arc::clone(self));
        tokio::spawn(async move {
            if cluster.heals_of(client).await > Some(ward.settings.heal.per_client) {
                ward.fleet.demoted.insert(client, (), DEMOTED_FOR);
            }
        });
        self.fleet.demoted.contains(&client)
    }

    /// Counts this expiry in the fleet. False: there is none, and we count alone.
    pub(in crate::heal) fn tell_expired(self: &Arc<Self>, patient: &IndexedImage) -> bool {
        let Some(cluster) = self.fleet.joined() else { return false };
        let (cluster, ward, patient) = (Arc::clone(cluster), Arc::clone(self), patient.clone());
        tokio::spawn(async move {
            let bounds = ward.settings.heal.mass_expiry;
            let lasts = bounds.within * crate::heal::background::mass_expiry_detector::OVER_AFTER;
            if cluster.expired(&patient.key, bounds.ids, bounds.within, lasts).await {
                ward.mass_expiry(&patient.trace, ward.settings.heal.sweep);
            }
        });
        true
    }

    /// Tells the other nodes where a file is.
    pub(in crate::heal) fn tell_file_url(&self, uuid: Uuid, url: &str) {
        if let Some(cluster) = self.fleet.joined() {
            cluster.tell_learned(&Learned::File { uuid: uuid.to_string(), url: url.to_owned() });
        }
    }

    /// Heeds what other nodes find out about all. Ends at once where there are none.
    pub(in crate::heal) async fn heed_the_fleet(self: Arc<Self>) {
        let Some(mut begins) = self.fleet.cluster.as_ref().map(|cluster| cluster.mass_expiries()) else {
            return;
        };
        while begins.changed().await.is_ok() {
            // The node that found it sweeps; we look after our own readers.
            self.mass_expiry(&crate::observe::Trace::fresh(), false);
        }
    }
}

impl CanvasResponse {
    /// After this answer the image may be back.
    fn may_help(self) -> bool {
        matches!(self, Self::Built | Self::Carries | Self::Unclear | Self::Lacks)
    }

    fn from_word(word: &str) -> Self {
        let known = [Self::Carries, Self::Lacks, Self::Unclear, Self::Refused, Self::Busy];
        known.into_iter().find(|answer| answer.as_str() == word).unwrap_or(Self::Unwell)
    }
}

/// For [`Flight::lands`] of a cure, and of whatever ends without a word of its own.
pub(in crate::heal) const DONE: &str = "done";
