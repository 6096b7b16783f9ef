//! Inspection of the deployment: facts that decide whether healing can work at all.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use http::{HeaderValue, Method, StatusCode, header};
use uuid::Uuid;

use crate::config::settings::RouteKind;
use crate::heal::Healer;
use crate::heal::image::IndexedImage;
use crate::iiif::CanvasUrl;
use crate::iiif::registration::{self, Registration};
use crate::upstream::{Caller, ErrorChain, UpstreamError};

/// `DeploymentFacts` are observations about the deployment.
#[derive(Debug, Clone, Default)]
pub struct DeploymentFacts {
    /// True if `/resources/{uuid}` is answered; `None`: there is no image to test with.
    pub resources_open: Option<bool>,
    /// The `@id` of a live image's info.json, requested as the proxy does for a reader.
    pub info_id: Option<Result<String, String>>,
    /// Seconds by which the image server's clock is ahead of ours.
    pub clock_ahead: Option<i64>,
}

/// `UnreachableServer` is the upstream of a route that gives no answer of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreachableServer {
    /// Kind of the route.
    pub kind: RouteKind,
    /// Scheme, host, port and path, as configured.
    pub upstream: String,
    /// Error in place of an answer.
    pub why: String,
}

const LONGEST_INFO: usize = 1 << 20;

impl Healer {
    /// Upstreams of image and presentation routes that give no answer. Each gets one request, for the route's own path: any
    /// status will do, except those of a gateway without a server behind it.
    pub async fn unreachable(&self) -> Vec<UnreachableServer> {
        let routes = self.parts.settings.routes.iter().enumerate();
        let asked = routes.filter(|(_, route)| route.kind != RouteKind::Plain).map(async |(at, route)| {
            let why = match self.parts.images.status_of_route(at).await {
                Ok(StatusCode::LOOP_DETECTED) => {
                    "it leads back to iiif-mender (508): say by `connect` where the server really is"
                        .to_owned()
                }
                Ok(
                    status @ (StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT),
                ) => format!("it answers {status}"),
                Ok(_) => return None,
                Err(error) => ErrorChain(&error).to_string(),
            };
            let url = &route.upstream;
            let upstream = format!("{}://{}{}", url.scheme, url.authority, url.path);
            Some(UnreachableServer { kind: route.kind, upstream, why })
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Inspects the deployment with this image, which should be alive.
    pub async fn inspect(&self, image: &IndexedImage) -> DeploymentFacts {
        let resources_open = match image.uuid() {
            Some(uuid) => Some(self.answers_resources(image, uuid).await),
            None => None,
        };
        let (info_id, clock_ahead) = match self.info_as_public(image).await {
            Ok((id, ahead)) => (Some(id), ahead),
            Err(error) => (Some(Err(ErrorChain(&error).to_string())), None),
        };
        DeploymentFacts { resources_open, info_id, clock_ahead }
    }
}

impl Healer {
    /// True if a canvas service answers whether this identifier is alive. The answer is not remembered: an inspection
    /// changes nothing.
    async fn answers_resources(&self, image: &IndexedImage, uuid: Uuid) -> bool {
        for service in self.parts.services.of(image) {
            if let Ok((status, body)) = service.get_resource(uuid, &image.trace).await
                && registration::read(uuid, status.as_u16(), &body) != Registration::Nothing
            {
                return true;
            }
        }
        false
    }

    async fn info_as_public(
        &self,
        image: &IndexedImage,
    ) -> Result<(Result<String, String>, Option<i64>), UpstreamError> {
        let route = &self.parts.settings.routes[image.route];
        let own = route.upstream.authority.as_str();
        let origin = self.parts.settings.first_public_origin().unwrap_or_else(|| format!("https://{own}"));
        let public = CanvasUrl::parse(&origin).ok_or(UpstreamError::Target)?;
        let (proto, public, port) = (public.scheme, public.authority, public.port().to_string());
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.method = Method::GET;
        let target = format!("{}{}/info.json", route.upstream.path, image.sent);
        head.uri = target.parse().map_err(|_| UpstreamError::Target)?;
        let text = |text: &str| HeaderValue::from_str(text).map_err(|_| UpstreamError::Target);
        head.headers.insert(header::HOST, text(if route.preserve_host { public } else { own })?);
        head.headers.insert("x-forwarded-host", text(public)?);
        head.headers.insert("x-forwarded-proto", text(proto)?);
        head.headers.insert("x-forwarded-port", text(&port)?);
        head.headers.insert(header::VIA, text(&format!("1.1 {}", self.parts.settings.server.name))?);
        let answer = self.parts.images.send(image, &head, &Caller::default()).await?;
        let date = answer.headers().get(header::DATE).and_then(|date| date.to_str().ok());
        let ahead = date.and_then(clock_ahead);
        let status = answer.status();
        if !status.is_success() {
            return Ok((Err(format!("info.json was answered {status}")), ahead));
        }
        let body = tokio::time::timeout(Duration::from_secs(10), answer.into_body().collect(LONGEST_INFO));
        let body = body.await.ok().and_then(Result::ok).unwrap_or_default();
        let info: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let id = info.get("@id").or_else(|| info.get("id")).and_then(serde_json::Value::as_str);
        Ok((id.map(str::to_owned).ok_or_else(|| "info.json is not JSON with an id".to_owned()), ahead))
    }
}

/// Seconds from our clock to this `Date` (RFC 9110 section 5.6.7, the form that servers send).
fn clock_ahead(date: &str) -> Option<i64> {
    let theirs = httpdate::parse_http_date(date).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let theirs = i64::try_from(theirs.as_secs()).ok()?;
    let ours = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    Some(theirs - i64::try_from(ours).ok()?)
}
