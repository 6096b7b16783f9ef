//! Text in other codings than UTF-8, as manifests on disks have it, made UTF-8 as it is read.

use std::borrow::Cow;
use std::io::{self, Read};

use crate::iiif::json_repair;

/// Encoding of a document's text (RFC 8259 section 8.1 allows UTF-8 only).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextEncoding {
    Utf8,
    Utf16Le,
    Utf16Be,
}

impl TextEncoding {
    /// Detects the encoding by a byte order mark, or by the zero that UTF-16 has in the first character of any JSON (RFC
    /// 4627 section 3); returns also the length of the mark.
    fn of(head: &[u8]) -> (Self, usize) {
        match head {
            [0xff, 0xfe, ..] => (Self::Utf16Le, 2),
            [0xfe, 0xff, ..] => (Self::Utf16Be, 2),
            [0, byte, ..] if *byte != 0 => (Self::Utf16Be, 0),
            [byte, 0, ..] if *byte != 0 => (Self::Utf16Le, 0),
            head => (Self::Utf8, head.len() - json_repair::without_mark(head).len()),
        }
    }

    fn unit(self, pair: [u8; 2]) -> u16 {
        if self == Self::Utf16Be { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }
    }
}

/// The text as UTF-8, borrowed where it is that already. Bytes that are no text become U+FFFD.
pub(crate) fn utf8(bytes: &[u8]) -> Cow<'_, [u8]> {
    let (coding, mark) = TextEncoding::of(bytes);
    let text = bytes.get(mark..).unwrap_or_default();
    if coding == TextEncoding::Utf8 {
        // The search for bytes that are no text takes ten times as long as this check.
        if std::str::from_utf8(text).is_ok() {
            return Cow::Borrowed(text);
        }
        return match String::from_utf8_lossy(text) {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
    }
    Cow::Owned(decoded(coding, text))
}

/// The document with U+FFFD for each `\\ud800` … `\\udfff` that has no other half beside it.
pub(super) fn without_half_surrogates(json: &[u8]) -> Cow<'_, [u8]> {
    let mut changed: Option<Vec<u8>> = None;
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', json.get(at..).unwrap_or_default()) {
        let escape = at + found;
        let (first, second) = (unit_of(json, escape), unit_of(json, escape + 6));
        at = match (first, second) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => escape + 12,
            (Some(0xd800..0xe000), _) => {
                let text = changed.get_or_insert_with(|| json.to_vec());
                text[escape + 2..escape + 6].copy_from_slice(b"fffd");
                escape + 6
            }
            // The escaped character may be a backslash itself.
            _ => escape + 2,
        };
    }
    changed.map_or(Cow::Borrowed(json), Cow::Owned)
}

/// The document with a zero for each number that is too large to be one (`1e999`), which is grammar as well.
pub(super) fn without_huge_numbers(json: &[u8]) -> Cow<'_, [u8]> {
    let mut changed: Option<Vec<u8>> = None;
    let (mut at, mut in_string) = (0, false);
    while let Some(&byte) = json.get(at) {
        match byte {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'-' | b'0'..=b'9' if !in_string => {
                let is_number = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
                let length = json[at..].iter().take_while(|byte| is_number(byte)).count();
                let number =
                    std::str::from_utf8(&json[at..at + length]).ok().and_then(|text| text.parse().ok());
                if number.is_some_and(f64::is_infinite) {
                    let text = changed.get_or_insert_with(|| json.to_vec());
                    text[at..at + length].fill(b' ');
                    text[at] = b'0';
                }
                at += length - 1;
            }
            _ => {}
        }
        at += 1;
    }
    changed.map_or(Cow::Borrowed(json), Cow::Owned)
}

/// The number of `\\uXXXX` at this place.
fn unit_of(json: &[u8], at: usize) -> Option<u16> {
    let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Bytes read at once.
const PIECE: usize = 64 * 1024;

/// Reads any of the codings as UTF-8, in pieces.
pub(super) struct Utf8<R> {
    inner: R,
    coding: Option<TextEncoding>,
    /// Read, and not yet decoded: at most a character that is cut, and the next piece.
    raw: Vec<u8>,
    /// Decoded, and handed out up to here.
    text: Vec<u8>,
    at: usize,
    is_over: bool,
}

impl<R: Read> Utf8<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, coding: None, raw: Vec::new(), text: Vec::new(), at: 0, is_over: false }
    }

    fn fill(&mut self) -> io::Result<()> {
        while self.at >= self.text.len() && !(self.is_over && self.raw.is_empty()) {
            let before = self.raw.len();
            self.raw.resize(before + PIECE, 0);
            let read = match self.inner.read(&mut self.raw[before..]) {
                Ok(read) => read,
                Err(error) => {
                    self.raw.truncate(before);
                    if error.kind() == io::ErrorKind::Interrupted {
                        continue;
                    }
                    return Err(error);
                }
            };
            self.raw.truncate(before + read);
            self.is_over = read == 0;
            // A byte order mark has three bytes.
            if self.coding.is_none() && self.raw.len() < 3 && !self.is_over {
                continue;
            }
            let coding = if let Some(coding) = self.coding {
                coding
            } else {
                let (coding, mark) = TextEncoding::of(&self.raw);
                self.raw.drain(..mark);
                *self.coding.insert(coding)
            };
            let whole = if self.is_over { self.raw.len() } else { whole_characters(coding, &self.raw) };
            (self.text, self.at) = (decoded(coding, &self.raw[..whole]), 0);
            self.raw.drain(..whole);
        }
        Ok(())
    }
}

