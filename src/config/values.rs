//! Formats of the plain values of the file: times, sizes, counts, names, paths and patterns. Network values are in
//! `addresses`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use http::{HeaderName, HeaderValue};
use regex::Regex;
use tracing_subscriber::EnvFilter;

use super::value::{ConfigValue, TextOrNumber, ValueError, ValueForm};

/// The longest span of time. Longer ones are slips of the pen, and overflow where they are added to a clock.
const LONGEST: Duration = Duration::from_hours(366 * 24);

/// Duration of so many seconds, for defaults.
pub(super) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl ConfigValue for Duration {
    type Value = Self;
    const EXPECTED: &'static str = "a duration such as \"25s\"";
    const EXAMPLES: &'static [&'static str] = &["500ms", "25s", "10m", "1h"];

    fn read(text: &str) -> Result<Self, ValueError> {
        let help = "write a number and a unit, such as \"500ms\", \"25s\", \"10m\" or \"1h\"";
        let time = humantime::parse_duration(text)
            .map_err(|_| ValueError::new(format!("`{text}` is not a duration"), help))?;
        if time > LONGEST {
            return Err(ValueError::new(format!("`{text}` is longer than a year"), help));
        }
        Ok(time)
    }

    fn write(value: &Self) -> TextOrNumber {
        TextOrNumber::Text(humantime::format_duration(*value).to_string())
    }
}

/// A number of bytes.
pub(super) struct Size;

/// More than this is never held in memory on purpose.
const LARGEST: u64 = 1 << 40;

impl ConfigValue for Size {
    type Value = u64;
    const EXPECTED: &'static str = "a size such as \"64KiB\"";
    const EXAMPLES: &'static [&'static str] = &["8KiB", "64KiB", "1MiB"];
    const FORM: ValueForm = ValueForm::TextOrNumber;

    fn read(text: &str) -> Result<u64, ValueError> {
        let help = "write a number of bytes or a number and a unit, such as \"64KiB\" or \"1MiB\"";
        match text.parse::<ByteSize>() {
            Ok(ByteSize(bytes)) if bytes <= LARGEST => Ok(bytes),
            Ok(_) => Err(ValueError::new(format!("`{text}` is more than 1 TiB"), help)),
            Err(_) => Err(ValueError::new(format!("`{text}` is not a size"), help)),
        }
    }

    fn write(value: &u64) -> TextOrNumber {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let fitting = units.into_iter().find(|(unit, _)| *value > 0 && value.is_multiple_of(*unit));
        match fitting {
            Some((unit, name)) => TextOrNumber::Text(format!("{}{name}", *value / unit)),
            None => TextOrNumber::Number(*value),
        }
    }
}

/// A whole number, zero included.
pub(super) struct WholeNumber;

impl ConfigValue for WholeNumber {
    type Value = u32;
    const EXPECTED: &'static str = "a whole number";
    const FORM: ValueForm = ValueForm::Number;
    const RANGE: (u64, u64) = (0, u32::MAX as u64);

    fn read(text: &str) -> Result<u32, ValueError> {
        text.parse().map_err(|_| {
            ValueError::new(
                format!("`{text}` is out of range"),
                format!("write a whole number from 0 to {}", u32::MAX),
            )
        })
    }

    fn write(value: &u32) -> TextOrNumber {
        TextOrNumber::Number(u64::from(*value))
    }
}

/// An HTTP status that may mean that an image needs healing.
pub(super) struct ExpiryStatus;

impl ConfigValue for ExpiryStatus {
    type Value = u16;
    const EXPECTED: &'static str = "a status such as 404";
    const FORM: ValueForm = ValueForm::Number;
    const RANGE: (u64, u64) = (400, 599);

    fn read(text: &str) -> Result<u16, ValueError> {
        match text.parse::<u16>() {
            Ok(status @ (401 | 403)) => Err(ValueError::new(
                format!("{status} must not be healed"),
                "take it out: the image server says with it that the viewer may not see the image, \
                 and healing must not walk around that",
            )),
            Ok(status @ 400..=599) => Ok(status),
            _ => Err(ValueError::new(
                format!("{text} is not the status of an error"),
                "write statuses from 400 to 599, such as [404]",
            )),
        }
    }

    fn write(value: &u16) -> TextOrNumber {
        TextOrNumber::Number(u64::from(*value))
    }
}

/// Status by which a server reports that it is well.
pub(super) struct SuccessStatus;

impl ConfigValue for SuccessStatus {
    type Value = u16;
    const EXPECTED: &'static str = "a status such as 200";
    const FORM: ValueForm = ValueForm::Number;
    const RANGE: (u64, u64) = (200, 499);

    fn read(text: &str) -> Result<u16, ValueError> {
        text.parse().ok().filter(|status| (200..=499).contains(status)).ok_or_else(|| {
            ValueError::new(
                format!("{text} is not the status of a server that is well"),
                "write a status from 200 to 499, such as 200",
            )
        })
    }

