//! Response framing: the end of an answer must be stated once and unambiguously, or the answer is refused.

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};

use super::error::UpstreamError;

/// `StatedLength` is what the fields of an answer say of its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatedLength {
    /// The body comes in chunks.
    Chunked,
    /// The body has this many bytes.
    Bytes(u64),
    /// No framing.
    Unstated,
}

/// Normalises the lengths of an answer: one, if it has several equal ones, and none beside a transfer coding.
///
/// SECURITY: a coding below the chunks is not taken off: coded bytes would go out as plain ones. Lengths go out as they
/// came, and a peer that reads `2, 2` otherwise than we do sees another end.
pub(super) fn settle(fields: &mut HeaderMap) -> Result<StatedLength, UpstreamError> {
    if let Some(coding) = fields.get(TRANSFER_ENCODING) {
        let is_chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
        if !is_chunked || fields.get_all(TRANSFER_ENCODING).iter().nth(1).is_some() {
            return Err(UpstreamError::Coding);
        }
        // With both fields the length is wrong (RFC 9112 section 6.3).
        fields.remove(CONTENT_LENGTH);
        return Ok(StatedLength::Chunked);
    }
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(StatedLength::Unstated) };
    if lengths.next().is_none()
        && is_canonical(first.as_bytes())
        && let Some(length) = number(first.as_bytes())
    {
        return Ok(StatedLength::Bytes(length));
    }
    let length = single_length(fields).ok_or(UpstreamError::Length)?;
    fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(StatedLength::Bytes(length))
}

/// True for a length that all implementations read alike: digits, no leading zero, within 64 bits.
fn is_canonical(length: &[u8]) -> bool {
    matches!(length, [b'0'] | [b'1'..=b'9', ..]) && length.len() < 20 && length.iter().all(u8::is_ascii_digit)
}

/// The one length that all say (RFC 9110 section 8.6).
fn single_length(fields: &HeaderMap) -> Option<u64> {
    let all = fields.get_all(CONTENT_LENGTH).iter();
    let mut all = all.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(number);
    let first = all.next()??;
    all.all(|other| other == Some(first)).then_some(first)
}

fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.trim_matches([' ', '\t']);
    // `parse` would accept a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::one(&["2"], Some("2"))]
    #[case::nothing(&["0"], Some("0"))]
    #[case::a_list(&["2, 2"], Some("2"))]
    #[case::a_tight_list(&["2,2\t,2"], Some("2"))]
    #[case::lines(&["2", "2"], Some("2"))]
    #[case::zeros(&["02"], Some("2"))]
    #[case::zeros_in_a_list(&["2, 02"], Some("2"))]
    #[case::most(&["18446744073709551615"], Some("18446744073709551615"))]
    #[case::too_long(&["18446744073709551616"], None)]
    #[case::much_too_long(&["99999999999999999999999"], None)]
    #[case::differing(&["2, 3"], None)]
    #[case::differing_lines(&["2", "3"], None)]
    #[case::plus(&["+2"], None)]
    #[case::minus(&["-2"], None)]
    #[case::empty(&[""], None)]
    #[case::an_empty_member(&["2,"], None)]
    #[case::space(&["2 2"], None)]
    #[case::hexadecimal(&["0x2"], None)]
    #[case::a_letter_in_a_second_line(&["2", "x"], None)]
    fn one_length_is_left_or_the_answer_is_refused(#[case] lines: &[&str], #[case] left: Option<&str>) {
        let mut fields = HeaderMap::new();
        for line in lines {
            fields.append(CONTENT_LENGTH, HeaderValue::from_str(line).expect("a value"));
        }
        let settled = settle(&mut fields).is_ok();
        assert_eq!(settled, left.is_some());
        if settled {
            let values: Vec<_> = fields.get_all(CONTENT_LENGTH).iter().map(HeaderValue::as_bytes).collect();
            assert_eq!(values, [left.unwrap_or_default().as_bytes()]);
        }
    }

    #[rstest]
    #[case(&["chunked"], true)]
    #[case(&[" Chunked\t"], true)]
    #[case(&["gzip"], false)]
    #[case(&["gzip, chunked"], false)]
    #[case(&["gzip", "chunked"], false)]
    #[case(&["chunked, chunked"], false)]
    #[case(&["chunked", "chunked"], false)]
    #[case(&["identity"], false)]
    #[case(&[""], false)]
    fn of_codings_only_one_chunked_is_taken(#[case] lines: &[&str], #[case] taken: bool) {
        let mut fields = HeaderMap::new();
        fields.insert(CONTENT_LENGTH, HeaderValue::from(5));
        for line in lines {
            fields.append(TRANSFER_ENCODING, HeaderValue::from_str(line).expect("a value"));
        }
        assert_eq!(settle(&mut fields).is_ok(), taken);
        assert!(!taken || !fields.contains_key(CONTENT_LENGTH));
    }
}
