//! What is proven of one image, asked now or remembered for a while.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::settings::Rung;
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::canvas_service::registration::Said;
use crate::heal::evidence::Evidence;
use crate::heal::missing_files::Proof;
use crate::heal::ward::{IndexedImage, Ward};
use crate::iiif::IdentifierKind;

/// For so long it is remembered when an image was healed: who finds it gone again knows that it expired anew.
const HEALED_FOR: Duration = Duration::from_mins(10);

impl Ward {
    /// What the canvas service says of this identifier now.
    pub(in crate::heal) async fn ask(&self, patient: &IndexedImage) -> Said {
        let IdentifierKind::Uuid { uuid, .. } = patient.kind else { return Said::Nothing };
        if self.is_doubted(patient) {
            return Said::Nothing;
        }
        for service in self.services_of(patient) {
            if !service.truth.is_open(Instant::now()) {
                continue;
            }
            // What it says was so when it was asked, and may be so no more when it is heard.
            let healed = self.healed.get(&(self.mark(patient), Arc::clone(&patient.key)));
            let (asked_at, alive_at) = (Instant::now(), service.truth.alive_at(uuid).max(healed));
            let asked = service.truth.patiently(service.resource(uuid, &patient.trace));
            let Some(answer) = asked.await else { continue };
            let said = match answer {
                Ok((status, body)) => service.truth.hear(uuid, status, &body, asked_at),
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
            match &said {
                Said::Alive(file_url) => {
                    self.learn_file_url(uuid, file_url);
                    self.bear_witness(patient);
                }
                Said::Expired => self.expired_again(patient, alive_at),
                Said::Nothing => {}
            }
            if said != Said::Nothing {
                return said;
            }
        }
        Said::Nothing
    }

    /// The same, but "alive" is believed for a while.
    pub(in crate::heal) async fn ask_remembered(
        self: &Arc<Self>,
        patient: &IndexedImage,
        since: Option<Instant>,
    ) -> Said {
        if self.knows_alive(patient, since) {
            return Said::Alive(String::new());
        }
        let IdentifierKind::Uuid { uuid, .. } = patient.kind else { return Said::Nothing };
        if self.services_of(patient).iter().any(|service| service.truth.remembers_expired(uuid)) {
            return Said::Expired;
        }
        loop {
            // Two hundred who open the same page are one question.
            let mut asked = self.asked.board(&uuid, Priority::Viewer, |_| {
                let (ward, patient) = (Arc::clone(self), patient.clone());
                async move { (Instant::now(), ward.ask(&patient).await) }
            });
            let Some((at, said)) = asked.landed().await else { return Said::Nothing };
            // One that was asked before that may have been answered before it, too.
            if since.is_none_or(|since| at >= since) {
                return said;
            }
        }
    }

    /// The same, but "expired" is believed for a moment: whoever looked has asked already.
    pub(in crate::heal) async fn ask_lately(&self, patient: &IndexedImage) -> Said {
        let IdentifierKind::Uuid { uuid, .. } = patient.kind else { return Said::Nothing };
        let is_expired = |service: &Arc<CanvasService>| service.truth.remembers_expired(uuid);
        if self.services_of(patient).iter().any(is_expired) {
            return Said::Expired;
        }
        self.ask(patient).await
    }

    /// What is proven of the image; that it is alive is remembered for a while (`heal.alive_for`), unless that was seen
    /// before `since`.
    pub(in crate::heal) async fn evidence_remembered(
        self: &Arc<Self>,
        patient: &IndexedImage,
        since: Option<Instant>,
    ) -> Evidence {
        match self.ask_remembered(patient, since).await {
            Said::Alive(_) => return Evidence::Alive,
            Said::Expired => return Evidence::Expired,
            Said::Nothing => {}
        }
        let key = (self.mark(patient), Arc::clone(&patient.key));
        let shown = self.alive.get(&key);
        if shown.is_some_and(|shown| since.is_none_or(|since| shown >= since)) {
            return Evidence::Alive;
        }
        let asked_at = Instant::now();
        let evidence = self.probe(patient).await;
        if evidence == Evidence::Expired {
            self.expired_again(patient, shown);
        } else {
            // What proves nothing is not asked again and again either.
            self.alive.insert(key, asked_at, self.settings.heal.alive_for);
        }
        evidence
    }

    /// When the services of this image last built something whole.
    pub(in crate::heal) fn well_at(&self, patient: &IndexedImage) -> Option<Instant> {
        self.services_of(patient).iter().filter_map(|service| service.wellness.well_at()).max()
    }

    /// When the services of this image were last seen to be well again.
    pub(in crate::heal) fn recovered(&self, patient: &IndexedImage) -> Option<Instant> {
        self.services_of(patient).iter().filter_map(|service| service.recovered()).max()
    }

    /// Was its file found missing a while ago, with nothing that speaks against it since?
    pub(in crate::heal) fn is_known_missing(&self, patient: &IndexedImage) -> bool {
        self.missing.is_missing(self.mark(patient), &patient.key, self.recovered(patient), Instant::now())
    }

    /// The same, and no other node has seen it since.
    pub(in crate::heal) async fn is_missing_for_all(&self, patient: &IndexedImage) -> bool {
        if !self.is_known_missing(patient) {
            return false;
        }
        let was_seen = self.was_seen_elsewhere(patient).await;
        if was_seen {
            self.missing.found(self.mark(patient), &patient.key);
        }
        !was_seen
    }

    /// It was healed: whatever was said of it a moment ago is no longer true.
    pub(in crate::heal) fn was_healed(&self, patient: &IndexedImage) {
        if let IdentifierKind::Uuid { uuid, .. } = patient.kind {
            self.services.iter().for_each(|service| service.truth.was_healed(uuid));
        }
        self.healed.insert((self.mark(patient), Arc::clone(&patient.key)), Instant::now(), HEALED_FOR);
    }

    /// It is there: whatever was remembered against it is forgotten, here and on the other nodes.
    pub(in crate::heal) fn found(&self, patient: &IndexedImage) {
        self.no_longer_expired(patient);
        if self.missing.found(self.mark(patient), &patient.key) {
            self.file_may_be_there(patient);
            self.canvases_may_help(patient);
        }
    }

    /// It is back. Who looks at it for somebody else must not have it healed once more.
    pub(in crate::heal) fn no_longer_expired(&self, patient: &IndexedImage) {
        if let IdentifierKind::Uuid { uuid, .. } = patient.kind {
            self.services.iter().for_each(|service| service.truth.is_back(uuid));
        }
    }

    /// The service said "alive" a short while ago.
    pub(in crate::heal) fn knows_alive(&self, patient: &IndexedImage, since: Option<Instant>) -> bool {
        let IdentifierKind::Uuid { uuid, .. } = patient.kind else { return false };
        self.services_of(patient).iter().any(|service| service.truth.remembers_alive(uuid, since))
    }

    /// The image server answered 404, so "alive" is not believed any more; and if it was so a while ago, others of its
    /// manifest may have expired with it.
    pub(in crate::heal) fn doubt(&self, patient: &IndexedImage) {
        let key = (self.mark(patient), Arc::clone(&patient.key));
        let mut alive_at = self.alive.get(&key).max(self.healed.get(&key));
        if let IdentifierKind::Uuid { uuid, .. } = patient.kind {
            for service in &self.services {
                alive_at = alive_at.max(service.truth.alive_at(uuid));
                service.truth.doubt(uuid);
            }
        }
        self.alive.remove(&key);
        self.expired_again(patient, alive_at);
    }

    /// The image is gone. If it was proven alive at this time, others of its manifest may have expired with it since.
    fn expired_again(&self, patient: &IndexedImage, alive_at: Option<Instant>) {
        if let (Some(alive_at), Some(owner)) = (alive_at, patient.owners.first()) {
            self.readers.expired_again(&owner.manifest, alive_at);
        }
    }

    /// The image was said to be alive, and is 404: is its file gone? Remembered, so it is asked with care. The key may
    /// have been lost again in between, and one request may be 404 for a reason of its own. And the word may be an old one,
    /// out of a cache before `/resources`: so the first time it is in doubt, and the canvas is to tell.
    pub(in crate::heal) async fn is_missing(&self, patient: &IndexedImage) -> bool {
        if self.is_known_missing(patient) {
            return true;
        }
        let is_missing =
            self.shows_nothing(patient).await && matches!(self.ask(patient).await, Said::Alive(_));
        let key = (self.mark(patient), Arc::clone(&patient.key));
        if !is_missing {
            return false;
        }
        let may_tell =
            self.may_be_built_beside(patient) && !self.missing.is_remembered_missing(key.0, &key.1);
        if may_tell && self.look_at_file(patient).await != Some(true) {
            // Somebody may have had it healed between the two looks.
            if self.shows_nothing(patient).await {
                self.doubted.insert(key, (), self.settings.heal.timeout * 2);
            }
            return false;
        }
        self.file_is_missing(patient, Proof::Shown);
        true
    }

    /// Is there a way to have its canvas built that touches nothing?
    fn may_be_built_beside(&self, patient: &IndexedImage) -> bool {
        let may = |service: &Arc<CanvasService>| service.variants.known(Instant::now()) != Some(false);
        self.settings.heal.ladder.contains(&Rung::Variant) && self.services_of(patient).iter().any(may)
    }

    /// Does the word of the canvas service count for nothing of this image?
    pub(in crate::heal) fn is_doubted(&self, patient: &IndexedImage) -> bool {
        self.doubted.contains(&(self.mark(patient), Arc::clone(&patient.key)))
    }

    /// Its word was in doubt, and it is known now what is true. True: it was.
    pub(in crate::heal) fn is_settled(&self, patient: &IndexedImage) -> bool {
        let was_doubted = self.is_doubted(patient);
        if was_doubted {
            self.doubted.remove(&(self.mark(patient), Arc::clone(&patient.key)));
        }
        was_doubted
    }

    /// The service called an image alive that had to be healed: somebody else answers there, or a cache does.
    pub(in crate::heal) fn resources_lied(&self, patient: &IndexedImage) {
        for service in self.services_of(patient) {
            service.truth.distrust(Instant::now());
        }
        self.metrics.event("resources_distrusted");
    }

    /// Is the image back, for certain?
    pub(in crate::heal) async fn is_back(&self, patient: &IndexedImage) -> bool {
        self.evidence(patient).await == Evidence::Alive
    }

    /// What is proven of the image now: by the service's word where it gives one, else by a probe of the image server
    /// that no cache can answer.
    pub(in crate::heal) async fn evidence(&self, patient: &IndexedImage) -> Evidence {
        match self.ask(patient).await {
            Said::Alive(_) => Evidence::Alive,
            Said::Expired => Evidence::Expired,
            Said::Nothing => self.probe(patient).await,
        }
    }
}