    fn write(value: &u16) -> TextOrNumber {
        TextOrNumber::Number(u64::from(*value))
    }
}

impl ConfigValue for PathBuf {
    type Value = Self;
    const EXPECTED: &'static str = "a path";

    fn read(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() || text.contains('\0') {
            return Err(ValueError::new(
                "this is not a path",
                "write the path of a file or directory; relative ones are relative to the folder of the configuration file",
            ));
        }
        Ok(Self::from(text))
    }

    fn write(value: &Self) -> TextOrNumber {
        TextOrNumber::Text(value.to_string_lossy().into_owned())
    }
}

/// An RFC 9110 token.
pub(super) struct Token;

impl ConfigValue for Token {
    type Value = String;
    const EXPECTED: &'static str = "a name such as \"iiif-mender\"";

    fn read(text: &str) -> Result<String, ValueError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if text.is_empty() || !text.chars().all(allowed) {
            return Err(ValueError::new(
                format!("`{text}` cannot stand in a Via header"),
                "use letters, digits and - . _ only",
            ));
        }
        Ok(text.to_owned())
    }

    fn write(value: &String) -> TextOrNumber {
        TextOrNumber::Text(value.clone())
    }
}

impl ConfigValue for HeaderName {
    type Value = Self;
    const EXPECTED: &'static str = "the name of a header such as \"x-no-heal\"";

    fn read(text: &str) -> Result<Self, ValueError> {
        text.parse().map_err(|_| {
            ValueError::new(
                format!("`{text}` is not the name of a header"),
                "write the name alone, such as \"x-no-heal\"",
            )
        })
    }

    fn write(value: &Self) -> TextOrNumber {
        TextOrNumber::Text(value.to_string())
    }
}

/// A regular expression that can be compared; matches anywhere unless anchored, as grep does.
#[derive(Debug, Clone)]
pub struct Pattern(pub Regex);

impl Pattern {
    /// True if the pattern occurs in `text`.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl ConfigValue for Pattern {
    type Value = Self;
    const EXPECTED: &'static str = "a regular expression such as \"^[0-9a-f-]{36}$\"";

    fn read(text: &str) -> Result<Self, ValueError> {
        Regex::new(text).map(Self).map_err(|error| {
            // The last line of regex's message is the error; the drawing above it is replaced by ours.
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            ValueError::new(
                format!("`{text}` is not a regular expression: {why}"),
                "see https://docs.rs/regex/latest/regex/#syntax; single quotes keep backslashes as they are",
            )
        })
    }

    fn write(value: &Self) -> TextOrNumber {
        TextOrNumber::Text(value.0.as_str().to_owned())
    }
}

impl ConfigValue for HeaderValue {
    type Value = Self;
    const EXPECTED: &'static str = "the value of a header";

    fn read(text: &str) -> Result<Self, ValueError> {
        // SECURITY: the text itself is not repeated, because it may be a key.
        let wrong = || {
            ValueError::new(
                "this cannot be the value of a header",
                "write it in one line of plain characters, such as \"Bearer 1234\"",
            )
        };
        let mut value = Self::from_str(text).map_err(|_| wrong())?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn write(value: &Self) -> TextOrNumber {
        TextOrNumber::Text(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }
}

/// A piece of a path with a slash at both ends.
pub(super) struct PathPiece;

impl ConfigValue for PathPiece {
    type Value = String;
    const EXPECTED: &'static str = "a piece of a path such as \"/files/\"";

    fn read(text: &str) -> Result<String, ValueError> {
        let good = text.starts_with('/')
            && text.ends_with('/')
            && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
        if !good {
            return Err(ValueError::new(
                format!("`{text}` is not a piece of a path"),
                "begin and end it with a slash, such as \"/files/\"",
            ));
        }
        Ok(text.to_owned())
    }

    fn write(value: &String) -> TextOrNumber {
        TextOrNumber::Text(value.clone())
    }
}

/// A `tracing` filter.
pub(super) struct LogFilter;

impl ConfigValue for LogFilter {
    type Value = String;
    const EXPECTED: &'static str = "a log filter such as \"info\"";
    const EXAMPLES: &'static [&'static str] = &["info", "warn,iiif_mender=debug"];

    fn read(text: &str) -> Result<String, ValueError> {
        let help = "write a level (error, warn, info, debug, trace, off), or levels per target such as \"info,iiif_mender=debug\"";
        EnvFilter::try_new(text)
            .map(|_| text.to_owned())
            .map_err(|_| ValueError::new(format!("`{text}` is not a log filter"), help))
    }

    fn write(value: &String) -> TextOrNumber {
        TextOrNumber::Text(value.clone())
    }
}

/// Secret that must not get into a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl ConfigValue for Secret {
    type Value = Self;
    const EXPECTED: &'static str = "a text";

    fn read(text: &str) -> Result<Self, ValueError> {
        Ok(Self(text.to_owned()))
    }

    fn write(value: &Self) -> TextOrNumber {
        TextOrNumber::Text(value.0.clone())
    }
}
