//! `{region}/{size}/{rotation}/{quality}.{format}`: syntax of an image request.
//!
//! No check that a server *supports* the values, or that the image is large enough.

/// Longest parameter with escapes in it that is read; four long decimals fit.
const LONGEST_ESCAPED: usize = 128;

/// True if the four segments are an image request of Image API 2.0, 2.1 or 3.0.
///
/// Escapes are decoded once (`%2C` is a comma, as it is to every server).
pub(in crate::iiif) fn is_image(region: &str, size: &str, rotation: &str, file: &str) -> bool {
    // The file first: its first byte rejects most paths that are no image request.
    decoded(file, is_file)
        && decoded(region, is_region)
        && decoded(size, is_size)
        && decoded(rotation, is_rotation)
}

/// Applies `rule` to the decoded segment, on the stack.
fn decoded(segment: &str, rule: fn(&[u8]) -> bool) -> bool {
    if !segment.contains('%') {
        return rule(segment.as_bytes());
    }
    let mut buffer = [0; LONGEST_ESCAPED];
    let mut length = 0;
    for byte in percent_encoding::percent_decode_str(segment) {
        let Some(slot) = buffer.get_mut(length) else { return false };
        *slot = byte;
        length += 1;
    }
    buffer.get(..length).is_some_and(rule)
}

/// True for `full`, `square`, `x,y,w,h`, `pct:x,y,w,h` (2.1 and 3.0 section 4.1); an empty region is malformed.
fn is_region(text: &[u8]) -> bool {
    if text == b"full" || text == b"square" {
        return true;
    }
    let (numbers, rule): (_, fn(&[u8]) -> bool) = match text.strip_prefix(b"pct:") {
        Some(numbers) => (numbers, is_decimal),
        None => (text, is_integer),
    };
    let mut parts = numbers.split(|byte| *byte == b',');
    let mut next = || parts.next().filter(|part| rule(part));
    let (Some(_), Some(_), Some(width), Some(height)) = (next(), next(), next(), next()) else {
        return false;
    };
    parts.next().is_none() && is_positive(width) && is_positive(height)
}

/// True for `full`, `max`, `w,`, `,h`, `pct:n`, `w,h`, `!w,h` (2.1 section 4.2), all but `full` with `^` before it (3.0).
///
/// UPSTREAM: sizes of nothing (`0,`, `!0,0`, `20,0`) are answered 400 by a living image.
fn is_size(text: &[u8]) -> bool {
    if text == b"full" {
        return true;
    }
    let text = text.strip_prefix(b"^").unwrap_or(text);
    if text == b"max" {
        return true;
    }
    if let Some(percent) = text.strip_prefix(b"pct:") {
        return is_decimal(percent) && is_positive(percent);
    }
    let (confined, text) = match text.strip_prefix(b"!") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut parts = text.split(|byte| *byte == b',');
    let (Some(width), Some(height), None) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let length = |part| is_integer(part) && is_positive(part);
    match (width.is_empty(), height.is_empty()) {
        (false, false) => length(width) && length(height),
        (false, true) => !confined && length(width),
        (true, false) => !confined && length(height),
        (true, true) => false,
    }
}

/// True for `n` or `!n` with 0 ≤ n ≤ 360 (2.1 and 3.0 section 4.3).
fn is_rotation(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"!").unwrap_or(text);
    if !is_decimal(text) {
        return false;
    }
    let mut parts = text.split(|byte| *byte == b'.');
    let (whole, fraction) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut degrees: u32 = 0;
    for digit in whole {
        degrees = degrees.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
    }
    degrees < 360 || (degrees == 360 && !is_positive(fraction))
}

/// True for `{quality}.{format}` (2.1 and 3.0 section 4.4 and 4.5; `native` is Image API 1). Any short format passes: a
/// server may know more than the standard.
fn is_file(text: &[u8]) -> bool {
    const QUALITIES: [&[u8]; 5] = [b"default.", b"color.", b"gray.", b"bitonal.", b"native."];
    QUALITIES
        .iter()
        .find_map(|quality| text.strip_prefix(*quality))
        .is_some_and(|format| (1..=8).contains(&format.len()) && format.iter().all(u8::is_ascii_alphanumeric))
}

fn is_integer(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// True for digits with at most one point among them; no sign, no exponent (2.1 section 4.7).
fn is_decimal(text: &[u8]) -> bool {
    text.iter().any(u8::is_ascii_digit)
        && text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
        && text.split(|byte| *byte == b'.').count() <= 2
}

/// True if greater than zero, for what [`is_integer`] or [`is_decimal`] took.
fn is_positive(number: &[u8]) -> bool {
    number.iter().any(|byte| (b'1'..=b'9').contains(byte))
}
