//! Request heads that hyper cannot parse, and the substitute requests for them.
//!
//! hyper answers such a head itself, with a bare status: without CORS, so that a script sees a network error; without an id
//! and without a line in the log. So hyper's answer is held back (`tracked_io`), and a valid substitute request is parsed in
//! place of the head (`http`), marked with the status that hyper chose. A substitute never goes to an upstream.

use bytes::Bytes;
use http::StatusCode;

/// Bytes of a head that are kept, so that its answer and the log can name the request.
pub(super) const LONGEST: usize = 1024;

/// Fields that the answer or the log may depend on.
const KEPT: [&str; 9] = [
    "accept",
    "authorization",
    "cookie",
    "forwarded",
    "host",
    "origin",
    "traceparent",
    "x-forwarded-for",
    "x-request-id",
];

/// The status that hyper chose for a head that it cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MalformedStatus(pub(super) StatusCode);

impl MalformedStatus {
    /// Status of an answer, from its first bytes; `None`: no answer.
    pub(super) fn of(answer: &[u8]) -> Option<Self> {
        let status = answer.strip_prefix(b"HTTP/1.")?.get(2..5)?;
        StatusCode::from_bytes(status).ok().filter(StatusCode::is_client_error).map(Self)
    }
}

/// True if this is no head of HTTP/1 at all, but claims another protocol: a broken preface of HTTP/2, or a line of three
/// words of which the last is no version of HTTP.
pub(super) fn is_no_http(head: &[u8]) -> bool {
    let line = first_line(head);
    if line.starts_with(b"PRI ") {
        return true;
    }
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(_), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return false;
    };
    let is_version = version.get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"http/"));
    is_token(method) && !version.is_empty() && !is_version
}

/// Substitute request for this head: as much of it as can be read. After it the connection ends.
pub(super) fn stand_in(head: &[u8]) -> Bytes {
    let line = first_line(head);
    let (method, rest) = split_at_space(line);
    // CONNECT has a target of another form.
    let known = is_token(method) && method != b"CONNECT" && !rest.is_empty();
    let method = if known { method } else { b"GET" };
    let target = rest.windows(6).rposition(|six| six == b" HTTP/").map_or(rest, |end| &rest[..end]);
    let version: &[u8] = if rest.ends_with(b" HTTP/1.0") { b"HTTP/1.0" } else { b"HTTP/1.1" };
    let mut text = Vec::with_capacity(2 * LONGEST);
    text.extend_from_slice(method);
    text.push(b' ');
    append_path(&mut text, target);
    text.push(b' ');
    text.extend_from_slice(version);
    text.extend_from_slice(b"\r\n");
    for line in head.split_inclusive(|byte| *byte == b'\n').skip(1) {
        // The last line may be cut.
        let Some(line) = line.strip_suffix(b"\n") else { break };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        if is_kept(line) {
            text.extend_from_slice(line);
            text.extend_from_slice(b"\r\n");
        }
    }
    text.extend_from_slice(b"connection: close\r\n\r\n");
    text.into()
}

/// First line, without the empty lines that may precede it.
fn first_line(head: &[u8]) -> &[u8] {
    let begin = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(head.len());
    let line = head[begin..].split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn split_at_space(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    (&line[..end], line.get(end + 1..).unwrap_or_default())
}

fn is_token(word: &[u8]) -> bool {
    !word.is_empty()
        && word.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// Appends a path with its query, with escapes for forbidden characters; `/` for anything that is no path.
fn append_path(text: &mut Vec<u8>, target: &[u8]) {
    if !target.starts_with(b"/") {
        text.push(b'/');
        return;
    }
    for byte in target {
        if byte.is_ascii_alphanumeric() || b"-._~:/?@!$&'()*+,;=%".contains(byte) {
            text.push(*byte);
        } else {
            let digit = |four: u8| b"0123456789ABCDEF"[usize::from(four & 15)];
            text.extend_from_slice(&[b'%', digit(byte >> 4), digit(*byte)]);
        }
    }
}

fn is_kept(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return false };
    let (name, value) = line.split_at(colon);
    KEPT.iter().any(|kept| name.eq_ignore_ascii_case(kept.as_bytes()))
        && value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("GET /a<b>`?c=\"d HTTP/1.1\r\n", "GET /a%3Cb%3E%60?c=%22d HTTP/1.1\r\n")]
    #[case("\r\nHEAD /a b HTTP/1.0\r\n", "HEAD /a%20b HTTP/1.0\r\n")]
    #[case("G T /a HTTP/1.1\r\n", "G / HTTP/1.1\r\n")]
    #[case("G(T /a HTTP/1.1\r\n", "GET /a HTTP/1.1\r\n")]
    #[case("GET /a HTTP/3.0\r\n", "GET /a HTTP/1.1\r\n")]
    #[case("GET http://h/<\r\n", "GET / HTTP/1.1\r\n")]
    #[case("CONNECT h:1 HTTP/1.1\r\n", "GET / HTTP/1.1\r\n")]
    #[case("GET\r\n", "GET / HTTP/1.1\r\n")]
    #[case("", "GET / HTTP/1.1\r\n")]
    #[case("GET /cut-in-the-mid", "GET /cut-in-the-mid HTTP/1.1\r\n")]
    #[case(
        "GET / HTTP/1.1\r\nOrigin: https://a\r\nX: 1\r\naccept:\u{1}\r\nAccept: a/b\r\nCookie: cut",
        "GET / HTTP/1.1\r\nOrigin: https://a\r\nAccept: a/b\r\n"
    )]
    #[case("GET / HTTP/1.1\r\n\r\nHost: of-the-body\r\n", "GET / HTTP/1.1\r\n")]
    fn a_request_stands_for_what_can_be_read(#[case] head: &str, #[case] expected: &str) {
        let text = stand_in(head.as_bytes());
        assert_eq!(String::from_utf8_lossy(&text), format!("{expected}connection: close\r\n\r\n"));
    }

    #[rstest]
    #[case("INVALID CONNECTION PREFACE\r\n\r\n", true)]
    #[case("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", true)]
    #[case("PRI * HTTP/1.1\r\n", true)]
    #[case("OPTIONS sip:a SIP/2.0\r\n", true)]
    #[case("GET / HTTP/9.9\r\n", false)]
    #[case("GET / http/1.1\r\n", false)]
    #[case("GET /\r\n", false)]
    #[case("GET  HTTP/1.1\r\n", false)]
    #[case("GET /a b HTTP/1.1\r\n", false)]
    #[case("\u{16}\u{3}\u{1} x y\r\n", false)]
    #[case("", false)]
    fn what_claims_another_protocol_is_no_http(#[case] head: &str, #[case] expected: bool) {
        assert_eq!(is_no_http(head.as_bytes()), expected);
    }

    #[rstest]
    #[case(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n", Some(400))]
    #[case(b"HTTP/1.1 431 Request Header Fields Too Large\r\n", Some(431))]
    #[case(b"HTTP/1.1 200 OK\r\n", None)]
    #[case(b"HTTP/1.1 ", None)]
    #[case(b"", None)]
    fn a_status_of_hyper_s_own_is_known(#[case] answer: &[u8], #[case] status: Option<u16>) {
        assert_eq!(MalformedStatus::of(answer).map(|refused| refused.0.as_u16()), status);
    }
}
