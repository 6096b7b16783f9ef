//! How the plain values of the file are read and written: times, sizes, counts, words, paths and patterns.
//! Everything that names a place on the network is in `addresses`.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use http::{HeaderName, HeaderValue};
use regex::Regex;
use tracing_subscriber::EnvFilter;

use super::leaf::{Form, Leaf, Mistake, Written, similar};
use super::settings::{AccessLog, Http2, LogFormat, Pattern, RouteKind, Rung};

pub use super::addresses::{HostName, HttpUrl, MaybeListen, Prefix};
pub use super::redis::{RedisUrl, Secret};

/// The longest span of time. Longer ones are slips of the pen, and overflow where they are added to a clock.
const LONGEST: Duration = Duration::from_hours(366 * 24);

impl Leaf for Duration {
    const EXPECTED: &'static str = "a duration such as \"25s\"";
    const EXAMPLES: &'static [&'static str] = &["500ms", "25s", "10m", "1h"];

    fn read(text: &str) -> Result<Self, Mistake> {
        let help = "write a number and a unit, such as \"500ms\", \"25s\", \"10m\" or \"1h\"";
        let time = humantime::parse_duration(text)
            .map_err(|_| Mistake::new(format!("`{text}` is not a duration"), help))?;
        if time > LONGEST {
            return Err(Mistake::new(format!("`{text}` is longer than a year"), help));
        }
        Ok(time)
    }

    fn write(&self) -> Written {
        Written::Text(humantime::format_duration(*self).to_string())
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

/// More than this is never held in memory on purpose.
const LARGEST: u64 = 1 << 40;

impl Leaf for Size {
    const EXPECTED: &'static str = "a size such as \"64KiB\"";
    const EXAMPLES: &'static [&'static str] = &["8KiB", "64KiB", "1MiB"];
    const FORM: Form = Form::TextOrNumber;

    fn read(text: &str) -> Result<Self, Mistake> {
        let help = "write a number of bytes or a number and a unit, such as \"64KiB\" or \"1MiB\"";
        match text.parse::<ByteSize>() {
            Ok(ByteSize(bytes)) if bytes <= LARGEST => Ok(Self(bytes)),
            Ok(_) => Err(Mistake::new(format!("`{text}` is more than 1 TiB"), help)),
            Err(_) => Err(Mistake::new(format!("`{text}` is not a size"), help)),
        }
    }

    fn write(&self) -> Written {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let fitting = units.into_iter().find(|(unit, _)| self.0 > 0 && self.0.is_multiple_of(*unit));
        match fitting {
            Some((unit, name)) => Written::Text(format!("{}{name}", self.0 / unit)),
            None => Written::Number(self.0),
        }
    }
}

/// A whole number, zero included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count(pub u32);

impl Leaf for Count {
    const EXPECTED: &'static str = "a whole number";
    const FORM: Form = Form::Number;
    const RANGE: (u64, u64) = (0, u32::MAX as u64);

    fn read(text: &str) -> Result<Self, Mistake> {
        text.parse().map(Self).map_err(|_| {
            Mistake::new(
                format!("`{text}` is out of range"),
                format!("write a whole number from 0 to {}", u32::MAX),
            )
        })
    }

    fn write(&self) -> Written {
        Written::Number(u64::from(self.0))
    }
}

/// An HTTP status that may mean that an image needs healing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u16);

impl Leaf for Status {
    const EXPECTED: &'static str = "a status such as 404";
    const FORM: Form = Form::Number;
    const RANGE: (u64, u64) = (400, 599);

    fn read(text: &str) -> Result<Self, Mistake> {
        match text.parse::<u16>() {
            Ok(status @ (401 | 403)) => Err(Mistake::new(
                format!("{status} must not be healed"),
                "take it out: the image server says with it that the viewer may not see the image, \
                 and healing must not walk around that",
            )),
            Ok(status @ 400..=599) => Ok(Self(status)),
            _ => Err(Mistake::new(
                format!("{text} is not the status of an error"),
                "write statuses from 400 to 599, such as [404]",
            )),
        }
    }

