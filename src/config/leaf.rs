//! One value of the file: text (or a number) that means something. [`Text`] teaches serde and the schema every
//! type that says how it is written, so that a bad value is found where it stands, with what to write instead.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// What is wrong with a value, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) message: String,
    pub(super) help: String,
}

impl Mistake {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

/// serde carries one string only, so the help travels as its second line; [`Mistake::split`] takes it apart.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.message.replace('\n', " "), self.help)
    }
}

impl Mistake {
    /// Message and help of an error that went through serde.
    pub(super) fn split(text: &str) -> (String, Option<String>) {
        match text.split_once('\n') {
            Some((message, help)) => (message.to_owned(), Some(help.to_owned())),
            None => (text.to_owned(), None),
        }
    }
}

/// How a value is written in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Written {
    Text(String),
    Number(u64),
}

/// How the file may write the values of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Number,
    TextOrNumber,
}

/// A type that stands in the file as one text or number.
pub(super) trait Leaf: Sized {
    /// What must stand there, with an example; completes "expected …".
    const EXPECTED: &'static str;
    /// Examples for the schema.
    const EXAMPLES: &'static [&'static str] = &[];
    /// The only words allowed, where there are only some.
    const WORDS: &'static [&'static str] = &[];
    const FORM: Form = Form::Text;
    /// The least and the greatest number, where numbers are written.
    const RANGE: (u64, u64) = (0, u64::MAX);

    fn read(text: &str) -> Result<Self, Mistake>;
    fn write(&self) -> Written;
}

/// A value as serde and schemars see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Text<T>(pub T);

#[allow(private_bounds, reason = "the types of the fields are public, how they are read is not")]
impl<T: Leaf> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.write() {
            Written::Text(text) => serializer.serialize_str(&text),
            Written::Number(number) => serializer.serialize_u64(number),
        }
    }
}

#[allow(private_bounds, reason = "the types of the fields are public, how they are read is not")]
impl<'de, T: Leaf> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LeafVisitor(PhantomData)).map(Self)
    }
}

struct LeafVisitor<T>(PhantomData<T>);

impl<T: Leaf> Visitor<'_> for LeafVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        if T::FORM == Form::Number {
            return Err(E::invalid_type(de::Unexpected::Str(text), &self));
        }
        T::read(text).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        if T::FORM == Form::Text {
            return Err(E::invalid_type(de::Unexpected::Signed(number), &self));
        }
        T::read(&number.to_string()).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        if T::FORM == Form::Text {
            return Err(E::invalid_type(de::Unexpected::Unsigned(number), &self));
        }
        T::read(&number.to_string()).map_err(E::custom)
    }
}

#[allow(private_bounds, reason = "the types of the fields are public, how they are read is not")]
impl<T: Leaf> JsonSchema for Text<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed(std::any::type_name::<T>())
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = match T::FORM {
            Form::Text => json_schema!({ "type": "string" }),
            Form::Number => {
                json_schema!({ "type": "integer", "minimum": T::RANGE.0, "maximum": T::RANGE.1 })
            }
            Form::TextOrNumber => json_schema!({ "type": ["string", "integer"] }),
        };
        schema.insert("title".to_owned(), T::EXPECTED.into());
        if !T::WORDS.is_empty() {
            schema.insert("enum".to_owned(), T::WORDS.into());
        }
        if !T::EXAMPLES.is_empty() {
            schema.insert("examples".to_owned(), T::EXAMPLES.into());
        }
        schema
    }
}

/// One value or a list of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData)).map(Self)
    }
}

/// Written by hand, because an untagged enum would only say that no variant matched, and not where.
struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one value or a list of them")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
        T::deserialize(de::value::StrDeserializer::new(text)).map(|value| vec![value])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(values)
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("OneOrMany_{}", T::schema_name()))
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

/// The one among `words` that was probably meant.
pub(super) fn similar<'w>(written: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let written = written.to_lowercase().replace('-', "_");
    let bound = (written.chars().count() / 3).max(1);
    words
        .into_iter()
        .map(|word| (strsim::osa_distance(&written, word), word))
        .filter(|(distance, _)| *distance <= bound)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}
