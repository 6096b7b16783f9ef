//! Fetching whole documents by their URL, for the sources of the index: redirects, compression, bounds.
//!
//! A URL is an address to call here, and not a name as elsewhere. So the caller says which URLs may be
//! asked for at all, and is asked again at each redirect.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use hyper::Response;
use parking_lot::Mutex;
use tokio::time::timeout;

use super::coding::{CodingError, ContentCoding, GZIP};
use super::whole::{self, WholeError};
use super::{Body, ErrorChain, TlsError, Upstream, UpstreamError, client_tls, internal_request, server_of};
use crate::config::Settings;
use crate::config::settings::UpstreamUrl;
use crate::iiif::CanvasUrl;
use crate::iiif::canvas::uri;
use crate::observe::UpstreamMetrics;

/// Redirects that are followed one after the other.
const REDIRECTS: usize = 5;

/// Time limit of one document, from the request to its last byte, redirects included.
const WHOLE: Duration = Duration::from_mins(15);

/// The longest document, as it comes and unpacked.
const LONGEST: usize = 64 << 20;

/// Context of fetching; makes a [`Fetcher`] for each piece of work. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FetcherFactory {
    settings: Arc<Settings>,
    tls: Arc<OnceLock<Arc<rustls::ClientConfig>>>,
}

impl FetcherFactory {
    /// Reads the configured certificates, where there are any, to report mistakes in them. Those of the system alone are
    /// read with the first fetch: an index of local files needs none, and they cost half a million instructions to read.
    pub fn new(settings: Arc<Settings>) -> Result<Self, TlsError> {
        let web = Self { settings, tls: Arc::default() };
        if web.settings.upstream.has_tls_files() {
            web.tls()?;
        }
        Ok(web)
    }

    fn tls(&self) -> Result<Arc<rustls::ClientConfig>, TlsError> {
        if let Some(read) = self.tls.get() {
            return Ok(Arc::clone(read));
        }
        let read = client_tls(&self.settings.upstream)?;
        Ok(Arc::clone(self.tls.get_or_init(|| read)))
    }

    /// Settings of the fetchers.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings)
    }

    /// A client with connections of its own, which are closed with it.
    pub fn fetcher(&self) -> Fetcher {
        Fetcher { web: self.clone(), upstreams: Mutex::default() }
    }
}

/// Fetches documents. Connections are kept as long as the fetcher lives.
#[derive(Debug)]
pub struct Fetcher {
    web: FetcherFactory,
    upstreams: Mutex<HashMap<FetchOrigin, Arc<Upstream>>>,
}

/// Scheme, authority, and where to connect instead.
type FetchOrigin = (Scheme, Authority, Vec<Authority>);

/// A document to fetch.
#[derive(Clone, Copy)]
pub struct FetchRequest<'a> {
    /// URL of the document.
    pub url: &'a str,
    /// Value of `Accept`.
    pub accept: &'static str,
    /// Fields that are sent to the host of `home`, and to no other.
    pub headers: &'a HeaderMap,
    /// URL whose host may see `headers`.
    pub home: &'a str,
    /// `ETag` and `Last-Modified` of the stored copy.
    pub validators: (Option<&'a str>, Option<&'a str>),
    /// True for a URL to which a redirect may lead.
    pub may_follow: &'a (dyn Fn(&CanvasUrl<'_>) -> bool + Sync),
}

/// An answer with its whole body.
#[derive(Debug)]
pub struct FetchedResponse {
    /// The status; redirects have been followed.
    pub status: StatusCode,
    /// Header fields of the answer.
    pub fields: HeaderMap,
    body: Bytes,
}

