//! Origin with answers of the test's choice, which records its requests.

use std::sync::{Arc, Mutex};

use http::Response;

use crate::flow::Flow;
use crate::wire::{Handler, Panics, Seen, Server, reply, response};

type Route = Box<dyn Fn(&Seen) -> Response<Flow> + Send + Sync>;

#[derive(Debug)]
struct Table {
    route: Routed,
    seen: Mutex<Vec<Seen>>,
    arrived: tokio::sync::watch::Sender<usize>,
    gate: crate::gate::Gate,
}

struct Routed(Route);

impl std::fmt::Debug for Routed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a closure")
    }
}

impl Handler for Table {
    async fn answer(self: Arc<Self>, seen: Seen) -> Response<Flow> {
        self.seen.lock().unwrap().push(seen.clone());
        self.arrived.send_modify(|count| *count += 1);
        self.gate.pass().await;
        (self.route.0)(&seen)
    }
}

/// A hyper server whose answers a closure gives.
#[derive(Debug)]
pub struct Origin {
    server: Server<Table>,
    table: Arc<Table>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.server.panics().raise();
    }
}

impl Origin {
    /// Starts an origin that answers by the closure. Needs a tokio runtime.
    pub fn start(route: impl Fn(&Seen) -> Response<Flow> + Send + Sync + 'static) -> Self {
        let table = Arc::new(Table {
            route: Routed(Box::new(route)),
            seen: Mutex::default(),
            arrived: tokio::sync::watch::Sender::new(0),
            gate: crate::gate::Gate::default(),
        });
        Self { server: Server::start(Arc::clone(&table), Panics::default()), table }
    }

    /// Answers every request with this status and text.
    pub fn fixed(status: u16, text: &'static str) -> Self {
        Self::start(move |_| reply(status, text))
    }

    /// An answer for a closure: status, fields, body.
    pub fn answer(status: u16, fields: &[(&str, &str)], body: Flow) -> Response<Flow> {
        let mut answer = response(status, body);
        for (name, value) in fields {
            let name = http::HeaderName::try_from(*name).expect("a field name");
            answer.headers_mut().append(name, http::HeaderValue::try_from(*value).expect("a field value"));
        }
        answer
    }

    /// `http://127.0.0.1:{port}`
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// Listening address.
    pub fn address(&self) -> std::net::SocketAddr {
        self.server.address()
    }

    /// Every request so far, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.table.seen.lock().unwrap().clone()
    }

    /// Waits for so many requests (without an answer being needed), and gives them.
    pub async fn seen_at_least(&self, count: usize) -> Vec<Seen> {
        let mut arrived = self.table.arrived.subscribe();
        let waited = std::time::Duration::from_secs(20);
        let reached = tokio::time::timeout(waited, arrived.wait_for(|arrived| *arrived >= count)).await;
        assert!(reached.is_ok(), "only {} requests came", self.seen().len());
        self.seen()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.server.connections()
    }

    /// Requests stop (recorded, unanswered) until [`Origin::releases`].
    pub fn stalls(&self) {
        self.table.gate.shut();
    }

    /// Lets stalled requests go.
    pub fn releases(&self) {
        self.table.gate.open();
    }

    /// Refuses connections; those open are closed.
    pub async fn goes_down(&self) {
        self.server.goes_down().await;
    }

    /// Listens again, at the same port.
    pub fn comes_up(&self) {
        self.server.comes_up();
    }

    /// Makes new connections HTTP/2 with prior knowledge, with so many requests at once.
    pub fn speaks_http2(&self, streams: usize) {
        self.server.speaks_http2(streams);
    }

    /// Refuses the next `count` requests by HTTP/2 (`REFUSED_STREAM`), unprocessed.
    pub fn refuses_streams(&self, count: usize) {
        self.server.refuses_streams(count);
    }

    /// Every HTTP/2 connection ends as soon as its requests do (GOAWAY).
    pub fn says_goodbye(&self) {
        self.server.says_goodbye();
    }

    /// Bodies break off after so many bytes; `None`: they are whole again.
    pub fn cuts_body_after(&self, count: Option<usize>) {
        self.server.cuts_body_after(count);
    }

    /// Ends every misbehaviour.
    pub fn recovers(&self) {
        self.server.resets(false);
        self.server.cuts_body_after(None);
        self.server.refuses_streams(0);
        self.releases();
        self.comes_up();
    }

    /// Every connection ends with RST instead of an answer.
    pub fn resets(&self) {
        self.server.resets(true);
    }
}
