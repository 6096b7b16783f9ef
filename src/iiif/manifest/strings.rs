//! Reads strings wherever they may hide, and steps over everything else.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Seed for the first string of a value; the rest of the value is read over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstString {
    /// The string itself, nothing inside of anything.
    Plain,
    /// A label: `"a"`, `["a"]`, `{"en": ["a"]}`, `{"@value": "a"}`, `[{"@value": "a"}]`; a number will do.
    Label,
    /// The target of an annotation: `"a"`, `{"id": "a"}`, `{"source": …}`, `{"full": …}`, or a list.
    Target,
}

impl FirstString {
    /// True if the first string may stand under this key of an object.
    fn looks_under(self, key: &str) -> bool {
        match self {
            Self::Plain => false,
            Self::Label => !matches!(key, "@language" | "language" | "@type" | "type" | "@id" | "id"),
            Self::Target => matches!(key, "@id" | "id" | "source" | "full"),
        }
    }

    fn number(self, text: &dyn ToString) -> Option<String> {
        (self == Self::Label).then(|| text.to_string())
    }
}

impl<'de> DeserializeSeed<'de> for FirstString {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FirstString {
    type Value = Option<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        // No URL begins or ends with white space; generators write it, and clients drop it.
        let text = if self == Self::Label { text } else { text.trim() };
        Ok(Some(text).filter(|text| !text.is_empty()).map(str::to_owned))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(self.number(&number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(self.number(&number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(self.number(&number))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        if self != Self::Plain {
            while let Some(element) = list.next_element_seed(self)? {
                if element.is_some() {
                    while list.next_element::<IgnoredAny>()?.is_some() {}
                    return Ok(element);
                }
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(WantedString(wanted)) = map.next_key_seed(KeySeed(self))? {
            if wanted && found.is_none() {
                found = map.next_value_seed(self)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Seed for a key that is only tested.
struct KeySeed(FirstString);
struct WantedString(bool);

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = WantedString;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<WantedString, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = WantedString;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<WantedString, E> {
        Ok(WantedString(self.0.looks_under(key)))
    }
}

/// Seed that shows every string of a value, or of a list of them, and steps over objects and the rest.
pub(super) struct EachString<F>(pub(super) F);

impl<'de, F: FnMut(&str)> DeserializeSeed<'de> for EachString<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: FnMut(&str)> Visitor<'de> for EachString<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<(), E> {
        (self.0)(text);
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        // Through `dyn`, or the compiler would build this visitor for ever deeper closures.
        let show: &mut dyn FnMut(&str) = &mut self.0;
        while list.next_element_seed(EachString(&mut *show))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}
