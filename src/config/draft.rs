//! Short configuration out of a few answers: `init` writes it, and `serve` takes it in the place of a file.

use std::fmt::Write as _;
use std::net::SocketAddr;

use http::Uri;

/// Addresses for a first configuration. Text is checked when the configuration is.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct ConfigDraft {
    /// Scheme and host of both services, the image server below /iiif/2/ and the canvas service below /iiif-service/
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,
    /// The image server, where it is not UPSTREAM/iiif/2/
    #[arg(long, value_name = "URL")]
    pub image_server: Option<String>,
    /// The canvas service, where it is not UPSTREAM/iiif-service/
    #[arg(long, value_name = "URL")]
    pub canvas_service: Option<String>,
    /// Manifests: a folder, a file, or the URL of a manifest or collection; may be given several times
    #[arg(long, value_name = "SOURCE")]
    pub manifests: Vec<String>,
    /// Host name that stands in the manifests (default: that of the upstream); may be given several times
    #[arg(long, value_name = "HOST")]
    pub public_host: Vec<String>,
    /// Address to listen on for viewers (default: 127.0.0.1:8080)
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// URL at which viewers reach iiif-mender, written into what passes (default: http:// and the address of --listen).
    /// With the URL of the upstream itself nothing is rewritten: iiif-mender takes the upstream's place
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
}

/// Reasons why these answers make no configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// A service is not named.
    #[error(
        "where are the image server and the canvas service? Say so: --upstream https://api.library.tamu.edu, or \
         --image-server and --canvas-service"
    )]
    NoUpstream,
    /// A value that is no URL.
    #[error("{0} is no URL of a server: write it as https://api.library.tamu.edu")]
    NoUrl(String),
}

const IMAGES: &str = "/iiif/2/";
const CANVASES: &str = "/iiif-service/";

impl ConfigDraft {
    /// True if any option was given.
    pub fn is_given(&self) -> bool {
        *self != Self::default()
    }

    /// True if the services are named.
    pub fn names_services(&self) -> bool {
        self.upstream.is_some() || self.image_server.is_some() && self.canvas_service.is_some()
    }

    /// Address for viewers.
    pub fn listen(&self) -> SocketAddr {
        self.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8080)))
    }

    /// The configuration as text.
    pub fn to_toml(&self) -> Result<String, DraftError> {
        let images = self.service(self.image_server.as_ref(), IMAGES)?;
        let canvases = self.service(self.canvas_service.as_ref(), CANVASES)?;
        let upstream = parse(self.upstream.as_ref().unwrap_or(&images))?;
        let host = upstream.authority().map(ToString::to_string).unwrap_or_default();
        let hosts = if self.public_host.is_empty() { vec![host] } else { self.public_host.clone() };
        let hosts: Vec<String> = hosts.iter().map(|host| quoted(host)).collect();
        let mut text = format!(
            "# The keys that differ from their defaults. All there are: iiif-mender config defaults\n\n\
             [server]\n\
             # Where viewers, or the web server in front, send their requests.\n\
             listen = \"{}\"\n\
             # Host names that mean \"us\" in the manifests.\n\
             public_hosts = [{}]\n",
            self.listen(),
            hosts.join(", ")
        );
        for (comment, url, kind) in [
            ("The image server, whose expired images are brought back.", &images, "image"),
            ("The canvas service, which knows its images.", &canvases, "presentation"),
        ] {
            let _ = write!(
                text,
                "\n# {comment}\n[[routes]]\nprefix = {}\nupstream = {}\nkind = \"{kind}\"\n",
                quoted(parse(url)?.path()),
                quoted(url)
            );
        }
        for source in &self.manifests {
            let key = if source.contains("://") { "url" } else { "path" };
            let _ = write!(
                text,
                "\n# Manifests, which say which images there are.\n[[index.sources]]\n{key} = {}\n",
                quoted(source)
            );
        }
        if let Some(public_url) = self.rewritten(&upstream)? {
            let _ = write!(
                text,
                "\n# To try it beside the old name: the manifests are served here, and what passes names this address. To go\n\
                 # live, let the web server send requests here, and take both tables out.\n\
                 [presentation]\nmanifests = true\n\n[rewrite]\npublic_url = {}\n",
                quoted(&public_url)
            );
        }
        Ok(text)
    }

    /// The URL of a service, with the slash at its end that its route needs.
    fn service(&self, own: Option<&String>, path: &str) -> Result<String, DraftError> {
        let url = match (own, &self.upstream) {
            (Some(own), _) => own.clone(),
            (None, Some(upstream)) => format!("{}{path}", upstream.trim_end_matches('/')),
            (None, None) => return Err(DraftError::NoUpstream),
        };
        parse(&url)?;
        Ok(if url.ends_with('/') { url } else { format!("{url}/") })
    }

    /// URL that replaces those of documents. `None`: they stay as they are.
    fn rewritten(&self, upstream: &Uri) -> Result<Option<String>, DraftError> {
        let Some(public_url) = &self.public_url else {
            let listen = self.listen();
            let host =
                if listen.ip().is_unspecified() { "localhost".to_owned() } else { listen.ip().to_string() };
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            return Ok(Some(format!("http://{host}:{}", listen.port())));
        };
        let named = parse(public_url)?;
        let is_same = (named.scheme(), named.authority()) == (upstream.scheme(), upstream.authority());
        Ok((!is_same).then(|| public_url.trim_end_matches('/').to_owned()))
    }
}

