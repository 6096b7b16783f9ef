//! POST endpoints of the admin API. Each action is logged with client, action and result.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{self, ApiProblem, json};
use super::queries::{self, ApiParameters};
use super::route::AdminAction;
use super::{Admin, AdminState};
use crate::config::ReloadError;
use crate::config::settings::Rung;
use crate::heal::{ImageHealResult, IndexedImage};
use crate::index::Index;
use crate::observe::{REQUEST_ID, RequestTrace};
use crate::upstream::Body;

/// Subject of an admin action: an image, a manifest or a route.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionTarget {
    /// Lookup key of an image.
    identifier: Option<String>,
    /// URL of a canvas.
    canvas: Option<String>,
    /// Id of a manifest.
    manifest: Option<String>,
    /// The page of ours that a form without a script goes back to.
    back: Option<String>,
}

impl Admin {
    pub(super) async fn act(
        &self,
        act: AdminAction,
        peer: SocketAddr,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, ApiProblem> {
        // An operator's request id is accepted, as one from a trusted proxy is.
        let trace = RequestTrace::of(request.headers(), true);
        let subject = subject(request, self.state.settings.admin.max_body).await?;
        let back = subject.back.clone().filter(|back| is_own_path(back));
        let about = [&subject.identifier, &subject.canvas, &subject.manifest];
        let about = about.into_iter().flatten().next().cloned().unwrap_or_default();
        let done = self.state.perform(act, subject, &trace).await;
        let result = match &done {
            Ok((status, _)) => *status,
            Err(problem) => problem.status(),
        };
        tracing::info!(
            client = %peer.ip(), act = act.as_str(), about, result = result.as_u16(), request = %trace, "act of an operator"
        );
        let (status, answer) = done?;
        if let Some(back) = back {
            return Ok(answer::see_other(&back));
        }
        let mut response = json(status, &answer)?;
        response.headers_mut().insert(REQUEST_ID, trace.id().clone());
        Ok(response)
    }
}

/// SECURITY: `//evil.example` would lead away.
fn is_own_path(path: &str) -> bool {
    path.starts_with('/')
        && !path.starts_with("//")
        && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}

async fn subject(request: Request<Incoming>, longest: usize) -> Result<ActionTarget, ApiProblem> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_form = kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    let body = Limited::new(request.into_body(), longest).collect();
    let body = tokio::time::timeout(std::time::Duration::from_secs(10), body).await;
    let bad = |what: &str| ApiProblem::bad(format!("the body cannot be read: {what}"));
    let body = body.map_err(|_| bad("it does not end"))?.map_err(|error| bad(&error.to_string()))?.to_bytes();
    if body.is_empty() {
        return Ok(ActionTarget::default());
    }
    if is_form {
        let text = std::str::from_utf8(&body).map_err(|error| bad(&error.to_string()))?;
        let form = ApiParameters::read(text);
        let of = |name| form.text(name);
        let [identifier, canvas, manifest] = ["identifier", "canvas", "manifest"].map(of);
        return Ok(ActionTarget { identifier, canvas, manifest, back: of("back") });
    }
    serde_json::from_slice(&body).map_err(|error| bad(&error.to_string()))
}

type ActionResult = Result<(StatusCode, Value), ApiProblem>;

impl AdminState {
    async fn perform(&self, act: AdminAction, subject: ActionTarget, trace: &RequestTrace) -> ActionResult {
        match act {
            AdminAction::Heal => self.heal(self.image(&subject, trace)?).await,
            AdminAction::Rebuild => self.rebuild(&subject).await,
            AdminAction::Forget => {
                self.healer.forget(&self.image(&subject, trace)?);
                Ok((StatusCode::OK, json!({ "forgotten": subject.identifier })))
            }
            AdminAction::ResetBreakers => {
                self.healer.reset_breakers();
                Ok((StatusCode::OK, json!({ "breakers": "closed" })))
            }
            AdminAction::StartSweep if self.healer.start_sweep() => {
                Ok((StatusCode::ACCEPTED, json!({ "sweep": "started" })))
            }
            AdminAction::StartSweep => Err(ApiProblem::new(StatusCode::CONFLICT, "there is a sweep already")),
            AdminAction::StopSweep if self.healer.stop_sweep() => {
                Ok((StatusCode::ACCEPTED, json!({ "sweep": "stopping" })))
            }
            AdminAction::StopSweep => Err(ApiProblem::new(StatusCode::CONFLICT, "there is no sweep")),
            AdminAction::PurgeCache => self.purge(subject).await,
            AdminAction::ClearCache => {
                let cache = self.cache.clone();
                purged(queries::aside(move || Ok(cache.purge_all())).await)
            }
            AdminAction::Reload => self.reload().await,
        }
    }