/// Reasons why a document could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not an absolute http(s) URL of plain characters.
    #[error("{0} is not a URL that can be fetched")]
    NotHttp(String),
    /// A redirect to a place where it must not lead.
    #[error("it leads on to {0}, which is another host")]
    LeadsAway(String),
    /// A redirect without an end.
    #[error("it leads on and on, last to {0}")]
    Circle(String),
    /// No answer.
    #[error("{}", ErrorChain(.0))]
    Upstream(#[from] UpstreamError),
    /// The body broke, stalled or was too long.
    #[error("the answer cannot be read: {0}")]
    Body(String),
    /// The body did not end.
    #[error("the answer did not end within {} minutes", WHOLE.as_secs() / 60)]
    Endless,
}

impl FetchedResponse {
    /// The body, unpacked. Takes as long as unpacking takes.
    pub fn plain(&self) -> Result<Bytes, FetchError> {
        let coding = ContentCoding::of(&self.fields).map_err(|_| {
            let named = self.field(&header::CONTENT_ENCODING).unwrap_or_default();
            FetchError::Body(format!("it is encoded as {named}, which was not asked for"))
        })?;
        // A packed file, `manifest.json.gz`, is served without a coding by servers that do not know the format.
        let is_file = coding == ContentCoding::Identity && self.body.starts_with(GZIP);
        let coding = if is_file { ContentCoding::Gzip } else { coding };
        coding.unpack(&self.body, LONGEST).map_err(|error| match error {
            CodingError::TooLong(_) => FetchError::Body(too_long()),
            broken @ CodingError::Broken(_) => FetchError::Body(ErrorChain(&broken).to_string()),
        })
    }

    /// A field as text.
    pub fn field(&self, name: &HeaderName) -> Option<&str> {
        self.fields.get(name).and_then(|value| value.to_str().ok())
    }
}

/// The pause that an answer asks for (RFC 9110 section 10.2.3): 429 and 503 with `Retry-After`, at least a second.
pub fn retry_after(status: StatusCode, fields: &HeaderMap, now: SystemTime) -> Option<Duration> {
    if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    let text = fields.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        // A date in the past means now.
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(pause.max(Duration::from_secs(1)))
}

/// URL for logs and reports.
///
/// SECURITY: a query may hold a key; a redirect to a login page repeats the whole URL in its own.
pub fn without_query(url: &str) -> String {
    url.split_once('?').map_or_else(|| url.to_owned(), |(page, _)| format!("{page}?…"))
}

fn too_long() -> String {
    format!("it is longer than {} MiB", LONGEST >> 20)
}

impl Fetcher {
    /// Fetches one document, following redirects.
    pub async fn fetch(&self, ask: &FetchRequest<'_>) -> Result<FetchedResponse, FetchError> {
        timeout(WHOLE, self.follow(ask)).await.unwrap_or(Err(FetchError::Endless))
    }

    async fn follow(&self, ask: &FetchRequest<'_>) -> Result<FetchedResponse, FetchError> {
        let refuse = |url: &str| FetchError::NotHttp(without_query(url));
        let mut url = uri(ask.url).ok_or_else(|| refuse(ask.url))?.into_owned();
        for _ in 0..=REDIRECTS {
            let answer = self.once(&url, ask).await?;
            let to = if is_redirect(answer.status()) { answer.headers().get(header::LOCATION) } else { None };
            // Servers write letters beyond ASCII into `Location` unencoded.
            let Some(to) = to.and_then(|to| std::str::from_utf8(to.as_bytes()).ok()) else {
                return fetched(answer).await;
            };
            let next = join(&url, to).ok_or_else(|| refuse(to))?;
            let next = uri(&next).ok_or_else(|| refuse(to))?.into_owned();
            let target = CanvasUrl::parse(&next).ok_or_else(|| refuse(&next))?;
            if !(ask.may_follow)(&target) {
                return Err(FetchError::LeadsAway(without_query(&next)));
            }
            url = next;
        }
        Err(FetchError::Circle(without_query(&url)))
    }

