//! From a formatted event to a line: secrets blacked out, control characters made visible, written by another thread.

use std::borrow::Cow;
use std::io;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use tracing_appender::non_blocking::NonBlocking;
use tracing_subscriber::fmt::MakeWriter;

/// Makes lines of events and queues them. What the queue does not hold is dropped and counted.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    pub(super) queue: NonBlocking,
    /// The lines may carry colours of our own.
    pub(super) coloured: bool,
}

/// One event on its way.
#[derive(Debug)]
pub(super) struct Line<'a>(&'a Lines);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self)
    }
}

impl io::Write for Line<'_> {
    /// `event` is a whole event: tracing-subscriber writes each in one piece.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let clean = visible(redacted(line), self.0.coloured);
        let mut out = String::with_capacity(clean.len() + 1);
        out.push_str(&clean);
        out.push('\n');
        self.0.queue.clone().write_all(out.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a secret is called, where its value follows; a scheme of `Authorization`; a name and password in a URL.
///
/// A name counts from its end, so that `access_token` and `X-Amz-Signature` are found as well.
static SECRET: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let named = r"(?:token|secret|password|passwd|pwd|signature|sig|api[_-]?key|apikey|session(?:id)?|jwt)";
    let fields = r#"(?:authorization|cookie)\\?["']?\s*[=:]\s*\\?["']?"#;
    let pattern = format!(
        r#"(?i)(?P<field>{fields})[^"'\\]+|(?P<name>{named}(?:=|%3d|\\?["']?:\s*\\?["']?))[^\s&"'<>#;,\\)}}\]]+|(?P<scheme>\b(?:bearer|basic) )[a-z0-9._~+/=-]{{6,}}|(?P<url>://)[^\s/@:"']*:[^\s/@"']*@"#
    );
    Regex::new(&pattern).ok()
});

/// SECURITY: a query may carry a token, and a message may quote a URL that does.
fn redacted(line: &str) -> Cow<'_, str> {
    let Some(secret) = &*SECRET else { return Cow::Borrowed(line) };
    secret.replace_all(line, |found: &Captures<'_>| {
        let kept = ["field", "name", "scheme"].iter().find_map(|group| found.name(group));
        match kept {
            Some(kept) => format!("{}[redacted]", kept.as_str()),
            None => "://[redacted]@".to_owned(),
        }
    })
}

/// SECURITY: whoever can put a line break into a log can write lines of his own, and an escape can do worse to the
/// terminal of who reads it. JSON has none of them left; in text they are shown as they are written in Rust.
fn visible(line: Cow<'_, str>, coloured: bool) -> Cow<'_, str> {
    // tracing-subscriber escapes those of values; what is left are our own colours.
    let stays = |c: char| !is_control(c) || (coloured && c == '\u{1b}');
    if line.chars().all(stays) {
        return line;
    }
    let mut out = String::with_capacity(line.len() + 16);
    for c in line.chars() {
        if stays(c) { out.push(c) } else { out.extend(c.escape_default()) }
    }
    Cow::Owned(out)
}

/// Control characters, line and paragraph separators, and those that turn the direction of text.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_blacked_out_wherever_they_stand() {
        for (line, clean) in [
            ("path=/a?token=abc&x=1", "path=/a?token=[redacted]&x=1"),
            ("GET /a?x=1&Access_Token=abc end", "GET /a?x=1&Access_Token=[redacted] end"),
            (r#"{"query":"sig=a%2Bb","path":"/x"}"#, r#"{"query":"sig=[redacted]","path":"/x"}"#),
            (r#"{"password":"a b"}"#, r#"{"password":"[redacted] b"}"#),
            ("X-Amz-Signature=00ff;", "X-Amz-Signature=[redacted];"),
            ("Authorization: Bearer abc.def", "Authorization: [redacted]"),
            (r#""cookie":"a=1; b=2""#, r#""cookie":"[redacted]""#),
            ("said bearer abcdef.123", "said bearer [redacted]"),
            ("redis://me:secret@host/0", "redis://[redacted]@host/0"),
            ("u=%3Ftoken%3Dabc", "u=%3Ftoken%3D[redacted]"),
        ] {
            assert_eq!(redacted(line), clean);
        }
        for plain in [
            "request=0af7651916cd43dd identifier=88c02c4f-cb78 status=200 duration_ms=3",
            "https://x.test:8080/iiif/2/a;1/full/max/0/default.jpg",
            "a token was spent, and a basic thing",
        ] {
            assert!(matches!(redacted(plain), Cow::Borrowed(_)), "{plain}");
        }
    }

    #[test]
    fn a_line_stays_one_line_and_cannot_speak_to_the_terminal() {
        let evil = "a\nb\r\u{1b}[2Jc\u{9b}d\u{202e}e\u{2028}f\tg";
        let shown = visible(Cow::Borrowed(evil), false);
        assert_eq!(shown, r"a\nb\r\u{1b}[2Jc\u{9b}d\u{202e}e\u{2028}f\tg");
        assert_eq!(
            visible(Cow::Borrowed("\u{1b}[32m INFO\u{1b}[0m x\ny"), true),
            "\u{1b}[32m INFO\u{1b}[0m x\\ny"
        );
        assert!(matches!(visible(Cow::Borrowed("Æ 漢 plain"), false), Cow::Borrowed(_)));
    }
}
