//! Conditional and range requests on a stored answer (RFC 9110 sections 13 and 14).

use http::header::{self, HeaderValue};
use http::{HeaderMap, Method};

use super::cache_control::read_date;

/// Part of a stored answer that goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResponsePart {
    Whole,
    /// 304.
    NotModified,
    /// 206: the first byte, and the one after the last.
    Range(usize, usize),
    /// 416.
    Unsatisfiable,
}

/// Decides the part of an answer of `length` bytes with `stored` fields, in the order of RFC 9110 section 13.2.2.
pub(super) fn part(
    method: &Method,
    asked: &HeaderMap,
    stored: &Validators<'_>,
    length: usize,
) -> ResponsePart {
    let is_unmodified = match asked.get(header::IF_NONE_MATCH) {
        Some(_) => stored.is_listed(asked),
        None => stored.is_not_younger(asked),
    };
    if is_unmodified {
        return ResponsePart::NotModified;
    }
    match asked.get(header::RANGE) {
        Some(range) if *method == Method::GET && stored.is_the_one_of(asked) => {
            let is_only = asked.get_all(header::RANGE).iter().nth(1).is_none();
            if is_only { range_of(range, length) } else { ResponsePart::Whole }
        }
        _ => ResponsePart::Whole,
    }
}

/// Validators that tell one version of an answer from another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validators<'a> {
    pub(super) etag: Option<&'a HeaderValue>,
    pub(super) modified: Option<&'a HeaderValue>,
}

impl Validators<'_> {
    /// True if `If-None-Match` names this version (section 13.1.2: the weak comparison).
    fn is_listed(&self, asked: &HeaderMap) -> bool {
        let mut values = asked.get_all(header::IF_NONE_MATCH).iter().map(HeaderValue::as_bytes);
        let own = self.etag.map(|etag| opaque(etag.as_bytes()));
        values.any(|value| {
            value.trim_ascii() == b"*" || own.is_some_and(|own| tags(value).any(|tag| opaque(tag) == own))
        })
    }

    /// True if `If-Modified-Since` is the date of this version or a later one (section 13.1.3).
    fn is_not_younger(&self, asked: &HeaderMap) -> bool {
        let since = asked.get(header::IF_MODIFIED_SINCE).and_then(read_date);
        let own = self.modified.and_then(read_date);
        matches!((since, own), (Some(since), Some(own)) if own <= since)
    }

    /// True if the range is wanted of this version (section 13.1.5: the strong comparison).
    fn is_the_one_of(&self, asked: &HeaderMap) -> bool {
        let Some(wanted) = asked.get(header::IF_RANGE) else { return true };
        let is_strong = |tag: &HeaderValue| !tag.as_bytes().starts_with(b"W/");
        match self.etag {
            Some(etag) if wanted.as_bytes().contains(&b'"') => is_strong(etag) && etag == wanted,
            // A date is weak: a file may change twice within its second.
            _ => false,
        }
    }
}

/// Opaque part of a tag, without the mark of a weak one.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// The tags of a list. A comma may stand within the quotes of one.
fn tags(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let from = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
        let tag = &rest[from..];
        let open = tag.iter().position(|byte| *byte == b'"')?;
        let close = open + 1 + tag[open + 1..].iter().position(|byte| *byte == b'"')?;
        rest = &tag[close + 1..];
        Some(&tag[..=close])
    })
}

/// Parses a single byte range (section 14.1.2). A range that cannot be parsed, and more than one range, are ignored, as
/// section 14.2 allows.
fn range_of(range: &HeaderValue, length: usize) -> ResponsePart {
    let whole = ResponsePart::Whole;
    let Ok(text) = range.to_str() else { return whole };
    let Some((unit, set)) = text.split_once('=') else { return whole };
    let Some((first, last)) = set.trim().split_once('-') else { return whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return whole;
    }
    match (number(first), number(last)) {
        // Suffix range: the last `count` bytes.
        (None, Some(count)) if first.is_empty() => match count.min(length) {
            0 => ResponsePart::Unsatisfiable,
            count => ResponsePart::Range(length - count, length),
        },
        (Some(first), None) if last.is_empty() && first < length => ResponsePart::Range(first, length),
        (Some(_), None) if last.is_empty() => ResponsePart::Unsatisfiable,
        (Some(first), Some(last)) if last < first => whole,
        (Some(first), Some(_)) if first >= length => ResponsePart::Unsatisfiable,
        (Some(first), Some(last)) => ResponsePart::Range(first, last.saturating_add(1).min(length)),
        _ => whole,
    }
}