/// Number of bytes that are certainly whole characters.
fn whole_characters(coding: TextEncoding, raw: &[u8]) -> usize {
    if coding == TextEncoding::Utf8 {
        let begins = |byte: &u8| *byte & 0xc0 != 0x80;
        let tail = raw.iter().rev().take(4).position(begins);
        let Some(tail) = tail else { return raw.len() };
        let from = raw.len() - 1 - tail;
        return match std::str::from_utf8(&raw[from..]) {
            // Cut within a character, as far as can be seen.
            Err(error) if error.error_len().is_none() => from,
            _ => raw.len(),
        };
    }
    let even = raw.len() & !1;
    let last =
        even.checked_sub(2).and_then(|at| raw.get(at..even)).map(|pair| coding.unit([pair[0], pair[1]]));
    if matches!(last, Some(0xd800..0xdc00)) { even - 2 } else { even }
}

fn decoded(coding: TextEncoding, raw: &[u8]) -> Vec<u8> {
    if coding == TextEncoding::Utf8 {
        return String::from_utf8_lossy(raw).into_owned().into_bytes();
    }
    let units = raw.chunks(2).map(|pair| coding.unit([pair[0], pair.get(1).copied().unwrap_or_default()]));
    let text: String =
        char::decode_utf16(units).map(|read| read.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    text.into_bytes()
}

impl<R: Read> Read for Utf8<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill()?;
        let left = self.text.get(self.at..).unwrap_or_default();
        let taken = left.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&left[..taken]);
        self.at += taken;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reader that returns a given number of bytes at a time.
    struct DripReader<'a>(&'a [u8], usize);

    impl Read for DripReader<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let taken = self.1.min(self.0.len()).min(buffer.len());
            let (now, later) = self.0.split_at(taken);
            buffer[..taken].copy_from_slice(now);
            self.0 = later;
            Ok(taken)
        }
    }

    fn streamed(bytes: &[u8], at_once: usize) -> Vec<u8> {
        let mut text = Vec::new();
        Utf8::new(DripReader(bytes, at_once)).read_to_end(&mut text).unwrap();
        text
    }

    fn utf16(text: &str, mark: bool, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
        let mark = if mark { "\u{feff}" } else { "" };
        mark.encode_utf16().chain(text.encode_utf16()).flat_map(unit).collect()
    }

    proptest! {
        #[test]
        fn every_coding_reads_the_same_in_pieces_and_at_once(text in "\\{\\PC{0,40}", at_once in 1..9_usize) {
            for mark in [false, true] {
                let plain = if mark { format!("\u{feff}{text}") } else { text.clone() };
                for bytes in [plain.into_bytes(), utf16(&text, mark, u16::to_le_bytes), utf16(&text, mark, u16::to_be_bytes)] {
                    prop_assert_eq!(&*utf8(&bytes), text.as_bytes());
                    prop_assert_eq!(streamed(&bytes, at_once), text.as_bytes());
                }
            }
        }

        #[test]
        fn any_bytes_become_text(bytes in prop::collection::vec(any::<u8>(), 0..60), at_once in 1..9_usize) {
            prop_assert!(std::str::from_utf8(&utf8(&bytes)).is_ok());
            prop_assert!(std::str::from_utf8(&streamed(&bytes, at_once)).is_ok());
        }
    }

    #[test]
    fn only_halves_of_a_pair_are_replaced() {
        let text = br#"["\ud83d\ude00 \ud83d \udE00\u00e9 \\ud83d"]"#;
        let read = without_half_surrogates(text);
        assert_eq!(std::str::from_utf8(&read).unwrap(), r#"["\ud83d\ude00 \ufffd \ufffd\u00e9 \\ud83d"]"#);
        assert!(matches!(without_half_surrogates(b"[1]"), Cow::Borrowed(_)));
    }
}
