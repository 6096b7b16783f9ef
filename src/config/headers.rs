//! Header fields that the configuration adds to requests, such as the key of a source.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use schemars::{Schema, json_schema};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::ser::Serializer;

use super::value::{DescribedValue, Format, ValueError};

/// Table of header names and values. Fields that HTTP itself needs cannot be set.
pub(super) struct Headers;

const OURS: [HeaderName; 7] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::ACCEPT_ENCODING,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
];

fn name(text: &str) -> Result<HeaderName, ValueError> {
    match HeaderName::try_from(text) {
        Ok(known) if OURS.contains(&known) => Err(ValueError::new(
            format!("`{text}` cannot be chosen: every request has its own"),
            "take it out",
        )),
        Ok(known) => Ok(known),
        Err(_) => Err(ValueError::new(
            format!("`{text}` is not the name of a header"),
            "write the name alone, such as authorization = \"Bearer 1234\"",
        )),
    }
}

impl Format<HeaderMap> for Headers {
    fn write<S: Serializer>(fields: &HeaderMap, serializer: S) -> Result<S::Ok, S::Error> {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        serializer.collect_map(fields.iter().map(|(name, value)| (name.as_str(), text(value))))
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HeaderMap, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

impl DescribedValue for Headers {
    fn schema() -> Schema {
        json_schema!({ "type": "object", "additionalProperties": HeaderValue::schema() })
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = HeaderMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HeaderMap, A::Error> {
        let mut fields = HeaderMap::new();
        while let Some(name) = map.next_key::<String>()? {
            let (name, value) = map.next_value_seed(Field(name))?;
            fields.append(name, value);
        }
        Ok(fields)
    }
}

/// A field whose name is parsed already. The error for a bad name points at the value, as the key alone cannot be removed.
struct Field(String);

impl<'de> DeserializeSeed<'de> for Field {
    type Value = (HeaderName, HeaderValue);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let value = <HeaderValue as Format<HeaderValue>>::read(deserializer)?;
        Ok((name(&self.0).map_err(de::Error::custom)?, value))
    }
}
