//! Header fields that more than one module looks for.

use http::HeaderMap;
use http::header::{self, CONNECTION, HeaderName};

/// Fields of a request about a copy that the client has, or about a part (RFC 9110 sections 13 and 14): the answer is for that
/// client alone.
pub(crate) const PARTIAL: [HeaderName; 6] = [
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
];

/// The options of `Connection` (RFC 9110 section 7.6.1), some of which may be empty.
///
/// SECURITY: as bytes, so that one member that is no name takes no other one along.
pub(crate) fn connection_options(fields: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let values = fields.get_all(CONNECTION).iter();
    values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}
