//! Requests that hand their connection over to another protocol, such as WebSocket (RFC 9110 section 7.8).

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Arc;

use http::StatusCode;
use http::request::Parts;
use hyper::Response;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, split};

use super::attempt::Attempt;
use super::balance::TriedServers;
use super::body::Body;
use super::carrier::ActiveConnection;
use super::error::UpstreamError;
use super::server::SendError;
use super::{Caller, Upstream};
use crate::config::settings::Timeouts;

/// The upstream's side of a connection that speaks another protocol now, with all that is held while it does.
pub struct Tunnel {
    /// Bytes of that protocol from the upstream.
    pub from: Box<dyn AsyncRead + Send + Sync + Unpin>,
    /// Bytes of that protocol to the upstream.
    pub to: Box<dyn AsyncWrite + Send + Sync + Unpin>,
    /// Free again with the tunnel.
    pub held: Vec<Box<dyn Any + Send>>,
}

/// A [`Tunnel`] on its way to the viewer's connection, among the extensions of the answer that announces it.
#[derive(Clone)]
pub struct Upgrade(Arc<Mutex<Option<Tunnel>>>);

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade").finish_non_exhaustive()
    }
}

impl Upgrade {
    fn new(tunnel: Tunnel) -> Self {
        Self(Arc::new(Mutex::new(Some(tunnel))))
    }

    /// Holds `permit` for as long as the tunnel is open.
    pub fn keep(&self, permit: impl Any + Send) {
        let mut tunnel = self.0.lock();
        if let Some(tunnel) = &mut *tunnel {
            tunnel.held.push(Box::new(permit));
        }
    }

    /// Takes the tunnel; the first call gets it.
    pub fn take(&self) -> Option<Tunnel> {
        self.0.lock().take()
    }
}

impl Upstream {
    /// Sends a request that names another protocol, on a connection of its own that is in HTTP/1.1 and never goes to the
    /// pool. A 101 carries an [`Upgrade`]; its permits are free from then on: a tunnel that lasts for hours must not keep
    /// others out. Any other answer is an ordinary one.
    pub async fn upgrade(
        &self,
        caller: &Caller,
        head: &Parts,
        times: Timeouts,
    ) -> Result<Response<Body>, UpstreamError> {
        let admission = self.admit(caller).await?;
        let (mut tried, mut last) = (TriedServers::default(), UpstreamError::Closed);
        while let Some(load) = self.choose(&mut tried) {
            let (answer, connection) = match load.ask_alone(head, &times).await {
                Ok(answered) => answered,
                Err(SendError::Unreached(error)) => {
                    last = error;
                    continue;
                }
                Err(SendError::Lost) => return Err(UpstreamError::Closed),
                Err(SendError::Failed(error)) => return Err(error),
            };
            if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                let attempt = Attempt::sent(admission, ActiveConnection::Own(Box::new(connection)), load);
                return Ok(self.receive(caller, answer, attempt, times.body).await);
            }
            // Bytes behind the answer's head belong to the new protocol.
            let (stream, came) = connection.into_stream().ok_or(UpstreamError::Closed)?;
            let (from, to) = split(stream);
            let (from, to) = (Box::new(io::Cursor::new(came).chain(from)), Box::new(to));
            let mut answer = answer.map(|()| Body::Empty);
            answer.extensions_mut().clear();
            answer.extensions_mut().insert(Upgrade::new(Tunnel { from, to, held: vec![Box::new(load)] }));
            return Ok(answer);
        }
        Err(last)
    }
}
