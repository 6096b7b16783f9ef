//! Toxiproxy between us and the image server, for `tests/faults/toxiproxy.sh`: somebody else's idea of a bad network.

use bytes::Bytes;
use http::Method;
use testbed::Client;

/// The names of its faults, what they do to which share of connections.
const TOXICS: [(&str, &str); 8] = [
    ("latency", r#"{"type":"latency","attributes":{"latency":150,"jitter":100}}"#),
    ("reset", r#"{"type":"reset_peer","attributes":{"timeout":0}}"#),
    ("half are reset", r#"{"type":"reset_peer","toxicity":0.5,"attributes":{"timeout":20}}"#),
    ("slow close", r#"{"type":"slow_close","attributes":{"delay":1000}}"#),
    ("half bodies", r#"{"type":"limit_data","attributes":{"bytes":400}}"#),
    ("nothing comes", r#"{"type":"timeout","attributes":{"timeout":0}}"#),
    ("narrow", r#"{"type":"bandwidth","attributes":{"rate":60}}"#),
    ("in slices", r#"{"type":"slicer","attributes":{"average_size":64,"size_variation":32,"delay":200}}"#),
];

/// One proxy of a running Toxiproxy, named by its API's address in `IIIF_MENDER_TOXIPROXY`.
pub(crate) struct Toxiproxy {
    api: String,
    client: Client,
    /// Where the server is reached through it.
    pub(crate) origin: String,
}

impl Toxiproxy {
    /// How many kinds of faults it has: the toxics, and that it listens no more.
    pub(crate) const FAULTS: usize = TOXICS.len() + 1;

    /// In front of this server, if there is one at all.
    pub(crate) async fn before(server: &str) -> Option<Self> {
        let api = std::env::var("IIIF_MENDER_TOXIPROXY").ok()?;
        let upstream = server.trim_start_matches("http://");
        let mut proxy = Self { api, client: Client::default(), origin: String::new() };
        let body = format!(r#"{{"name":"images","listen":"127.0.0.1:0","upstream":"{upstream}"}}"#);
        let made = proxy.says("/proxies", body).await;
        let listen = made["listen"].as_str().unwrap_or_else(|| panic!("no proxy: {made}"));
        proxy.origin = format!("http://{listen}");
        Some(proxy)
    }

    /// Begins a fault and names it.
    pub(crate) async fn breaks(&self, fault: usize) -> &'static str {
        let Some((name, toxic)) = TOXICS.get(fault) else {
            self.says("/proxies/images", r#"{"enabled":false}"#.to_owned()).await;
            return "nobody listens";
        };
        self.says("/proxies/images/toxics", (*toxic).to_owned()).await;
        name
    }

    /// Ends every fault.
    pub(crate) async fn recovers(&self) {
        self.says("/reset", String::new()).await;
    }

    async fn says(&self, path: &str, body: String) -> serde_json::Value {
        let url = format!("{}{path}", self.api);
        let answer = self.client.send_body(Method::POST, &url, &[], Bytes::from(body)).await;
        let answer = answer.expect("Toxiproxy answers");
        assert!(answer.status < 300, "{path}: {} {}", answer.status, answer.text());
        answer.json()
    }
}
