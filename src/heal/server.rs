//! Servers behind the healer: one request, one answer.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use http::request::Parts;
use hyper::Response;

use crate::config::settings::Timeouts;
use crate::upstream::{Body, Caller, Upstream, UpstreamError};

/// `ResponseFuture` is the answer to one request.
pub type ResponseFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Response<Body>, UpstreamError>> + Send + 'a>>;

/// `SendRequest` is an image server or a canvas service, as the healer sees it. [`Upstream`] is the real one; a model
/// of it lets the whole healer run without sockets, in virtual time.
pub trait SendRequest: Debug + Send + Sync {
    /// Sends a request without a body. `head` carries an origin-form target and a `Host`; `caller` is the client that the
    /// request is for.
    fn send<'a>(&'a self, caller: &'a Caller, head: &'a Parts, times: Timeouts) -> ResponseFuture<'a>;
}

impl SendRequest for Upstream {
    fn send<'a>(&'a self, caller: &'a Caller, head: &'a Parts, times: Timeouts) -> ResponseFuture<'a> {
        Box::pin(self.send_for(caller, head, Body::Empty, times))
    }
}
