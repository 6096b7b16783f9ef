//! A small HTTP client for the stand-ins and for tests.

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The status.
    pub status: u16,
    /// The fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Fetched {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `Null` where it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A field as text; empty where it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Error in place of a whole answer.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A client with a pool; plain HTTP only, follows nothing, decodes nothing.
#[derive(Debug, Clone)]
pub struct Client {
    pool: legacy::Client<HttpConnector, Full<Bytes>>,
    always: Vec<(&'static str, &'static str)>,
}

impl Default for Client {
    fn default() -> Self {
        Self::saying(Vec::new())
    }
}

impl Client {
    /// A client at this address, such as another one of 127.0.0.0/8.
    pub fn at(address: std::net::IpAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_local_address(Some(address));
        Self::by(connector, Vec::new())
    }

    fn saying(always: Vec<(&'static str, &'static str)>) -> Self {
        Self::by(HttpConnector::new(), always)
    }

    fn by(mut connector: HttpConnector, always: Vec<(&'static str, &'static str)>) -> Self {
        connector.set_nodelay(true);
        Self { pool: legacy::Client::builder(TokioExecutor::new()).build(connector), always }
    }

    /// The canvas service's own client (upstream.md "Load": the echo carries no marker).
    pub(crate) fn java() -> Self {
        Self::saying(vec![
            ("accept", "text/plain, application/json, application/*+json, */*"),
            ("user-agent", "Apache-HttpClient/4.5.13 (Java/11.0.24)"),
            ("accept-encoding", "gzip,deflate"),
        ])
    }

    /// The image server's delegate.
    pub(crate) fn ruby() -> Self {
        Self::saying(vec![("user-agent", "Ruby"), ("accept", "*/*"), ("x-testbed-inside", "1")])
    }

    /// GET.
    pub async fn get(&self, url: &str, headers: &[(&str, &str)]) -> Result<Fetched, Failure> {
        self.send(Method::GET, url, headers).await
    }

    /// HEAD.
    pub async fn head(&self, url: &str, headers: &[(&str, &str)]) -> Result<Fetched, Failure> {
        self.send(Method::HEAD, url, headers).await
    }

    /// Sends a request of any method, without a body. The target goes out as it stands (but for a fragment).
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
    ) -> Result<Fetched, Failure> {
        self.send_body(method, url, headers, Bytes::new()).await
    }

    /// Sends a request of any method, with a body.
    pub async fn send_body(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Fetched, Failure> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in self.always.iter().chain(headers) {
            request = request.header(*name, *value);
        }
        let response = self.pool.request(request.body(Full::new(body))?).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Fetched { status: head.status.as_u16(), headers: head.headers, body })
    }
}

/// Sends one GET on a connection of its own.
///
/// # Panics
/// When no whole answer comes.
pub async fn get(url: &str) -> Fetched {
    get_with(url, &[]).await
}

/// Sends one GET with fields on a connection of its own.
///
/// # Panics
/// When no whole answer comes.
pub async fn get_with(url: &str, headers: &[(&str, &str)]) -> Fetched {
    match Client::default().get(url, headers).await {
        Ok(fetched) => fetched,
        Err(error) => panic!("no answer from {url}: {error:?}"),
    }
}
