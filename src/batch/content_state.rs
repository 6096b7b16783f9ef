//! Content State 1.0: the link that a viewer makes of its present view.
//!
//! `iiif-content=` in the query or fragment of a viewer's URL, or the value alone: a plain URL, an annotation or a
//! reference as JSON, or that JSON percent-encoded and then base64url-encoded.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode_str;
use serde_json::Value;

/// Target of a content state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ContentTarget {
    /// URL of a manifest or a collection, or of an unknown kind.
    Document(String),
    /// A canvas, and the manifest it is part of.
    Canvas {
        /// URL of the document, without fragment.
        url: String,
        manifest: Option<String>,
    },
}

/// Reads a viewer link or a content state alone. `None`: the text is neither.
pub(crate) fn read(text: &str) -> Option<ContentTarget> {
    let content = match parameter(text) {
        Some(value) => percent_decode_str(value).decode_utf8().ok()?.into_owned(),
        None if text.contains("://") && !text.trim_start().starts_with('{') => return None,
        None => text.to_owned(),
    };
    if content.starts_with("http://") || content.starts_with("https://") {
        return Some(ContentTarget::Document(without_fragment(&content)));
    }
    let json = if content.trim_start().starts_with('{') { content } else { decode(&content)? };
    pointed(&serde_json::from_str(&json).ok()?, 0)
}

fn parameter(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("iiif-content=")?;
    rest.split(['&', '#']).next()
}

fn decode(text: &str) -> Option<String> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&URL_SAFE, LENIENT).decode(text.trim()).ok()?;
    let escaped = String::from_utf8(bytes).ok()?;
    Some(percent_decode_str(&escaped).decode_utf8().ok()?.into_owned())
}

fn pointed(value: &Value, depth: usize) -> Option<ContentTarget> {
    if depth > 4 {
        return None;
    }
    match value {
        Value::String(url) => url.contains("://").then(|| ContentTarget::Document(without_fragment(url))),
        Value::Array(all) => all.iter().find_map(|one| pointed(one, depth + 1)),
        Value::Object(fields) => {
            if let Some(inner) = fields.get("target").or_else(|| fields.get("source")) {
                return pointed(inner, depth + 1);
            }
            let text = |name: &str| fields.get(name).and_then(Value::as_str);
            let url = without_fragment(text("id").or_else(|| text("@id"))?);
            let kind = text("type").or_else(|| text("@type")).unwrap_or_default();
            if !kind.ends_with("Canvas") {
                return Some(ContentTarget::Document(url));
            }
            let manifest = fields.get("partOf").and_then(|part| match pointed(part, depth + 1)? {
                ContentTarget::Document(manifest) => Some(manifest),
                ContentTarget::Canvas { .. } => None,
            });
            Some(ContentTarget::Canvas { url, manifest })
        }
        _ => None,
    }
}

fn without_fragment(url: &str) -> String {
    url.split('#').next().unwrap_or(url).to_owned()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use rstest::rstest;

    use super::*;

    const CANVAS: &str = r#"{"id":"https://example.org/state/1","type":"Annotation","motivation":["contentState"],
        "target":{"id":"https://example.org/c/7#xywh=1,2,3,4","type":"Canvas",
        "partOf":[{"id":"https://example.org/m","type":"Manifest"}]}}"#;

    fn canvas() -> ContentTarget {
        ContentTarget::Canvas {
            url: "https://example.org/c/7".to_owned(),
            manifest: Some("https://example.org/m".to_owned()),
        }
    }

    #[test]
    fn the_encoded_form_is_base64url_of_percent_encoded_json() {
        // encodeURIComponent leaves ASCII letters alone; the standard's own example is encoded in this way.
        let escaped =
            percent_encoding::utf8_percent_encode(CANVAS, percent_encoding::NON_ALPHANUMERIC).to_string();
        let encoded = URL_SAFE_NO_PAD.encode(escaped);
        assert_eq!(read(&encoded), Some(canvas()));
        assert_eq!(read(&format!("https://viewer.org/?iiif-content={encoded}&x=1")), Some(canvas()));
        assert_eq!(read(&format!("https://viewer.org/#?iiif-content={encoded}")), Some(canvas()));
    }

    #[rstest]
    #[case::json(CANVAS, canvas())]
    #[case::url("https://v.org/?iiif-content=https%3A%2F%2Fexample.org%2Fm",
        ContentTarget::Document("https://example.org/m".to_owned()))]
    #[case::reference(r#"{"id":"https://example.org/m","type":"Manifest"}"#,
        ContentTarget::Document("https://example.org/m".to_owned()))]
    fn the_other_forms_of_the_standard_are_read(#[case] text: &str, #[case] expected: ContentTarget) {
        assert_eq!(read(text), Some(expected));
    }

    #[rstest]
    #[case("https://example.org/m")]
    #[case("13c09e7b-ddb5-30f5-a4ce-eecebd330564")]
    #[case("manifests/houston")]
    #[case("{}")]
    #[case("")]
    fn what_is_no_content_state_is_none(#[case] text: &str) {
        assert_eq!(read(text), None);
    }
}
