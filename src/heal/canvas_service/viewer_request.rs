//! Viewers' own requests to a canvas service: with permits and lanes as heals have, within the same limits.
//!
//! UPSTREAM: the service has no single flight, and holds two outbound connections. Each request for a canvas that is not
//! stored has it built, several at once as often as they come, and a crawler has as many built as it opens connections
//! (upstream.md "Load"). A stored document is answered in milliseconds, and must never wait behind a build.

use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio::time::{Instant, timeout};

use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::build_permit::BuildPermit;
use crate::heal::canvas_service::priority_semaphore::{Priority, PriorityPermit};
use crate::heal::canvas_service::viewer_queue::{FirstRequest, FirstState, is_canvas};
use crate::heal::{Healer, RETRY_AFTER};
use crate::observe::EventKind;

/// A document answered within this time has no first request to wait for.
const ANSWERED_FOR: Duration = Duration::from_secs(2);

/// `ViewerRequest` is one viewer's request on its way. Requests that wait for it go when it is dropped.
#[derive(Debug)]
pub struct ViewerRequest {
    service: Arc<CanvasService>,
    name: Arc<str>,
    /// Set for the first request of its document.
    first: Option<FirstRequest>,
    permit: Option<ViewerPermit>,
    /// True if the answer shows whether the document is to be had: the request is not one of many that follow.
    tells: bool,
}

/// `ViewerPermit` is the permit of a viewer's request.
#[derive(Debug)]
enum ViewerPermit {
    /// Permit among the viewers of this node.
    Own { _permit: PriorityPermit },
    /// Permit among all requests that make the service build.
    Shared(#[expect(dead_code, reason = "given back when it is dropped")] BuildPermit),
}

/// `DelayedRelease` releases a permit late: the build goes on after its viewer has left.
struct DelayedRelease(Option<ViewerPermit>);

/// Time for which the permit of a viewer who left is kept.
const KEPT_FOR: Duration = Duration::from_secs(2);

impl Drop for DelayedRelease {
    fn drop(&mut self) {
        if let (Some(permit), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                tokio::time::sleep(KEPT_FOR).await;
                drop(permit);
            });
        }
    }
}

impl Healer {
    /// Lets a viewer's request through to the canvas service of this route. `Err`: too many wait; retry after this time.
    /// Where the route has no canvas service, everything passes. `admitted` waits for the client's own permit: a request
    /// that waits for it delays no other.
    pub async fn viewer_request<T, E>(
        &self,
        route: usize,
        target: &str,
        admitted: impl Future<Output = Result<T, E>>,
    ) -> Result<(Option<ViewerRequest>, T), Duration> {
        let Some(service) = self.parts.services.on(route) else {
            return Ok((None, admitted.await.map_err(|_| RETRY_AFTER)?));
        };
        let (request, own) = service.let_through(target, self.parts.settings.heal.wait, admitted).await?;
        Ok((Some(request), own))
    }
}

impl CanvasService {
    async fn let_through<T, E>(
        self: &Arc<Self>,
        target: &str,
        wait: Duration,
        admitted: impl Future<Output = Result<T, E>>,
    ) -> Result<(ViewerRequest, T), Duration> {
        let requests = &self.viewers;
        let name: Arc<str> = canonical(target).into();
        let service = Arc::clone(self);
        let mut request = ViewerRequest { service, name, first: None, permit: None, tells: false };
        // A stored document needs no permit.
        if requests.answered.get(&request.name) == Some(true) {
            return Ok((request, admitted.await.map_err(|_| RETRY_AFTER)?));
        }
        let Some(_waiting) = requests.wait(self.bounds.max_waiting) else {
            self.metrics.event(EventKind::ViewerRefused);
            return Err(RETRY_AFTER);
        };
        let until = Instant::now() + wait;
        let (mut admitted, mut own) = (std::pin::pin!(admitted), None);
        // Wait until the first request was answered. (If its viewer left, another request is the first.)
        while !requests.answered.contains(&request.name) {
            match requests.first.wait(&request.name, until).await {
                Some(FirstState::Over) => {}
                // The first request may hang for reasons of its own, so the others are sent. (The number of canvases built
                // at once stays as it is.)
                Some(FirstState::Late(true)) => {
                    self.metrics.event(EventKind::FirstDocumentLate);
                    request.tells = true;
                    break;
                }
                // The first request found no permit itself.
                Some(FirstState::Late(false)) => return Err(self.wait_expired()),
                // A request without its client's permit cannot be the first.
                None if own.is_none() => own = Some(admitted.as_mut().await.map_err(|_| RETRY_AFTER)?),
                None => {
                    request.first = requests.first.begin(&request.name);
                    if request.first.is_some() {
                        break;
                    }
                }
            }
        }
        let own = match own {
            Some(own) => own,
            None => admitted.await.map_err(|_| RETRY_AFTER)?,
        };
        let is_canvas = is_canvas(&request.name);
        // The first request was answered, but not with the document: each of the others may have it built.
        let was_refused = requests.answered.get(&request.name) == Some(false);
        request.tells |= was_refused;
        if request.first.is_some() || was_refused || request.tells && is_canvas {
            let permit = timeout(wait, self.viewer_permit(is_canvas)).await;
            request.permit = permit.map_err(|_| self.wait_expired())?;
        }
        if let Some(first) = &request.first {
            first.mark_sent();
        }
        Ok((request, own))
    }

    /// Counts a viewer who has waited for the longest time allowed; returns its `Retry-After`.
    fn wait_expired(&self) -> Duration {
        self.metrics.event(EventKind::ViewerWaitExpired);
        RETRY_AFTER
    }

    /// The permit to have something built for a viewer.
    async fn viewer_permit(&self, is_canvas: bool) -> Option<ViewerPermit> {
        let permits = if is_canvas { &self.lanes } else { &self.viewers.documents };
        let permit = permits.acquire_or_extra(Priority::Viewer, self.bounds.build_after).await;
        if is_canvas && !permit.is_extra() {
            return self.acquire_shared(permit, true, None).await.map(ViewerPermit::Shared);
        }
        Some(ViewerPermit::Own { _permit: permit })
    }
}

impl ViewerRequest {
    /// Waits for the answer to this request, which may carry the document (`has_document`). A hanging request loses its
    /// permit when others wait.
    pub async fn hold<T>(
        mut self,
        sent: impl Future<Output = T>,
        has_document: impl FnOnce(&T) -> bool,
    ) -> T {
        let service = Arc::clone(&self.service);
        let tells = self.first.is_some() || self.tells;
        let answer = match self.permit.take() {
            Some(permit) => {
                let mut permit = Some(DelayedRelease(Some(permit)));
                let answer = service.hold(&mut permit, sent).await;
                drop(permit.and_then(|mut permit| permit.0.take()));
                answer
            }
            None => sent.await,
        };
        if tells {
            service.viewers.answered.insert(Arc::clone(&self.name), has_document(&answer), ANSWERED_FOR);
        }
        answer
    }
}

impl Drop for ViewerRequest {
    fn drop(&mut self) {
        // Before the sender is dropped: a waiter that wakes finds no first request, and may be the next.
        if self.first.is_some() {
            self.service.viewers.first.ends(&self.name);
        }
    }
}

/// Key under which the service stores the document: unknown pairs in the query change nothing.
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

/// Target without parameters that would have a document built anew. `None`: it had none.
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
