//! Registration of an identifier at the canvas service: `GET {canvas service}/resources/{uuid}` tells expiry (404) from a
//! missing file (200), and while an identifier is alive it returns its file URL (upstream.md "An expired image").

use uuid::Uuid;

/// Registration of an identifier, as the canvas service reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registration {
    /// The service knows the file, and where it is.
    Alive(String),
    /// The service has forgotten the file.
    Expired,
    /// No statement: closed, unwell, or not such a service.
    Nothing,
}

/// Reads an answer.
///
/// UPSTREAM: alive is 200 with the file URL as text; forgotten is 404 with a sentence that names the identifier. A
/// gateway's own 404 is a page, or JSON, or names the whole path, and must not pass for "expired": every image
/// would be taken for expired, and none for healed.
///
/// ```
/// use iiif_mender::iiif::registration::{Registration, read};
///
/// let said = read(uuid::Uuid::nil(), 200, b"https://a.test/file.jpg\n");
/// assert_eq!(said, Registration::Alive("https://a.test/file.jpg".to_owned()));
/// assert_eq!(read(uuid::Uuid::nil(), 404, b"<html>not found</html>"), Registration::Nothing);
/// ```
pub fn read(uuid: Uuid, status: u16, body: &[u8]) -> Registration {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    match status {
        200 if is_url(text) => Registration::Alive(text.to_owned()),
        404 if text.contains(&uuid.to_string()) && !text.contains(['<', '{', '/']) => Registration::Expired,
        _ => Registration::Nothing,
    }
}

fn is_url(text: &str) -> bool {
    let absolute = ["http://", "https://", "file:/"].iter().any(|scheme| text.starts_with(scheme));
    absolute && !text.contains(char::is_whitespace) && !text.contains('<')
}