    fn image(&self, subject: &ActionTarget, trace: &RequestTrace) -> Result<IndexedImage, ApiProblem> {
        let key =
            subject.identifier.as_deref().ok_or_else(|| ApiProblem::bad("say which image: identifier"))?;
        let refused = "no image route, or [heal] identifiers leaves it out";
        let indexed = self.healer.image_by_key(key, None).ok_or_else(|| ApiProblem::bad(refused))?;
        let indexed = self.healer.with_owners(&indexed).in_the_name_of(trace.clone());
        if indexed.canvases().next().is_none() {
            return Err(ApiProblem::not_found("no canvas in the index owns this image"));
        }
        Ok(indexed)
    }

    /// Goes on when the operator leaves.
    async fn heal(&self, image: IndexedImage) -> ActionResult {
        let healer = self.healer.clone();
        let task = tokio::spawn(async move {
            let was_poisoned = healer.is_poisoned(image.key());
            let report = healer.heal_image(&image).await;
            let cured = if was_poisoned { Some(healer.cure_all(&image).await) } else { None };
            (report, cured)
        });
        let (report, cured) = task.await.map_err(|error| ApiProblem::internal(&error.to_string()))?;
        let (ending, rung) = match report.ending {
            ImageHealResult::Alive if cured == Some(true) => ("healed", Some(Rung::Rebuild.as_str())),
            ImageHealResult::Alive if cured == Some(false) => ("poisoned", None),
            ImageHealResult::Healed(rung) => ("healed", Some(rung.as_str())),
            ImageHealResult::Alive => ("ok", None),
            ImageHealResult::Missing => ("missing", None),
            ImageHealResult::Failed => ("failed", None),
            ImageHealResult::Poisoned => ("poisoned", None),
        };
        let took = u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX);
        let answer = json!({ "ending": ending, "rung": rung, "reason": report.reason, "duration_ms": took });
        Ok((StatusCode::OK, answer))
    }

    async fn rebuild(&self, subject: &ActionTarget) -> ActionResult {
        let canvas = subject.canvas.clone().ok_or_else(|| ApiProblem::bad("say which canvas: canvas"))?;
        if self.index.canvas(&canvas)?.is_empty() {
            return Err(ApiProblem::not_found("no manifest in the index has this canvas"));
        }
        if !self.healer.is_allowed_canvas(&canvas) {
            return Err(ApiProblem::bad("this canvas belongs to no presentation route"));
        }
        // A canvas built during a fault lacks its images.
        if self.healer.retry_after().is_some() {
            let detail =
                "the canvas service is unwell: a canvas that it builds now would come out without images";
            return Err(ApiProblem::new(StatusCode::CONFLICT, detail));
        }
        let healer = self.healer.clone();
        let built = tokio::spawn(async move { healer.rebuild(&canvas).await }).await;
        match built.map_err(|error| ApiProblem::internal(&error.to_string()))? {
            Ok(document) => Ok((StatusCode::OK, json!({ "bytes": document.len() }))),
            Err(error) => Err(ApiProblem::new(StatusCode::BAD_GATEWAY, error.to_string())),
        }
    }

    /// Removes cached answers of an image, or of all images of a manifest.
    async fn purge(&self, subject: ActionTarget) -> ActionResult {
        let (cache, index) = (self.cache.clone(), Arc::clone(&self.index));
        let purge = move || {
            let keys = match (subject.identifier, subject.manifest) {
                (Some(key), None) => vec![key],
                (None, Some(manifest)) => images_of(&index, &manifest)?,
                _ => return Err(ApiProblem::bad("say what: identifier, or manifest")),
            };
            Ok(cache.purge(keys.iter().map(String::as_str)))
        };
        purged(queries::aside(purge).await)
    }

    async fn reload(&self) -> ActionResult {
        let read = match &self.reload {
            Some(reload) => reload.reload().await,
            None => Err(ReloadError::Nobody),
        };
        match read {
            Ok(changes) => {
                let answer = json!({
                    "changed": changes.keys,
                    "after_restart": changes.after_restart,
                    "certificates": changes.certificates,
                });
                Ok((StatusCode::OK, answer))
            }
            Err(error @ ReloadError::Nobody) => {
                Err(ApiProblem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
            }
            Err(error) => Err(ApiProblem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())),
        }
    }
}

fn purged(count: Result<usize, ApiProblem>) -> ActionResult {
    Ok((StatusCode::OK, json!({ "purged": count? })))
}

/// Lookup keys of all images of a manifest.
fn images_of(index: &Index, manifest: &str) -> Result<Vec<String>, ApiProblem> {
    let id = index.manifest_id(manifest)?.ok_or_else(|| ApiProblem::not_found("no such manifest"))?;
    let (mut keys, mut after) = (Vec::new(), 0);
    loop {
        let rows = index.canvas_rows(id, after, u32::MAX)?;
        let Some(last) = rows.last() else { return Ok(keys) };
        after = last.id;
        keys.extend(rows.into_iter().flat_map(|row| row.images));
    }
}
