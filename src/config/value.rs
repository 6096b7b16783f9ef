//! Values with a format of their own, written as text or as a number. [`As`] gives serde and the schema the format of a
//! field, so that the error for a bad value names its place and what to write instead.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::ser::{self, Serializer};
use serde::{Deserialize, Serialize};

/// Error of a value, with advice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ValueError {
    pub(super) message: String,
    pub(super) help: String,
}

impl ValueError {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

/// serde carries one string only, so the help travels as its second line; [`ValueError::split`] takes it apart.
impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.message.replace('\n', " "), self.help)
    }
}

impl ValueError {
    /// Message and help of an error that went through serde.
    pub(super) fn split(text: &str) -> (String, Option<String>) {
        match text.split_once('\n') {
            Some((message, help)) => (message.to_owned(), Some(help.to_owned())),
            None => (text.to_owned(), None),
        }
    }
}

/// Text or number, as a value is written in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TextOrNumber {
    Text(String),
    Number(u64),
}

/// Forms in which the file may write the values of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueForm {
    Text,
    Number,
    TextOrNumber,
}

/// Format of a value in the file as one text or number. Most types are their own format; a number that may mean bytes or a
/// count has a format that is only a name, such as `Size`.
pub(super) trait ConfigValue {
    /// Type of the parsed value.
    type Value: Clone;
    /// Expectation, with an example; completes "expected …".
    const EXPECTED: &'static str;
    /// Examples for the schema.
    const EXAMPLES: &'static [&'static str] = &[];
    const FORM: ValueForm = ValueForm::Text;
    /// The least and the greatest number, where numbers are written.
    const RANGE: (u64, u64) = (0, u64::MAX);

    fn read(text: &str) -> Result<Self::Value, ValueError>;
    fn write(value: &Self::Value) -> TextOrNumber;

    /// The only words allowed, where there are only some.
    fn words() -> Vec<&'static str> {
        Vec::new()
    }
}

/// An enum that stands in the file as one of a few words.
pub(super) trait WordList: Copy + PartialEq + 'static {
    /// Noun for the words; completes "`…` is not …".
    const WHAT: &'static str;
    const EXPECTED: &'static str;
    const WORDS: &'static [(&'static str, Self)];

    /// Error for another word.
    fn mistake(text: &str) -> ValueError {
        let words: Vec<&str> = Self::WORDS.iter().map(|(word, _)| *word).collect();
        let help = match similar(text, words.iter().copied()) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => format!("write one of \"{}\"", words.join("\", \"")),
        };
        ValueError::new(format!("`{text}` is not {}", Self::WHAT), help)
    }
}

impl<W: WordList> ConfigValue for W {
    type Value = W;
    const EXPECTED: &'static str = W::EXPECTED;

    fn read(text: &str) -> Result<W, ValueError> {
        let known = Self::WORDS.iter().find(|(word, _)| *word == text);
        known.map(|(_, value)| *value).ok_or_else(|| W::mistake(text))
    }

    fn write(value: &W) -> TextOrNumber {
        let known = Self::WORDS.iter().find(|(_, known)| known == value);
        TextOrNumber::Text(known.map_or_else(String::new, |(word, _)| (*word).to_owned()))
    }

    fn words() -> Vec<&'static str> {
        Self::WORDS.iter().map(|(word, _)| *word).collect()
    }
}

/// Serde adapter of a field: `#[serde(with = "As::<WholeNumber>")]`, `As::<Option<Duration>>`, `As::<Vec<IpNet>>`.
pub(super) struct As<F>(PhantomData<F>);

impl<F> As<F> {
    pub(super) fn serialize<T, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error>
    where
        F: Format<T>,
    {
        F::write(value, serializer)
    }

    pub(super) fn deserialize<'de, T, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error>
    where
        F: Format<T>,
    {
        F::read(deserializer)
    }
}

/// Serde format of a `T`.
pub(super) trait Format<T> {
    fn write<S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error>;
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error>;
}

/// Schema of a format.
pub(super) trait DescribedValue {
    fn schema() -> Schema;
}

impl<F: DescribedValue> JsonSchema for As<F> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed(std::any::type_name::<F>())
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        F::schema()
    }
}