/// A URL with scheme and host.
fn parse(url: &str) -> Result<Uri, DraftError> {
    let parsed = url.parse::<Uri>().ok();
    let parsed =
        parsed.filter(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.query().is_none());
    parsed.ok_or_else(|| DraftError::NoUrl(url.to_owned()))
}

/// A string of TOML.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Settings;
    use crate::config::settings::RouteKind;
    use crate::config::tests::settings_of;

    fn read(draft: &ConfigDraft) -> Settings {
        settings_of(&draft.to_toml().expect("a configuration"))
    }

    #[test]
    fn one_url_is_enough_and_everything_else_follows_from_it() {
        let draft =
            ConfigDraft { upstream: Some("https://lib.example/".to_owned()), ..ConfigDraft::default() };
        let settings = read(&draft);
        assert_eq!(settings.server.public_hosts, ["lib.example"]);
        let routes: Vec<_> =
            settings.routes.iter().map(|it| (&*it.prefix, it.kind, &*it.upstream.path)).collect();
        let (images, canvases) = (RouteKind::Image, RouteKind::Presentation);
        assert_eq!(
            routes,
            [("/iiif-service/", canvases, "/iiif-service/"), ("/iiif/2/", images, "/iiif/2/")]
        );
        let rewritten = settings.rewrite.public_url.expect("it is beside the old name");
        assert_eq!(rewritten.authority.as_str(), "127.0.0.1:8080");
        assert!(settings.presentation.manifests);
    }

    #[test]
    fn each_service_may_be_elsewhere_and_the_old_name_is_not_rewritten() {
        let given = |text: &str| Some(text.to_owned());
        let draft = ConfigDraft {
            upstream: given("https://lib.example"),
            image_server: given("http://images.internal:8182/iiif/2"),
            canvas_service: given("http://service.internal:9000/inner/"),
            manifests: vec!["a \"b\" \\ c".to_owned(), "https://lib.example/all.json".to_owned()],
            public_host: vec!["lib.example".to_owned(), "lib.example:8443".to_owned()],
            listen: Some(SocketAddr::from(([0, 0, 0, 0], 8000))),
            public_url: given("https://lib.example/"),
        };
        let settings = read(&draft);
        assert_eq!(settings.server.public_hosts, ["lib.example", "lib.example:8443"]);
        let prefixes: Vec<_> = settings.routes.iter().map(|it| it.prefix.as_str()).collect();
        assert_eq!(prefixes, ["/iiif/2/", "/inner/"]);
        assert!(settings.rewrite.public_url.is_none() && !settings.presentation.manifests);
        assert_eq!(settings.index.sources[0].path.as_deref(), Some(Path::new("a \"b\" \\ c")));
        assert_eq!(settings.index.sources[1].url.as_deref(), Some("https://lib.example/all.json"));
        let settings = read(&ConfigDraft { public_url: None, ..draft });
        assert_eq!(settings.rewrite.public_url.expect("it is beside").authority.as_str(), "localhost:8000");
    }

    #[test]
    fn what_is_no_url_is_said_to_be_none() {
        assert_eq!(ConfigDraft::default().to_toml(), Err(DraftError::NoUpstream));
        for wrong in ["lib.example", "ftp://lib.example", "", "https://", "https://a b", "https://a/?q=1"] {
            let draft = ConfigDraft { upstream: Some(wrong.to_owned()), ..ConfigDraft::default() };
            assert!(matches!(draft.to_toml(), Err(DraftError::NoUrl(_))), "{wrong}");
        }
    }
}