    async fn once(&self, url: &str, ask: &FetchRequest<'_>) -> Result<Response<Body>, FetchError> {
        let refuse = || FetchError::NotHttp(without_query(url));
        let parsed = CanvasUrl::parse(url).ok_or_else(refuse)?;
        let tls = self.web.tls().map_err(|error| UpstreamError::Connect(error.into()))?;
        let (upstream, host, target) = self.place(&parsed, &tls).ok_or_else(refuse)?;
        let mut head = self.head(&host, ask)?;
        head.uri = target.parse().map_err(|_| refuse())?;
        if is_home(&parsed, ask.home) {
            head.headers.extend(ask.headers.clone());
        }
        Ok(upstream.send(&head, Body::Empty, self.web.settings.upstream.timeouts()).await?)
    }

    /// Destination for a URL: server, `Host`, target. A URL with a public host means us, so it takes the route that a viewer's
    /// request would take, without a request to ourselves.
    fn place(
        &self,
        url: &CanvasUrl<'_>,
        tls: &Arc<rustls::ClientConfig>,
    ) -> Option<(Arc<Upstream>, String, String)> {
        let settings = &self.web.settings;
        let public = settings.server.public_hosts.iter().find(|host| url.authority_is(host));
        if let Some(public) = public
            && !url.has_dot_segments()
            && let Some(route) = settings.route_of(public, url.path).map(|at| &settings.routes[at])
        {
            let path = format!("{}{}", route.upstream.path, &url.path[route.prefix.len()..]);
            let target = CanvasUrl { path: &path, ..*url }.visit_target();
            let host = if route.preserve_host { public } else { route.upstream.authority.as_str() };
            return Some((self.upstream(&route.upstream, &route.connect, tls), host.to_owned(), target));
        }
        let server = server_of(url)?;
        let same = |route: &&crate::config::settings::RouteSettings| {
            route.upstream.scheme == server.scheme && url.authority_is(route.upstream.authority.as_str())
        };
        let connect = settings.routes.iter().find(same).map_or(&[][..], |route| &route.connect);
        Some((self.upstream(&server, connect, tls), url.authority.to_owned(), url.visit_target()))
    }

    fn upstream(
        &self,
        url: &UpstreamUrl,
        connect: &[Authority],
        tls: &Arc<rustls::ClientConfig>,
    ) -> Arc<Upstream> {
        let mut all = self.upstreams.lock();
        let name = (url.scheme.clone(), url.authority.clone(), connect.to_vec());
        let made = || {
            let bounds = &self.web.settings.upstream;
            Arc::new(Upstream::new(url, connect, bounds, tls, &UpstreamMetrics::default()))
        };
        Arc::clone(all.entry(name).or_insert_with(made))
    }

    fn head(&self, host: &str, ask: &FetchRequest<'_>) -> Result<Parts, FetchError> {
        let not_http = |_| FetchError::NotHttp(without_query(ask.url));
        let mut head = internal_request(host, &self.web.settings.server.name).map_err(not_http)?;
        let fields = &mut head.headers;
        fields.insert(header::ACCEPT, HeaderValue::from_static(ask.accept));
        fields.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let (etag, modified) = ask.validators;
        for (name, value) in [(header::IF_NONE_MATCH, etag), (header::IF_MODIFIED_SINCE, modified)] {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                fields.insert(name, value);
            }
        }
        Ok(head)
    }
}

/// True if a URL is on the source's own host, with no worse scheme.
///
/// SECURITY: a source's fields are likely to hold a key, which no other host may see.
fn is_home(url: &CanvasUrl<'_>, home: &str) -> bool {
    CanvasUrl::parse(home).is_some_and(|home| {
        let secure = |url: &CanvasUrl<'_>| url.scheme.eq_ignore_ascii_case("https");
        url.host() == home.host()
            && (url.port() == home.port() || (secure(url) && url.port() == 443 && home.port() == 80))
            && (secure(url) || !secure(&home))
    })
}

pub(crate) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

