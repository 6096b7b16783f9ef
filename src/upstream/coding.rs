//! The codings of documents that are read here (RFC 9110 section 8.4.1).

use std::io::Read;

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, HeaderValue, header};

/// How a document is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Not at all.
    Identity,
    /// `gzip`
    Gzip,
    /// `deflate`
    Deflate,
}

/// Why a document cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum CodingError {
    /// It is none of what its head says.
    #[error("unpacking it failed")]
    Broken(#[source] std::io::Error),
    /// It is longer than allowed.
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
}

impl Coding {
    /// The coding that the fields tell; `Err`: one that is not read here, by its name.
    pub fn of(fields: &HeaderMap) -> Result<Self, &'static str> {
        let mut named = fields.get_all(header::CONTENT_ENCODING).iter();
        let (first, more) = (named.next().map_or(&b""[..], HeaderValue::as_bytes), named.next());
        match first.trim_ascii().to_ascii_lowercase().as_slice() {
            _ if more.is_some() => Err("other"),
            b"" | b"identity" => Ok(Self::Identity),
            b"gzip" | b"x-gzip" => Ok(Self::Gzip),
            b"deflate" => Ok(Self::Deflate),
            b"br" => Err("br"),
            b"zstd" => Err("zstd"),
            _ => Err("other"),
        }
    }

    /// The document as it is meant, of at most `most` bytes.
    pub fn unpack(self, packed: &Bytes, most: usize) -> Result<Bytes, CodingError> {
        match self {
            Self::Identity => {
                (packed.len() <= most).then(|| packed.clone()).ok_or(CodingError::TooLong(most))
            }
            Self::Gzip => read(MultiGzDecoder::new(&**packed), most),
            // Some servers leave the wrapping of zlib out (RFC 9110 section 8.4.1.2).
            Self::Deflate => match read(ZlibDecoder::new(&**packed), most) {
                Err(CodingError::Broken(_)) => read(DeflateDecoder::new(&**packed), most),
                other => other,
            },
        }
    }
}

fn read(packed: impl Read, most: usize) -> Result<Bytes, CodingError> {
    let mut plain = Vec::new();
    // One byte more than allowed tells "too long" from "just fits".
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    packed.take(limit).read_to_end(&mut plain).map_err(CodingError::Broken)?;
    if plain.len() > most { Err(CodingError::TooLong(most)) } else { Ok(plain.into()) }
}

/// Asks only for codings that are read here, as far as the viewer takes them.
///
/// UPSTREAM: what stands between us and the canvas service packs by what a browser offers; a document in `br` would be
/// neither learned nor watched nor repaired.
pub fn narrow(fields: &mut HeaderMap) {
    let Some(offered) = fields.get(header::ACCEPT_ENCODING) else { return };
    let offered = offered.to_str().unwrap_or_default();
    let mut takes_gzip = false;
    for one in offered.split(',') {
        let mut parts = one.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let is_refused = parts.any(|part| {
            part.strip_prefix("q=")
                .or_else(|| part.strip_prefix("Q="))
                .is_some_and(|weight| weight.parse() == Ok(0.0))
        });
        let is_gzip = name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip");
        if is_gzip {
            takes_gzip = !is_refused;
            break;
        }
        takes_gzip |= name == "*" && !is_refused;
    }
    let asked = if takes_gzip { "gzip" } else { "identity" };
    fields.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(asked));
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("gzip, deflate, br, zstd", "gzip")]
    #[case("br;q=1.0, gzip;q=0.8, *;q=0.1", "gzip")]
    #[case("br, zstd", "identity")]
    #[case("gzip;q=0, *", "identity")]
    #[case("*", "gzip")]
    #[case("*;q=0", "identity")]
    #[case("identity", "identity")]
    #[case("", "identity")]
    fn only_what_is_read_is_asked_for(#[case] offered: &'static str, #[case] asked: &str) {
        let mut fields = HeaderMap::new();
        narrow(&mut fields);
        assert!(fields.is_empty(), "who says nothing is not spoken for");
        fields.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(offered));
        narrow(&mut fields);
        assert_eq!(fields[header::ACCEPT_ENCODING], asked);
    }

    #[test]
    fn each_coding_is_read_up_to_its_bound() {
        let text = b"a document ".repeat(100);
        let gzip = {
            let mut packing = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
            packing.write_all(&text).unwrap();
            packing.finish().unwrap()
        };
        let zlib = {
            let mut packing = flate2::write::ZlibEncoder::new(Vec::new(), Compression::fast());
            packing.write_all(&text).unwrap();
            packing.finish().unwrap()
        };
        let raw = {
            let mut packing = flate2::write::DeflateEncoder::new(Vec::new(), Compression::fast());
            packing.write_all(&text).unwrap();
            packing.finish().unwrap()
        };
        for (name, packed) in
            [("identity", text.clone()), ("GZIP", gzip), ("deflate", zlib), ("deflate", raw)]
        {
            let mut fields = HeaderMap::new();
            fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
            let (coding, packed) = (Coding::of(&fields).unwrap(), Bytes::from(packed));
            assert_eq!(coding.unpack(&packed, text.len()).unwrap(), text, "{name}");
            assert!(matches!(coding.unpack(&packed, text.len() - 1), Err(CodingError::TooLong(_))), "{name}");
        }
        assert!(matches!(Coding::Gzip.unpack(&Bytes::from_static(b"x"), 9), Err(CodingError::Broken(_))));
    }

    #[test]
    fn what_is_not_read_has_a_name() {
        for (name, told) in [("br", "br"), ("zstd", "zstd"), ("gzip, br", "other"), ("compress", "other")] {
            let mut fields = HeaderMap::new();
            fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
            assert_eq!(Coding::of(&fields), Err(told));
        }
    }
}