/// Digits only; a number that is too great for this machine is behind the end of everything.
fn number(digits: &str) -> Option<usize> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;
    use rstest::rstest;

    use super::*;

    const DATE: &str = "Sun, 22 Nov 2026 12:00:00 GMT";

    fn of(lines: &str) -> ResponsePart {
        let mut asked = HeaderMap::new();
        for line in lines.lines() {
            let (name, value) = line.split_once(": ").expect("a field");
            asked.append(HeaderName::try_from(name).expect("a name"), value.parse().expect("a value"));
        }
        let (etag, modified) = (HeaderValue::from_static("\"a,b\""), HeaderValue::from_static(DATE));
        let stored = Validators { etag: Some(&etag), modified: Some(&modified) };
        part(&Method::GET, &asked, &stored, 100)
    }

    #[rstest]
    #[case::tag("if-none-match: \"a,b\"", true)]
    #[case::among_others("if-none-match: \"x\", W/\"a,b\" , \"y\"", true)]
    #[case::on_another_line("if-none-match: \"x\"\nif-none-match: \"a,b\"", true)]
    #[case::star("if-none-match: *", true)]
    #[case::other("if-none-match: \"a\", \"b\"", false)]
    #[case::not_closed("if-none-match: \"a,b", false)]
    #[case::nonsense("if-none-match: a,b", false)]
    #[case::date("if-modified-since: Sun, 22 Nov 2026 12:00:00 GMT", true)]
    #[case::later("if-modified-since: Sun, 22 Nov 2026 13:00:00 GMT", true)]
    #[case::earlier("if-modified-since: Sun, 22 Nov 2026 11:59:59 GMT", false)]
    #[case::no_date("if-modified-since: yesterday", false)]
    #[case::the_tag_counts("if-none-match: \"x\"\nif-modified-since: Sun, 22 Nov 2026 12:00:00 GMT", false)]
    fn a_viewer_that_has_it_is_told_so(#[case] lines: &str, #[case] is_unmodified: bool) {
        assert_eq!(of(lines) == ResponsePart::NotModified, is_unmodified, "{lines}");
    }

    #[rstest]
    #[case("bytes=0-0", ResponsePart::Range(0, 1))]
    #[case("bytes=10-19", ResponsePart::Range(10, 20))]
    #[case("Bytes = 10-19", ResponsePart::Range(10, 20))]
    #[case("bytes=90-", ResponsePart::Range(90, 100))]
    #[case("bytes=-10", ResponsePart::Range(90, 100))]
    #[case("bytes=-1000", ResponsePart::Range(0, 100))]
    #[case("bytes=0-99999999999999999999999999", ResponsePart::Range(0, 100))]
    #[case("bytes=0-18446744073709551615", ResponsePart::Range(0, 100))]
    #[case("bytes=100-", ResponsePart::Unsatisfiable)]
    #[case("bytes=99999999999999999999999999-", ResponsePart::Unsatisfiable)]
    #[case("bytes=-0", ResponsePart::Unsatisfiable)]
    #[case("bytes=19-10", ResponsePart::Whole)]
    #[case("bytes=0-1,5-6", ResponsePart::Whole)]
    #[case("bytes=", ResponsePart::Whole)]
    #[case("bytes=-", ResponsePart::Whole)]
    #[case("bytes=+1-2", ResponsePart::Whole)]
    #[case("bytes=a-b", ResponsePart::Whole)]
    #[case("lines=0-1", ResponsePart::Whole)]
    fn a_range_is_the_part_that_it_means(#[case] range: &str, #[case] expected: ResponsePart) {
        assert_eq!(of(&format!("range: {range}")), expected, "{range}");
    }

    #[test]
    fn a_range_of_another_version_is_the_whole() {
        for (line, expected) in [
            ("if-range: \"a,b\"", ResponsePart::Range(0, 1)),
            ("if-range: W/\"a,b\"", ResponsePart::Whole),
            ("if-range: \"x\"", ResponsePart::Whole),
            ("if-range: Sun, 22 Nov 2026 12:00:00 GMT", ResponsePart::Whole),
            ("if-none-match: \"a,b\"", ResponsePart::NotModified),
        ] {
            assert_eq!(of(&format!("range: bytes=0-0\n{line}")), expected, "{line}");
        }
        let asked = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static("bytes=0-0"))]);
        let nothing = Validators { etag: None, modified: None };
        assert_eq!(part(&Method::HEAD, &asked, &nothing, 100), ResponsePart::Whole, "a range is for GET");
    }

    #[test]
    fn a_range_of_nothing_is_unsatisfiable() {
        let all = HeaderValue::from_static("bytes=0-");
        assert_eq!(range_of(&all, 0), ResponsePart::Unsatisfiable);
    }
}
