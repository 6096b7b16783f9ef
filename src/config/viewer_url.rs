//! `admin.viewer`: where the dashboard opens a manifest.

use super::value::{ConfigValue, TextOrNumber, ValueError};
use crate::iiif::CanvasUrl;

/// URL of a IIIF viewer, with a place for the URL of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewerUrl(String);

impl ViewerUrl {
    const PLACE: &'static str = "{manifest}";

    /// URL that opens this manifest.
    pub fn open(&self, manifest: &str) -> String {
        let manifest = percent_encoding::utf8_percent_encode(manifest, percent_encoding::NON_ALPHANUMERIC);
        self.0.replace(Self::PLACE, &manifest.to_string())
    }
}

impl ConfigValue for ViewerUrl {
    type Value = Self;
    const EXPECTED: &'static str = "a URL such as \"https://viewer.example.org/?manifest={manifest}\"";
    const EXAMPLES: &'static [&'static str] = &["https://projectmirador.org/embed/?iiif-content={manifest}"];

    fn read(text: &str) -> Result<Self, ValueError> {
        // SECURITY: the dashboard links to it; `javascript:` would run there.
        let is_url = CanvasUrl::parse(&text.replace(Self::PLACE, "x")).is_some();
        if is_url && text.contains(Self::PLACE) {
            return Ok(Self(text.to_owned()));
        }
        Err(ValueError::new(
            format!("`{text}` is not the URL of a viewer"),
            "write an http or https URL with {manifest} in the place of the manifest, such as \
             \"https://viewer.example.org/?manifest={manifest}\"",
        ))
    }

    fn write(value: &Self) -> TextOrNumber {
        TextOrNumber::Text(value.0.clone())
    }
}
