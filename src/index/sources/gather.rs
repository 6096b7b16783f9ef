//! Reads all sources for a build, on a thread of its own, and tells the writer what stands there.

use std::path::Path;
use std::sync::mpsc::SyncSender;

use crate::config::settings::{Source, SourceKind};
use crate::iiif::image_url::ImageBases;
use crate::iiif::manifest::{Canvas, Document};
use crate::index::sources::crawler::Found;
use crate::index::sources::problem::Problem;
use crate::index::sources::{Options, directory, http_refresh};
use crate::index::store::writer::Facts;
use crate::index::{Index, sources};

/// Canvases handed over at once, and batches on their way: memory stays bounded by these.
const BATCH: usize = 256;
pub(in crate::index) const BATCHES: usize = 32;

/// What the reading thread tells the writing one.
pub(in crate::index) enum Message {
    Source(usize),
    Canvases(Vec<Canvas>),
    Document(Box<(Document, Facts)>),
    /// It could not be read: what is known from there is kept.
    Failed(String, Problem),
    /// A file that is no document by its name.
    PassedOver,
    /// It is as the old generation knows it.
    Unchanged(String),
    /// It lost images: what is known from there goes after the grace.
    Poorer(Problem),
    /// The source says that it is no more.
    Gone(String),
    /// Only changes are told: what is not mentioned is kept.
    OnlyChanges,
    /// The source could not be seen whole, or is switched off.
    Incomplete(Option<Problem>),
}

impl Index {
    pub(in crate::index) fn read_all(
        &self,
        all: &[(Source, bool)],
        options: &Options,
        send: &SyncSender<Message>,
    ) {
        let bases = self.image_bases();
        for (at, (source, _)) in all.iter().enumerate() {
            let is_heard = send.send(Message::Source(at)).is_ok()
                && match &source.kind {
                    _ if !source.enabled => send.send(Message::Incomplete(None)).is_ok(),
                    SourceKind::Url(url) => self.read_url(source, url, options, send),
                    SourceKind::Path(_) => directory::find(Path::new(&sources::stored(source).1))
                        .map(|found| match found {
                            directory::Found::Document(path) => read_one(&path, &bases, send),
                            directory::Found::PassedOver => Message::PassedOver,
                            directory::Found::Problem(problem) => Message::Incomplete(Some(problem)),
                        })
                        .all(|message| send.send(message).is_ok()),
                };
            // The writer gave up.
            if !is_heard {
                return;
            }
        }
    }

    fn read_url(&self, source: &Source, url: &str, options: &Options, send: &SyncSender<Message>) -> bool {
        let Some(mut found) = self.crawl(source, url, options) else {
            return send.send(Message::Incomplete(Some(Problem::not_fetched(url)))).is_ok();
        };
        while let Some(one) = found.blocking_recv() {
            let message = match one {
                Found::Document(url, mut reading) => {
                    let canvases = std::mem::take(&mut reading.canvases);
                    if send.send(Message::Canvases(canvases)).is_err() {
                        return false;
                    }
                    let facts = http_refresh::facts(0, &url, &reading);
                    Message::Document(Box::new((reading.document, facts)))
                }
                Found::Unchanged(url, _) => Message::Unchanged(url),
                Found::Poorer(_, problem) => Message::Poorer(problem),
                Found::Failed(url, problem) => Message::Failed(url, problem),
                Found::Gone(url) => Message::Gone(url),
                Found::Incomplete(problem) => Message::Incomplete(Some(problem)),
                Found::OnlyChanges => Message::OnlyChanges,
                Found::End => return true,
            };
            if send.send(message).is_err() {
                return false;
            }
        }
        // The walk was broken off, so it proves nothing about what it did not meet.
        send.send(Message::Incomplete(None)).is_ok()
    }
}

fn read_one(path: &Path, bases: &ImageBases, send: &SyncSender<Message>) -> Message {
    let mut batch = Vec::new();
    let read = directory::read(path, bases, &mut |canvas| {
        batch.push(canvas);
        if batch.len() >= BATCH {
            let _ = send.send(Message::Canvases(std::mem::take(&mut batch)));
        }
    });
    let origin = path.to_string_lossy();
    match read {
        Ok(read) => {
            let _ = send.send(Message::Canvases(batch));
            let facts = sources::facts(0, &origin, read.looks, read.hash);
            Message::Document(Box::new((read.document, facts)))
        }
        Err(problem) => Message::Failed(origin.into_owned(), problem),
    }
}