/// A field may be a wider number than the leaf reads.
impl<L: ConfigValue, T> Format<T> for L
where
    T: Clone + TryFrom<L::Value>,
    L::Value: TryFrom<T>,
{
    fn write<S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        let value = value.clone().try_into().map_err(|_| ser::Error::custom("out of range"))?;
        match L::write(&value) {
            TextOrNumber::Text(text) => serializer.serialize_str(&text),
            TextOrNumber::Number(number) => serializer.serialize_u64(number),
        }
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        let value = deserializer.deserialize_any(ConfigValueVisitor::<L>(PhantomData))?;
        value.try_into().map_err(|_| de::Error::custom("this is more than fits here\nwrite less"))
    }
}

impl<L: ConfigValue> DescribedValue for L {
    fn schema() -> Schema {
        let mut schema = match L::FORM {
            ValueForm::Text => json_schema!({ "type": "string" }),
            ValueForm::Number => {
                json_schema!({ "type": "integer", "minimum": L::RANGE.0, "maximum": L::RANGE.1 })
            }
            ValueForm::TextOrNumber => json_schema!({ "type": ["string", "integer"] }),
        };
        schema.insert("title".to_owned(), L::EXPECTED.into());
        let words = L::words();
        if !words.is_empty() {
            schema.insert("enum".to_owned(), words.into());
        }
        if !L::EXAMPLES.is_empty() {
            schema.insert("examples".to_owned(), L::EXAMPLES.into());
        }
        schema
    }
}

struct ConfigValueVisitor<L>(PhantomData<L>);

impl<L: ConfigValue> Visitor<'_> for ConfigValueVisitor<L> {
    type Value = L::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(L::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<L::Value, E> {
        if L::FORM == ValueForm::Number {
            return Err(E::invalid_type(de::Unexpected::Str(text), &self));
        }
        L::read(text).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<L::Value, E> {
        if L::FORM == ValueForm::Text {
            return Err(E::invalid_type(de::Unexpected::Signed(number), &self));
        }
        L::read(&number.to_string()).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<L::Value, E> {
        if L::FORM == ValueForm::Text {
            return Err(E::invalid_type(de::Unexpected::Unsigned(number), &self));
        }
        L::read(&number.to_string()).map_err(E::custom)
    }
}

/// Key that may be left out. TOML has no null: a present value is always `Some`.
impl<T, F: Format<T>> Format<Option<T>> for Option<F> {
    fn write<S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => F::write(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
        F::read(deserializer).map(Some)
    }
}

impl<F: DescribedValue> DescribedValue for Option<F> {
    fn schema() -> Schema {
        F::schema()
    }
}

/// Value with its format, where serde needs a type.
struct Formatted<F, T>(T, PhantomData<F>);

impl<'de, T, F: Format<T>> Deserialize<'de> for Formatted<F, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        F::read(deserializer).map(|value| Self(value, PhantomData))
    }
}

impl<T, F: Format<T>> Serialize for Formatted<F, &T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        F::write(self.0, serializer)
    }
}

impl<T, F: Format<T>> Format<Vec<T>> for Vec<F> {
    fn write<S: Serializer>(values: &Vec<T>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|value| Formatted::<F, &T>(value, PhantomData)))
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
        let values = Vec::<Formatted<F, T>>::deserialize(deserializer)?;
        Ok(values.into_iter().map(|value| value.0).collect())
    }
}

impl<F: DescribedValue> DescribedValue for Vec<F> {
    fn schema() -> Schema {
        json_schema!({ "type": "array", "items": F::schema() })
    }
}

/// A value or a list of values.
pub(super) struct OneOrMany<F>(PhantomData<F>);

impl<T, F: Format<T>> Format<Vec<T>> for OneOrMany<F> {
    fn write<S: Serializer>(values: &Vec<T>, serializer: S) -> Result<S::Ok, S::Error> {
        <Vec<F> as Format<Vec<T>>>::write(values, serializer)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor::<F, T>(PhantomData))
    }
}

impl<F: DescribedValue> DescribedValue for OneOrMany<F> {
    fn schema() -> Schema {
        json_schema!({ "anyOf": [F::schema(), { "type": "array", "items": F::schema() }] })
    }
}

/// Hand-written, because the error of an untagged enum would have no place.
struct OneOrManyVisitor<F, T>(PhantomData<(F, T)>);

impl<'de, T, F: Format<T>> Visitor<'de> for OneOrManyVisitor<F, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one value or a list of them")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
        F::read(de::value::StrDeserializer::new(text)).map(|value| vec![value])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element::<Formatted<F, T>>()? {
            values.push(value.0);
        }
        Ok(values)
    }
}

/// Word among `words` that was probably meant.
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
