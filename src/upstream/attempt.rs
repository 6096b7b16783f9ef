//! A single attempt of a request at one server, and its fate when the client disconnects.

use std::time::Duration;

use http::request::Parts;
use hyper::Response;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::RequestPermits;
use super::body::Body;
use super::body_connection::BodyConnection;
use super::carrier::ActiveConnection;
use super::error::{SendFailure, UpstreamError};
use super::exchange::StreamingExchange;
use super::server::{InFlightGuard, SendError};
use crate::config::settings::Timeouts;

/// Grace for an answer after its client disconnected: within it the connection is kept, after it the connection is closed,
/// so that the server learns of the cancellation. Without the grace each cancelled request costs a dial: one client caused
/// 7,000 in 1.5 s.
const READ_TO_END_TIMEOUT: Duration = Duration::from_millis(100);

/// The longest answer that is read to its end in that time.
const MAX_READ_TO_END: usize = 256 << 10;

/// A request that has its permits.
#[derive(Debug)]
pub(super) struct Attempt {
    admission: Option<RequestPermits>,
    sent: Option<(ActiveConnection, InFlightGuard)>,
    /// True if the request was written once without an answer: it must not be written a third time.
    pub(super) is_repeated: bool,
}

impl Attempt {
    pub(super) fn new(admission: Option<RequestPermits>) -> Self {
        Self { admission, sent: None, is_repeated: false }
    }

    /// An attempt whose head was answered already.
    pub(super) fn sent(admission: RequestPermits, carrier: ActiveConnection, load: InFlightGuard) -> Self {
        Self { admission: Some(admission), sent: Some((carrier, load)), is_repeated: false }
    }

    /// Sends the request to this server. If its kept-alive connection turns out to be closed, the request is sent once more
    /// on a new one: always if it was never written, and otherwise only without a body and when no byte of an answer came.
    /// The body is taken when it is sent.
    pub(super) async fn ask(
        &mut self,
        load: InFlightGuard,
        head: &Parts,
        body: &mut Body,
        times: &Timeouts,
    ) -> Result<Response<()>, SendError> {
        let mut load = Some(load);
        let Some(server) = load.as_ref().map(InFlightGuard::server) else { return Err(SendError::Lost) };
        let unreached = |error| {
            server.record_failure();
            SendError::Unreached(error)
        };
        let pooled = server.checkout();
        let is_pooled = pooled.is_some();
        let mut carrier = match pooled {
            Some(carrier) => carrier,
            // Boxed, because it is rare and large: otherwise every request's future would be as large.
            None => Box::pin(server.carrier(times.connect)).await.map_err(unreached)?,
        };
        // Another request may have given it back while this one waited for it.
        if is_pooled || carrier.is_used() {
            match self.send(carrier, &mut load, head, body, times).await {
                Ok(answer) => return server.answered(answer),
                Err(SendFailure::Unsent) => server.meters.retried("unsent"),
                Err(SendFailure::Stale) if !self.is_repeated => {
                    self.is_repeated = true;
                    server.meters.retried("stale");
                }
                Err(failure) => return Err(server.record_miss(failure)),
            }
            // A server that closes its connections may close the next one just as well.
            carrier = Box::pin(server.new_carrier(times.connect)).await.map_err(unreached)?;
        }
        match self.send(carrier, &mut load, head, body, times).await {
            Ok(answer) => server.answered(answer),
            Err(SendFailure::Unsent) => Err(unreached(UpstreamError::Closed)),
            Err(SendFailure::Stale) if !self.is_repeated => {
                server.record_failure();
                Err(SendError::Lost)
            }
            Err(failure) => Err(server.record_miss(failure)),
        }
    }

    async fn send(
        &mut self,
        carrier: ActiveConnection,
        load: &mut Option<InFlightGuard>,
        head: &Parts,
        body: &mut Body,
        times: &Timeouts,
    ) -> Result<Response<()>, SendFailure> {
        let Some(own) = load.take() else { return Err(SendFailure::Unsent) };
        let (carrier, _) = self.sent.insert((carrier, own));
        let sent = carrier.send(head, body, times).await;
        if sent.is_err() {
            *load = self.sent.take().map(|(_, load)| load);
        }
        sent
    }

    /// Ends the wait: the answer is here. Returns its carrier and permits.
    pub(super) fn answered(mut self, silence: Duration) -> Option<StreamingExchange> {
        let (carrier, load) = self.sent.take()?;
        Some(StreamingExchange {
            connection: BodyConnection::new(carrier, load, silence),
            admission: self.admission.take(),
        })
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let (sent, admission) = (self.sent.take(), self.admission.take());
        if let (Some((mut carrier, load)), Ok(runtime)) = (sent, Handle::try_current())
            && carrier.is_awaited()
        {
            runtime.spawn(timeout(READ_TO_END_TIMEOUT, async move {
                if !carrier.answer().await {
                    return;
                }
                let exchange = StreamingExchange {
                    connection: BodyConnection::new(carrier, load, READ_TO_END_TIMEOUT),
                    admission,
                };
                let _read = exchange.into_body().collect(MAX_READ_TO_END).await;
            }));
        }
    }
}
