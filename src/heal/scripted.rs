//! A server that answers by a script, and settings for it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use http::StatusCode;
use http::request::Parts;
use hyper::Response;
use parking_lot::Mutex;

use crate::config::Settings;
use crate::config::settings::Timeouts;
use crate::config::tests::settings_of;
use crate::heal::server::{ResponseFuture, SendRequest};
use crate::upstream::{Body, Caller, UpstreamError};

/// The shipped settings with an image route and a presentation route, and these lines below `[heal]`.
pub(in crate::heal) fn settings(index: &Path, heal: &str) -> Arc<Settings> {
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\npublic_hosts = [\"lib.example\"]\n\
         [[routes]]\nprefix = \"/iiif/2/\"\nupstream = \"http://images.invalid/iiif/2/\"\nkind = \"image\"\n\
         [[routes]]\nprefix = \"/service/\"\nupstream = \"http://service.invalid/service/\"\nkind = \"presentation\"\n\
         [index]\npath = \"{}\"\n[heal]\n{heal}\n",
        index.display()
    );
    Arc::new(settings_of(&text))
}

/// `ScriptedServer` answers by the end of the target; 404 with a page where nothing is set, and not at all with
/// status 0.
#[derive(Debug, Default)]
pub(in crate::heal) struct ScriptedServer {
    answers: Mutex<HashMap<String, (u16, String)>>,
    asked: Mutex<usize>,
}

impl ScriptedServer {
    pub(in crate::heal) fn set(&self, end: &str, status: u16, body: &str) {
        self.answers.lock().insert(end.to_owned(), (status, body.to_owned()));
    }

    /// Forgets what is set for other targets.
    pub(in crate::heal) fn forget_all_but(&self, end: &str) {
        self.answers.lock().retain(|other, _| other == end);
    }

    /// Number of requests since the last call.
    pub(in crate::heal) fn asked(&self) -> usize {
        std::mem::take(&mut *self.asked.lock())
    }
}

impl SendRequest for ScriptedServer {
    fn send<'a>(&'a self, _: &'a Caller, head: &'a Parts, _: Timeouts) -> ResponseFuture<'a> {
        *self.asked.lock() += 1;
        let target = head.uri.to_string();
        let answers = self.answers.lock();
        let answer = answers.iter().find(|(end, _)| target.ends_with(end.as_str()));
        let (status, body) = answer.map_or((404, "<p>".to_owned()), |(_, answer)| answer.clone());
        Box::pin(async move {
            let status = StatusCode::from_u16(status).map_err(|_| UpstreamError::Busy)?;
            let answer = Response::builder().status(status).header("x-powered-by", "Cantaloupe/5");
            Ok(answer.body(Body::Full(body.into())).expect("an answer"))
        })
    }
}
