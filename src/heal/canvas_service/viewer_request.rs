//! Viewers' own requests to a canvas service: through the same door as the heals, and on the same budget.
//!
//! UPSTREAM: the service has no single flight, and holds two outbound connections. Whoever asks for a canvas that is not
//! stored has it built, as often as it is asked for at once, and a crawler has as many built as it opens connections
//! (upstream.md "Load"). What is stored is answered in milliseconds, and must never wait behind a build.

use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout};

use crate::heal::Healer;
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::place::Place;
use crate::heal::canvas_service::priority_semaphore::{Permit, Priority};

/// Whatever is answered sooner was stored, and is no build.
const BUILD: Duration = Duration::from_millis(250);

/// A document that was answered is asked for by everybody at once for so long.
const OPEN_FOR: Duration = Duration::from_secs(2);

/// What those are told who would have to wait for too long.
const COME_BACK: Duration = Duration::from_secs(5);

/// `ViewerRequest` is one viewer's request on its way. The next one comes when it is dropped.
#[derive(Debug)]
pub struct ViewerRequest {
    service: Arc<CanvasService>,
    name: Arc<str>,
    turn: Option<OwnedMutexGuard<()>>,
    place: Option<Held>,
}

/// The place of a viewer's request.
#[derive(Debug)]
enum Held {
    /// Among the viewers of this node.
    Own { _place: Permit },
    /// Among all that make the service build.
    Shared(#[expect(dead_code, reason = "given back when it is dropped")] Place),
}

/// A viewer who leaves does not stop the build that he asked for: his place is not free at once.
struct Lingers(Option<Held>);

/// How long the place of a viewer who left is kept.
const LINGER: Duration = Duration::from_secs(2);

impl Drop for Lingers {
    fn drop(&mut self) {
        if let (Some(place), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                tokio::time::sleep(LINGER).await;
                drop(place);
            });
        }
    }
}

impl Healer {
    /// Lets a viewer's request through to the canvas service of this route. `Err`: too many wait; come back after this
    /// time. Where the route has no canvas service, everything passes. `has_waited`: it waited for the first request of
    /// its document already, and waits for a place only.
    pub async fn viewer_request(
        &self,
        route: usize,
        target: &str,
        has_waited: bool,
    ) -> Result<Option<ViewerRequest>, Duration> {
        let Some(service) = self.ward.service(route) else { return Ok(None) };
        let wait = self.ward.settings.heal.wait;
        match timeout(wait, service.let_through(target, has_waited)).await {
            Ok(request) => request.map(Some),
            Err(_) => Err(COME_BACK),
        }
    }
}

impl CanvasService {
    async fn let_through(
        self: &Arc<Self>,
        target: &str,
        has_waited: bool,
    ) -> Result<ViewerRequest, Duration> {
        let requests = &self.viewers;
        let name: Arc<str> = canonical(target).into();
        let (service, turn, place) = (Arc::clone(self), None, None);
        let mut request = ViewerRequest { service, name, turn, place };
        if requests.open.contains(&request.name) {
            return Ok(request);
        }
        let Some(_waiting) = requests.wait() else { return Err(COME_BACK) };
        if !has_waited {
            let turn = Arc::clone(requests.turns().entry(Arc::clone(&request.name)).or_default());
            request.turn = Some(turn.lock_owned().await);
        }
        // It was answered meanwhile.
        if !requests.open.contains(&request.name) {
            let places = if is_canvas(&request.name) { &self.lanes } else { &requests.documents };
            let place = places.place_or_extra(Priority::Viewer, BUILD).await;
            request.place = if is_canvas(&request.name) && !place.is_extra() {
                self.share_place(place, true).await.map(Held::Shared)
            } else {
                Some(Held::Own { _place: place })
            };
        }
        Ok(request)
    }
}

impl ViewerRequest {
    /// Waits for the answer to this request. One that hangs loses its place when others wait.
    pub async fn hold<T>(mut self, sent: impl Future<Output = T>) -> T {
        let (Some(place), service) = (self.place.take(), Arc::clone(&self.service)) else {
            return sent.await;
        };
        let began = Instant::now();
        let mut place = Some(Lingers(Some(place)));
        let answer = service.hold(&mut place, sent).await;
        drop(place.and_then(|mut place| place.0.take()));
        let requests = &service.viewers;
        requests.open.insert(Arc::clone(&self.name), (), OPEN_FOR);
        tracing::trace!(document = &*self.name, was_built = began.elapsed() >= BUILD, "let through");
        answer
    }
}

impl Drop for ViewerRequest {
    fn drop(&mut self) {
        if self.turn.is_none() {
            return;
        }
        let mut turns = self.service.viewers.turns();
        self.turn = None;
        // Only the list knows it: nobody waits, and nobody can come while the list is locked.
        if turns.get(&self.name).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&self.name);
        }
    }
}

/// A canvas, or something that costs as much; anything else is a manifest.
fn is_canvas(target: &str) -> bool {
    target.contains("/canvas/") || target.contains("/image/")
}

/// What the service keeps the document under: odd pairs in the query change nothing.
fn canonical(target: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = path.trim_end_matches('/');
    let own = query.split('&').filter(|pair| is_named(pair, "allow") || is_named(pair, "disallow"));
    own.fold(path.to_owned(), |name, pair| format!("{name}&{pair}"))
}

fn is_named(pair: &str, name: &str) -> bool {
    let own = pair.split('=').next().unwrap_or_default();
    percent_decode_str(own).eq(name.bytes())
}

/// The target without what would have a document built anew; `None`: it says nothing of that.
pub fn without_update(target: &str) -> Option<String> {
    let (path, query) = target.split_once('?')?;
    if !query.split('&').any(|pair| is_named(pair, "update")) {
        return None;
    }
    let own: Vec<&str> = query.split('&').filter(|pair| !is_named(pair, "update")).collect();
    Some(if own.is_empty() { path.to_owned() } else { format!("{path}?{}", own.join("&")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_service_does_not_read_makes_no_other_document() {
        assert_eq!(canonical("/s/fedora/canvas/a/?x=1&page=2"), "/s/fedora/canvas/a");
        assert_eq!(canonical("/s/canvas/a?allow=image/png&x=1"), "/s/canvas/a&allow=image/png");
    }

    #[test]
    fn update_is_dropped_in_every_spelling() {
        for target in ["/c?update=true", "/c?update", "/c?%75pdate=true", "/c?update=1"] {
            assert_eq!(without_update(target).as_deref(), Some("/c"), "{target}");
        }
        assert_eq!(without_update("/c?a=b&update=true").as_deref(), Some("/c?a=b"));
        assert_eq!((without_update("/c?noupdate"), without_update("/c")), (None, None));
    }
}