    fn write(&self) -> Written {
        Written::Number(u64::from(self.0))
    }
}

/// The status by which a server says that it is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoodStatus(pub u16);

impl Leaf for GoodStatus {
    const EXPECTED: &'static str = "a status such as 200";
    const FORM: Form = Form::Number;
    const RANGE: (u64, u64) = (200, 499);

    fn read(text: &str) -> Result<Self, Mistake> {
        text.parse().ok().filter(|status| (200..=499).contains(status)).map(Self).ok_or_else(|| {
            Mistake::new(
                format!("{text} is not the status of a server that is well"),
                "write a status from 200 to 499, such as 200",
            )
        })
    }

    fn write(&self) -> Written {
        Written::Number(u64::from(self.0))
    }
}

impl Leaf for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn read(text: &str) -> Result<Self, Mistake> {
        if text.is_empty() || text.contains('\0') {
            return Err(Mistake::new(
                "this is not a path",
                "write the path of a file or directory; relative ones are relative to the folder of the configuration file",
            ));
        }
        Ok(Self::from(text))
    }

    fn write(&self) -> Written {
        Written::Text(self.to_string_lossy().into_owned())
    }
}

/// An RFC 9110 token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token(pub String);

impl Leaf for Token {
    const EXPECTED: &'static str = "a name such as \"iiif-mender\"";

