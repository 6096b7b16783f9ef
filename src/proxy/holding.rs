//! Answers that are kept back while something better is looked for.

use std::time::Duration;

use http::Response;
use http::request::Parts;

use super::reply::Refusal;
use super::route::Asked;
use super::{Answer, Rooms};
use crate::config::settings::Rung;
use crate::heal::Lobby;
use crate::upstream::{Body, Caller, Held};

/// How long the rest of a first answer may take to arrive before it is left where it is.
const HOLDING: Duration = Duration::from_secs(2);

impl Rooms {
    /// Keeps an answer back. `None`: there is no memory for it; where it is needed, it is asked for again.
    pub(super) async fn hold(&self, first: Response<Body>) -> Option<Held> {
        let held = Held::hold(first, self.settings.heal.max_held, HOLDING, &self.budget).await;
        if held.is_none() {
            self.metrics.event("held_refused");
        }
        held
    }

    /// The image server is in trouble, not forgetful: the file itself may still be had. Of the same server: so the
    /// first answer is held, or all the places there might be taken by those who wait for one more.
    pub(super) async fn bypass(
        &self,
        asked: &Asked,
        image: &Lobby<'_>,
        onward: &Parts,
        first: Response<Body>,
        caller: &Caller,
    ) -> Result<Answer, Refusal> {
        let Some(patient) = self.healer.admit(image) else { return Ok(Answer::served(first)) };
        let held = self.hold(first).await;
        match (self.healer.bypass(&patient, onward).await, held) {
            (Some((answer, took)), _) => Ok(Answer::healed(answer, Some(Rung::Direct), took)),
            (None, Some(held)) => Ok(Answer::served(held.release())),
            (None, None) => self.send(asked, onward, Body::Empty, caller).await.map(Answer::served),
        }
    }
}