async fn fetched(answer: Response<Body>) -> Result<FetchedResponse, FetchError> {
    let (head, body) = answer.into_parts();
    let announced = head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if announced.and_then(|length| length.parse::<usize>().ok()).is_some_and(|length| length > LONGEST) {
        return Err(FetchError::Body(too_long()));
    }
    let body = whole::read(body, LONGEST).await.map_err(|error| {
        FetchError::Body(if matches!(error, WholeError::TooLong) {
            too_long()
        } else {
            ErrorChain(&error).to_string()
        })
    })?;
    Ok(FetchedResponse { status: head.status, fields: head.headers, body })
}

/// The URL that a `Location` means.
pub(crate) fn join(base: &str, location: &str) -> Option<String> {
    let location = location.trim();
    let url = CanvasUrl::parse(base)?;
    let root = format!("{}://{}", url.scheme, url.authority);
    // The query may hold a whole URL: `/login?return=https://…`.
    if location.split(['/', '?', '#']).next().is_some_and(|first| first.contains(':')) {
        return Some(location.to_owned());
    }
    if let Some(rest) = location.strip_prefix("//") {
        return Some(format!("{}://{rest}", url.scheme));
    }
    if location.starts_with('/') {
        return Some(format!("{root}{location}"));
    }
    if location.starts_with('?') {
        return Some(format!("{root}{}{location}", url.path));
    }
    let mut folder = url.path.rsplit_once('/')?.0;
    let mut rest = location;
    loop {
        if let Some(here) = rest.strip_prefix("./") {
            rest = here;
        } else if let Some(up) = rest.strip_prefix("../") {
            (folder, rest) = (folder.rsplit_once('/').map_or("", |(above, _)| above), up);
        } else {
            return Some(format!("{root}{folder}/{rest}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::absolute("http://b.test/x", "http://b.test/x")]
    #[case::other_scheme_stays_other("ftp://b.test/x", "ftp://b.test/x")]
    #[case::host("//b.test/x", "https://b.test/x")]
    #[case::no_path("urn:a:b", "urn:a:b")]
    #[case::url_in_the_query("/x?to=http://b.test/y", "https://a.test/x?to=http://b.test/y")]
    #[case::path("/x?y", "https://a.test/x?y")]
    #[case::query("?y", "https://a.test/one/two?y")]
    #[case::beside("x", "https://a.test/one/x")]
    #[case::here("./x", "https://a.test/one/x")]
    #[case::above("../x", "https://a.test/x")]
    #[case::above_the_root("../../../x", "https://a.test/x")]
    fn a_location_is_read_against_the_url(#[case] location: &str, #[case] url: &str) {
        assert_eq!(join("https://a.test/one/two?q", location).as_deref(), Some(url));
    }

    #[rstest]
    #[case::seconds(503, "7", Some(7))]
    #[case::too_soon(429, "0", Some(1))]
    #[case::date(503, "Thu, 01 Jan 1970 00:01:10 GMT", Some(10))]
    #[case::past(503, "Thu, 01 Jan 1970 00:00:10 GMT", Some(1))]
    #[case::nonsense(503, "soon", None)]
    #[case::negative(503, "-1", None)]
    #[case::not_asked(500, "7", None)]
    fn a_server_that_wants_a_pause_says_for_how_long(
        #[case] status: u16,
        #[case] text: &str,
        #[case] seconds: Option<u64>,
    ) {
        let mut fields = HeaderMap::new();
        fields.insert(header::RETRY_AFTER, text.parse().expect("a value"));
        let (status, now) = (StatusCode::from_u16(status).expect("a status"), SystemTime::UNIX_EPOCH);
        let pause = retry_after(status, &fields, now + Duration::from_mins(1));
        assert_eq!(pause, seconds.map(Duration::from_secs));
    }

    #[rstest]
    #[case::same("https://a.test/x", true)]
    #[case::other_host("https://b.test/x", false)]
    #[case::other_port("https://a.test:8443/x", false)]
    #[case::worse_scheme("http://a.test/x", false)]
    fn fields_are_for_their_own_host_only(#[case] url: &str, #[case] yes: bool) {
        let parsed = CanvasUrl::parse(url).expect("a URL");
        assert_eq!(is_home(&parsed, "https://a.test/collection"), yes);
    }
}
