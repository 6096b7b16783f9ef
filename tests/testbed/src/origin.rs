//! Origin with answers of the test's choice, which records its requests.

use std::ops::Deref;
use std::sync::{Arc, Mutex};

use http::Response;

use crate::flow::Flow;
use crate::wire::{Handler, Panics, Seen, Server, reply, response};

type Route = Box<dyn Fn(&Seen) -> Response<Flow> + Send + Sync>;

/// State of the origin.
#[derive(Debug)]
pub struct Table {
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

impl Deref for Origin {
    type Target = Server<Table>;

    fn deref(&self) -> &Self::Target {
        &self.server
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
        self.origin()
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

    /// Requests stop (recorded, unanswered) until [`Origin::releases`].
    pub fn stalls(&self) {
        self.table.gate.shut();
    }

    /// Lets stalled requests go.
    pub fn releases(&self) {
        self.table.gate.open();
    }

    /// Ends every misbehaviour.
    pub fn recovers(&self) {
        self.server.behaves();
        self.refuses_streams(0);
        self.releases();
        self.comes_up();
    }
}
