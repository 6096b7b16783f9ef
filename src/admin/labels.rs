//! Labels of books and pages, for tables that know images by their keys, and links to their pages.

use std::collections::HashMap;

use serde::Serialize;

use crate::index::browse::ManifestRow;
use crate::index::history::HistoryEntry;
use crate::index::{Index, IndexError};

/// A heal, with the labels of its image.
#[derive(Debug, Serialize)]
pub(super) struct LabelledHeal {
    #[serde(flatten)]
    pub(super) entry: HistoryEntry,
    /// Label of the canvas.
    pub(super) label: Option<String>,
    /// Label of the manifest.
    pub(super) book: Option<String>,
}

/// Labels out of the index; each manifest is looked up once.
pub(super) struct BookLabels<'a> {
    index: &'a Index,
    books: HashMap<String, Option<ManifestRow>>,
}

impl<'a> BookLabels<'a> {
    pub(super) fn of(index: &'a Index) -> Self {
        Self { index, books: HashMap::new() }
    }

    /// The manifest with this id.
    pub(super) fn book(&mut self, uri: &str) -> Result<Option<&ManifestRow>, IndexError> {
        if !self.books.contains_key(uri) {
            let row = self.index.manifest_row_by_uri(uri)?;
            self.books.insert(uri.to_owned(), row);
        }
        Ok(self.books.get(uri).and_then(Option::as_ref))
    }

    /// The page of the dashboard that begins with this canvas of this manifest.
    pub(super) fn link(&mut self, manifest: &str, canvas: &str) -> Result<Option<String>, IndexError> {
        let Some(book) = self.book(manifest)?.map(|book| book.id) else { return Ok(None) };
        let row = self.index.canvas_id(book, canvas)?;
        Ok(Some(match row {
            Some(row) => format!("/collections/{book}?after={}", row - 1),
            None => format!("/collections/{book}"),
        }))
    }

    /// Adds labels to one heal of the history.
    pub(super) fn heal(&mut self, entry: HistoryEntry) -> Result<LabelledHeal, IndexError> {
        let heal = &entry.heal;
        let owners = self.index.owners(&heal.identifier)?;
        let owner = owners.iter().find(|owner| Some(&owner.canvas) == heal.canvas.as_ref());
        let label = owner.and_then(|owner| owner.label.clone());
        let book = match &heal.manifest {
            Some(uri) => self.book(uri)?.and_then(|book| book.label.clone()),
            None => None,
        };
        Ok(LabelledHeal { entry, label, book })
    }
}
