//! Live events as server-sent events (HTML Living Standard, section "Server-sent events").

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::answer::{ApiProblem, typed};
use super::{Admin, AdminState};
use crate::observe::SAMPLE_EVERY;
use crate::upstream::{Body, BodyError};

/// Events that wait for a slow page.
const QUEUE: usize = 64;

/// The receiving end as a body.
struct EventStream(mpsc::Receiver<Bytes>);

impl HttpBody for EventStream {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.poll_recv(cx).map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}

impl Admin {
    /// Streams `event: news` for each live event, and `event: stats` (without the points) every five seconds.
    pub(super) fn events(&self) -> Result<Response<Body>, ApiProblem> {
        let permit =
            Arc::clone(&self.live_streams).try_acquire_owned().map_err(|_| ApiProblem::too_many())?;
        let (sender, events) = mpsc::channel(QUEUE);
        let state = Arc::clone(&self.state);
        tokio::spawn(async move {
            send_all(&state, &sender).await;
            drop(permit);
        });
        let mut response = typed("text/event-stream", "");
        *response.body_mut() = Body::shaped(EventStream(events));
        Ok(response)
    }
}

/// Sends events until the client disconnects, or until shutdown.
async fn send_all(state: &AdminState, sender: &mpsc::Sender<Bytes>) {
    let (mut news, mut stopping) = (state.metrics.listen(), state.stopping.clone());
    let mut every = tokio::time::interval(SAMPLE_EVERY);
    loop {
        let event = tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = sender.closed() => return,
            _ = every.tick() => {
                let mut snapshot = state.metrics.snapshot();
                snapshot.points.clear();
                event("stats", serde_json::to_string(&snapshot))
            }
            news = news.recv() => match news {
                Ok(news) => event("news", serde_json::to_string(&news)),
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            },
        };
        if sender.send(event).await.is_err() {
            return;
        }
    }
}

fn event(name: &str, data: Result<String, serde_json::Error>) -> Bytes {
    // JSON has no line breaks.
    Bytes::from(format!("event: {name}\ndata: {}\n\n", data.unwrap_or_default()))
}
