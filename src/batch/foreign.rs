//! Documents that belong to no route of ours: manifests and collections on other sites, named by a person.

use bytes::Bytes;
use http::HeaderMap;

use crate::iiif::CanvasUrl;
use crate::iiif::canvas::uri;
use crate::upstream::ErrorChain;
use crate::upstream::fetch::{FetchRequest, Fetcher, FetcherFactory};

/// Fetches from the hosts that were named on the command line, and from no other.
///
/// SECURITY: a collection may name any URL as its member; only the host that the person named is followed.
#[derive(Debug)]
pub(crate) struct ForeignFetcher {
    fetcher: Fetcher,
    hosts: Vec<String>,
}

const ACCEPT: &str = "application/ld+json, application/json";

impl ForeignFetcher {
    pub(crate) fn new(web: &FetcherFactory, sources: &[String]) -> Self {
        let host = |source: &String| Some(CanvasUrl::parse(&uri(source)?)?.authority.to_owned());
        let hosts = sources.iter().filter_map(host);
        Self { hosts: hosts.collect(), fetcher: web.fetcher() }
    }

    /// True if the URL may be fetched.
    pub(crate) fn may_fetch(&self, url: &str) -> bool {
        uri(url).is_some_and(|url| CanvasUrl::parse(&url).is_some_and(|url| self.is_named(&url)))
    }

    fn is_named(&self, url: &CanvasUrl<'_>) -> bool {
        self.hosts.iter().any(|host| url.authority_is(host))
    }

    /// The document, or the reason why there is none.
    pub(crate) async fn document(&self, url: &str) -> Result<Bytes, String> {
        let may_follow = |url: &CanvasUrl<'_>| self.is_named(url);
        let headers = HeaderMap::new();
        let ask = FetchRequest {
            url,
            accept: ACCEPT,
            headers: &headers,
            home: url,
            validators: (None, None),
            may_follow: &may_follow,
        };
        let fetched = self.fetcher.fetch(&ask).await.map_err(|error| ErrorChain(&error).to_string())?;
        if !fetched.status.is_success() {
            return Err(format!("its server answered {}", fetched.status));
        }
        fetched.plain().map_err(|error| ErrorChain(&error).to_string())
    }
}
