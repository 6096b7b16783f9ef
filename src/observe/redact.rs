//! Secrets in values of log lines, blacked out field by field.
//!
//! A value is cleaned before it becomes part of a line: text that a viewer writes into one value never hides another one.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Endings of a secret's name, so that `access_token` and `X-Amz-Signature` are found as well.
const SECRET_NAMES: &str =
    r"(?:token|secret|password|passwd|pwd|signature|sig|api[_-]?key|apikey|session(?:id)?|jwt)";

/// A name and a password in a URL.
const URL_PASSWORD: &str = r#"(?P<url>://)[^\s/@:"']*:[^\s/@"']*@"#;

/// Fields whose value is a URL or a part of one. Viewers write them, and no header stands in them.
const URLS: [&str; 11] = [
    "path",
    "query",
    "url",
    "uri",
    "instance",
    "identifier",
    "canvas",
    "manifest",
    "source",
    "location",
    "upstream",
];

/// The name of a field that is a secret as a whole.
static SECRET_NAME: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(&format!("(?i)^(?:(?:proxy[-_])?authorization|(?:set[-_])?cookie|.*{SECRET_NAMES})$")).ok()
});

/// `token=…` in a path ends with its segment.
static IN_PATH: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(&format!(r#"(?i)(?P<kept>{SECRET_NAMES}(?:=|%3d))[^\s&"'<>#;,\\)}}\]/]+|{URL_PASSWORD}"#)).ok()
});

/// `token=…` in a query ends with its pair.
static IN_QUERY: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(&format!(r#"(?i)(?P<kept>{SECRET_NAMES}(?:=|%3d))[^\s&"'<>#;,\\)}}\]]+|{URL_PASSWORD}"#)).ok()
});

/// A message may quote a whole URL, and a header with its name.
static IN_TEXT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    // A header's name begins a word; in a path a slash stands before it.
    let header = r#"(?P<header>(?:^|[\s"'{\[(,;])(?:(?:proxy-)?authorization|(?:set-)?cookie)\\?["']?\s*[=:]\s*\\?["']?)[^"'\\]+"#;
    let pair = format!(r#"(?P<kept>{SECRET_NAMES}(?:=|%3d|\\?["']?:\s*\\?["']?))[^\s&"'<>#;,\\)}}\]]+"#);
    let scheme = r"(?P<scheme>\b(?:bearer|basic) )[a-z0-9._~+/=-]{6,}";
    Regex::new(&format!("(?i){header}|{pair}|{scheme}|{URL_PASSWORD}")).ok()
});

/// The value of the field with this name, without its secrets.
///
/// SECURITY: a query may carry a token, and a message may quote a URL that does.
pub(super) fn redacted<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    if SECRET_NAME.as_ref().is_some_and(|secret| secret.is_match(name)) {
        return Cow::Borrowed("[redacted]");
    }
    if !URLS.contains(&name) {
        return replaced(&IN_TEXT, value);
    }
    if name == "query" {
        return replaced(&IN_QUERY, value);
    }
    let Some((path, query)) = value.split_once('?') else { return replaced(&IN_PATH, value) };
    match (replaced(&IN_PATH, path), replaced(&IN_QUERY, query)) {
        (Cow::Borrowed(_), Cow::Borrowed(_)) => Cow::Borrowed(value),
        (path, query) => Cow::Owned(format!("{path}?{query}")),
    }
}

fn replaced<'a>(secret: &LazyLock<Option<Regex>>, value: &'a str) -> Cow<'a, str> {
    let Some(secret) = &**secret else { return Cow::Borrowed(value) };
    secret.replace_all(value, |found: &Captures<'_>| {
        let kept = ["header", "kept", "scheme"].iter().find_map(|group| found.name(group));
        match kept {
            Some(kept) => format!("{}[redacted]", kept.as_str()),
            None => "://[redacted]@".to_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_blacked_out_wherever_they_stand() {
        for (name, value, clean) in [
            ("query", "token=abc&x=1", "token=[redacted]&x=1"),
            ("query", "x=1&Access_Token=a/b+c", "x=1&Access_Token=[redacted]"),
            ("query", "sig=a%2Bb", "sig=[redacted]"),
            ("query", "u=%3Ftoken%3Dabc", "u=%3Ftoken%3D[redacted]"),
            ("url", "https://a.test/x?y=1&key=2&api_key=3", "https://a.test/x?y=1&key=2&api_key=[redacted]"),
            ("path", "/a/token=abc/full/max", "/a/token=[redacted]/full/max"),
            ("path", "/http://me:secret@host/x", "/http://[redacted]@host/x"),
            ("password", "a b", "[redacted]"),
            ("authorization", "Digest a=\"b\"", "[redacted]"),
            ("x_api_key", "abc", "[redacted]"),
            ("message", "GET /a?x=1&Access_Token=abc end", "GET /a?x=1&Access_Token=[redacted] end"),
            ("message", "X-Amz-Signature=00ff;", "X-Amz-Signature=[redacted];"),
            ("error", "Authorization: Bearer abc.def", "Authorization: [redacted]"),
            ("error", r#"{"cookie": "a=1; b=2", "x": 1}"#, r#"{"cookie": "[redacted]", "x": 1}"#),
            ("error", "said bearer abcdef.123", "said bearer [redacted]"),
            ("error", "redis://me:secret@host/0", "redis://[redacted]@host/0"),
        ] {
            assert_eq!(redacted(name, value), clean, "{name}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for (name, value) in [
            ("request", "0af7651916cd43dd"),
            ("path", "/iiif/authorization:x/full/max/0/default.jpg"),
            ("path", "/iiif/cookie=x/full/max/0/default.jpg"),
            ("path", "/iiif/bearer abcdefgh/full"),
            ("url", "https://x.test:8080/iiif/2/a;1/full/max/0/default.jpg"),
            ("query", "authorization:x&b=1"),
            ("error", "https://x.test/authorization:x/y cannot be fetched"),
            ("message", "a token was spent, and a basic thing"),
        ] {
            assert!(matches!(redacted(name, value), Cow::Borrowed(same) if same == value), "{name}={value}");
        }
    }
}
