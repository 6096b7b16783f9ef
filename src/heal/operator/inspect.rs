//! Inspection of the deployment: facts that decide whether healing can work at all.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use http::{HeaderValue, Method, header};

use crate::heal::Healer;
use crate::heal::canvas_service::registration::Registration;
use crate::heal::image::IndexedImage;
use crate::upstream::{Caller, ErrorChain, UpstreamError};

/// `DeploymentFacts` is what was seen of the deployment.
#[derive(Debug, Clone, Default)]
pub struct DeploymentFacts {
    /// True if `/resources/{uuid}` is answered; `None`: there is no image to ask about.
    pub resources_open: Option<bool>,
    /// The `@id` of a live image's info.json, asked for as the proxy does for the first public host.
    pub info_id: Option<Result<String, String>>,
    /// Seconds by which the image server's clock is ahead of ours.
    pub clock_ahead: Option<i64>,
}

const LONGEST_INFO: usize = 1 << 20;

impl Healer {
    /// Inspects the deployment with this image, which should be alive.
    pub async fn inspect(&self, image: &IndexedImage) -> DeploymentFacts {
        let parts = &self.parts;
        let said = parts.services.ask(image).await;
        let is_asked =
            parts.services.of(image).iter().any(|service| service.registrations.is_available(Instant::now()));
        let is_uuid = matches!(image.kind, crate::iiif::IdentifierKind::Uuid { .. });
        let resources_open = is_uuid.then_some(said != Registration::Nothing && is_asked);
        let (info_id, clock_ahead) = match self.info_as_public(image).await {
            Ok((id, ahead)) => (Some(id), ahead),
            Err(error) => (Some(Err(ErrorChain(&error).to_string())), None),
        };
        DeploymentFacts { resources_open, info_id, clock_ahead }
    }
}

impl Healer {
    async fn info_as_public(
        &self,
        image: &IndexedImage,
    ) -> Result<(Result<String, String>, Option<i64>), UpstreamError> {
        let route = &self.parts.settings.routes[image.route];
        let own = route.upstream.authority.as_str();
        let public = self.parts.settings.server.public_hosts.first().map_or(own, String::as_str);
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.method = Method::GET;
        let target = format!("{}{}/info.json", route.upstream.path, image.sent);
        head.uri = target.parse().map_err(|_| UpstreamError::Target)?;
        let text = |text: &str| HeaderValue::from_str(text).map_err(|_| UpstreamError::Target);
        head.headers.insert(header::HOST, text(if route.preserve_host { public } else { own })?);
        head.headers.insert("x-forwarded-host", text(public)?);
        head.headers.insert("x-forwarded-proto", text("https")?);
        let port = public.rsplit_once(':').map_or("443", |(_, port)| port);
        head.headers.insert("x-forwarded-port", text(port)?);
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