    fn read(text: &str) -> Result<Self, Mistake> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if text.is_empty() || !text.chars().all(allowed) {
            return Err(Mistake::new(
                format!("`{text}` cannot stand in a Via header"),
                "use letters, digits and - . _ only",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    fn write(&self) -> Written {
        Written::Text(self.0.clone())
    }
}

impl Leaf for HeaderName {
    const EXPECTED: &'static str = "the name of a header such as \"x-no-heal\"";

    fn read(text: &str) -> Result<Self, Mistake> {
        text.parse().map_err(|_| {
            Mistake::new(
                format!("`{text}` is not the name of a header"),
                "write the name alone, such as \"x-no-heal\"",
            )
        })
    }

    fn write(&self) -> Written {
        Written::Text(self.to_string())
    }
}

impl Leaf for Pattern {
    const EXPECTED: &'static str = "a regular expression such as \"^[0-9a-f-]{36}$\"";

    fn read(text: &str) -> Result<Self, Mistake> {
        Regex::new(text).map(Self).map_err(|error| {
            // The last line of regex's drawing says what is wrong; the drawing itself is ours to make.
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Mistake::new(
                format!("`{text}` is not a regular expression: {why}"),
                "see https://docs.rs/regex/latest/regex/#syntax; single quotes keep backslashes as they are",
            )
        })
    }

    fn write(&self) -> Written {
        Written::Text(self.0.as_str().to_owned())
    }
}

impl Leaf for HeaderValue {
    const EXPECTED: &'static str = "the value of a header";

    fn read(text: &str) -> Result<Self, Mistake> {
        // SECURITY: the text itself is not repeated, it may be a key.
        let wrong = || {
            Mistake::new(
                "this cannot be the value of a header",
                "write it in one line of plain characters, such as \"Bearer 1234\"",
            )
        };
        let mut value = Self::from_str(text).map_err(|_| wrong())?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn write(&self) -> Written {
        Written::Text(String::from_utf8_lossy(self.as_bytes()).into_owned())
    }
}

/// A piece of a path with a slash at both ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slashed(pub String);

impl Leaf for Slashed {
    const EXPECTED: &'static str = "a piece of a path such as \"/files/\"";

    fn read(text: &str) -> Result<Self, Mistake> {
        let good = text.starts_with('/')
            && text.ends_with('/')
            && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
        if !good {
            return Err(Mistake::new(
                format!("`{text}` is not a piece of a path"),
                "begin and end it with a slash, such as \"/files/\"",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    fn write(&self) -> Written {
        Written::Text(self.0.clone())
    }
}

/// A `tracing` filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(pub String);

impl Leaf for Filter {
    const EXPECTED: &'static str = "a log filter such as \"info\"";
    const EXAMPLES: &'static [&'static str] = &["info", "warn,iiif_mender=debug"];

    fn read(text: &str) -> Result<Self, Mistake> {
        let help = "write a level (error, warn, info, debug, trace, off), or levels per target such as \"info,iiif_mender=debug\"";
        EnvFilter::try_new(text)
            .map(|_| Self(text.to_owned()))
            .map_err(|_| Mistake::new(format!("`{text}` is not a log filter"), help))
    }

    fn write(&self) -> Written {
        Written::Text(self.0.clone())
    }
}

/// Reads one of a few words.
fn word<T: Copy>(text: &str, what: &str, words: &[&'static str], values: &[T]) -> Result<T, Mistake> {
    if let Some((_, value)) = words.iter().zip(values).find(|(word, _)| **word == text) {
        return Ok(*value);
    }
    let help = match similar(text, words.iter().copied()) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("write one of \"{}\"", words.join("\", \"")),
    };
    Err(Mistake::new(format!("`{text}` is not {what}"), help))
}

/// Writes one of a few words.
fn written<T: PartialEq>(value: &T, words: &[&'static str], values: &[T]) -> Written {
    let known = words.iter().zip(values).find(|(_, known)| *known == value);
    Written::Text(known.map_or_else(String::new, |(word, _)| (*word).to_owned()))
}

const RUNGS: [Rung; 5] = [Rung::Direct, Rung::Register, Rung::Variant, Rung::Visit, Rung::Rebuild];
const KINDS: [RouteKind; 3] = [RouteKind::Image, RouteKind::Presentation, RouteKind::Plain];
const HTTP2: [Http2; 3] = [Http2::Off, Http2::Auto, Http2::Always];
const ACCESS: [AccessLog; 4] = [AccessLog::Off, AccessLog::Errors, AccessLog::Sampled, AccessLog::All];
const FORMATS: [LogFormat; 3] = [LogFormat::Auto, LogFormat::Text, LogFormat::Json];

impl Leaf for Rung {
    const EXPECTED: &'static str = "a rung such as \"visit\"";
    const WORDS: &'static [&'static str] = &["direct", "register", "variant", "visit", "rebuild"];

    fn read(text: &str) -> Result<Self, Mistake> {
        word(text, "a rung of the ladder", Self::WORDS, &RUNGS)
    }

    fn write(&self) -> Written {
        written(self, Self::WORDS, &RUNGS)
    }
}

impl Leaf for RouteKind {
    const EXPECTED: &'static str = "a kind of route such as \"image\"";
    const WORDS: &'static [&'static str] = &["image", "presentation", "plain"];

    fn read(text: &str) -> Result<Self, Mistake> {
        word(text, "a kind of route", Self::WORDS, &KINDS)
    }

    fn write(&self) -> Written {
        written(self, Self::WORDS, &KINDS)
    }
}

impl Leaf for Http2 {
    const EXPECTED: &'static str = "\"off\", \"auto\" or \"always\"";
    const WORDS: &'static [&'static str] = &["off", "auto", "always"];

    fn read(text: &str) -> Result<Self, Mistake> {
        word(text, "a way to speak HTTP/2", Self::WORDS, &HTTP2)
    }

    fn write(&self) -> Written {
        written(self, Self::WORDS, &HTTP2)
    }
}

impl Leaf for AccessLog {
    const EXPECTED: &'static str = "\"off\", \"errors\", \"sampled\" or \"all\"";
    const WORDS: &'static [&'static str] = &["off", "errors", "sampled", "all"];

    fn read(text: &str) -> Result<Self, Mistake> {
        word(text, "a choice of requests for the log", Self::WORDS, &ACCESS)
    }

    fn write(&self) -> Written {
        written(self, Self::WORDS, &ACCESS)
    }
}

impl Leaf for LogFormat {
    const EXPECTED: &'static str = "a log format such as \"auto\"";
    const WORDS: &'static [&'static str] = &["auto", "text", "json"];

    fn read(text: &str) -> Result<Self, Mistake> {
        word(text, "a log format", Self::WORDS, &FORMATS)
    }

    fn write(&self) -> Written {
        written(self, Self::WORDS, &FORMATS)
    }
}
