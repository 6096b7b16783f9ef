//! Placeholder for an image whose file is gone (`heal.missing_image`): a picture of the requested size, and an info.json.
//! Viewers stop at a page whose info.json is 404; with a placeholder they go on.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::forwarding::{FORWARDED_HOST, FORWARDED_PATH, FORWARDED_PROTO};
use super::striped_picture::{self, MOST};
use super::{Exchange, ProxyInner, ProxyResponse};
use crate::heal::RoutedImage;
use crate::iiif::Target;
use crate::iiif::image_size::output_size;
use crate::observe::EventKind;
use crate::presentation::cors;
use crate::upstream::Body;

/// Version of the Image API that a route speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ImageApi {
    Two,
    Three,
}

impl ImageApi {
    /// The version that the path of an image server names: `/iiif/3/` and the like.
    pub(super) fn of(path: &str) -> Self {
        if path.split('/').any(|segment| segment == "3") { Self::Three } else { Self::Two }
    }
}

impl ProxyInner {
    /// Returns a placeholder for an image that is gone (`heal.missing_image`), or the image server's own answer.
    pub(super) async fn placeholder(
        &self,
        exchange: &Exchange<'_>,
        image: &RoutedImage<'_>,
        onward: &Parts,
        mut answer: ProxyResponse,
    ) -> ProxyResponse {
        let heal = &self.settings.heal;
        let Some(status) = heal.missing_image.status() else { return answer };
        // The image server may still have the info.json, with the true size, in its cache.
        let is_not_found = heal.statuses.contains(&answer.response.status().as_u16());
        if exchange.sender.is_canvas_service || !is_not_found {
            return answer;
        }
        let Some(size) = self.healer.size_of_missing(image, onward).await else { return answer };
        let route = &self.settings.routes[image.route];
        let api = ImageApi::of(&route.upstream.path);
        let Some(mut made) = self::answer(onward, image.request.target, size, api, status) else {
            return answer;
        };
        self.metrics.event(EventKind::Placeholder);
        cors::copy(answer.response.headers(), made.headers_mut());
        cors::allow_any_origin(&onward.headers, made.headers_mut());
        (answer.response, answer.is_placeholder) = (made, true);
        answer
    }
}

/// Side of a tile. Pictures are the same wherever tiles begin at multiples of it.
const TILE: u32 = 512;

/// The answer to `onward`, a request on its way to the image server, for an image of this size. `None`: no picture of that
/// kind or size is made, and the image server's own answer goes out.
pub(super) fn answer(
    onward: &Parts,
    target: Target<'_>,
    size: (u32, u32),
    api: ImageApi,
    status: StatusCode,
) -> Option<Response<Body>> {
    let (kind, body) = match target {
        Target::Info => {
            let kind = match api {
                ImageApi::Two => "application/json",
                ImageApi::Three => r#"application/ld+json;profile="http://iiif.io/api/image/3/context.json""#,
            };
            (kind, info(&base(onward)?, size, api).to_string().into_bytes())
        }
        Target::Image { region, size: scaled, rotation, file } => {
            let (width, height) = bounded(output_size(size, region, scaled, rotation)?, scaled)?;
            match file.rsplit('.').next()? {
                "jpg" => ("image/jpeg", striped_picture::jpeg(width, height)),
                "png" => ("image/png", striped_picture::png(width, height).ok()?),
                _ => return None,
            }
        }
        Target::Base | Target::Other => return None,
    };
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    fields.insert(header::CONTENT_LENGTH, body.len().into());
    if onward.method != Method::HEAD {
        *response.body_mut() = Bytes::from(body).into();
    }
    Some(response)
}

/// A size in pixels is made exactly or not at all; `full`, `max` and `pct:` may become smaller.
fn bounded((width, height): (u32, u32), asked: &str) -> Option<(u16, u16)> {
    let pixels = u64::from(width) * u64::from(height);
    let is_free = matches!(asked.trim_start_matches('^'), "full" | "max") || asked.contains("pct:");
    let longest = width.max(height);
    let factor = match (pixels > MOST || longest > u32::from(u16::MAX), is_free) {
        (false, _) => return Some((width.try_into().ok()?, height.try_into().ok()?)),
        (true, false) => return None,
        // SECURITY: both bounds hold: the area, and the longest side that a JPEG can have.
        (true, true) => (side(MOST) / side(pixels)).sqrt().min(f64::from(u16::MAX) / f64::from(longest)),
    };
    let [width, height] = [width, height].map(|side| striped_side(f64::from(side) * factor));
    Some((width, height))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "an area of two sides below 2³²; a pixel more or less does no harm"
)]
fn side(pixels: u64) -> f64 {
    pixels as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value is between 1 and 65,535"
)]
fn striped_side(side: f64) -> u16 {
    side.clamp(1.0, f64::from(u16::MAX)) as u16
}

/// Id of the image, as Cantaloupe makes it from the same fields.
fn base(onward: &Parts) -> Option<String> {
    let told = |name: HeaderName| onward.headers.get(name).and_then(|value| value.to_str().ok());
    let path = onward.uri.path().strip_suffix("/info.json")?;
    let (scheme, host) = (told(FORWARDED_PROTO)?, told(FORWARDED_HOST)?);
    Some(format!("{scheme}://{host}{}{path}", told(FORWARDED_PATH).unwrap_or_default()))
}

/// Image API 2.1 section 5 and 3.0 section 5.
fn info(id: &str, (width, height): (u32, u32), api: ImageApi) -> Value {
    let longest = width.max(height);
    let factors: Vec<u32> = (0..31)
        .map(|power| 1 << power)
        .take_while(|factor| *factor == 1 || longest / factor > TILE / 2)
        .collect();
    let tiles = json!([{ "width": TILE, "scaleFactors": factors }]);
    match api {
        ImageApi::Two => json!({
            "@context": "http://iiif.io/api/image/2/context.json",
            "@id": id,
            "protocol": "http://iiif.io/api/image",
            "width": width,
            "height": height,
            "tiles": tiles,
            "profile": ["http://iiif.io/api/image/2/level2.json", { "maxArea": MOST }],
        }),
        ImageApi::Three => json!({
            "@context": "http://iiif.io/api/image/3/context.json",
            "id": id,
            "type": "ImageService3",
            "protocol": "http://iiif.io/api/image",
            "profile": "level2",
            "width": width,
            "height": height,
            "maxArea": MOST,
            "tiles": tiles,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::bounded;

    #[test]
    fn what_is_too_large_is_refused_or_becomes_smaller() {
        assert_eq!(bounded((2048, 2048), "2048,"), Some((2048, 2048)));
        assert_eq!(bounded((2049, 2048), "2049,2048"), None);
        assert_eq!(bounded((70_000, 1), "70000,1"), None);
        assert_eq!(bounded((4096, 4096), "max"), Some((2048, 2048)));
        assert_eq!(bounded((u32::MAX, 1), "^max"), Some((65_535, 1)));
        assert_eq!(bounded((u32::MAX, u32::MAX), "pct:100"), Some((2048, 2048)));
    }
}
