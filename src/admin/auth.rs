//! Authentication of operators: the right to read, and the right to act.

use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use governor::{DefaultDirectRateLimiter, Quota};
use http::uri::Authority;
use http::{HeaderMap, Request, StatusCode, header};

use super::Operator;
use super::answer::ApiProblem;
use super::token_attempts::TokenAttempts;
use crate::config::settings;

/// Shorter tokens can be guessed.
const MIN_TOKEN: usize = 16;

/// Errors while the admin access rules are read.
#[derive(Debug, thiserror::Error)]
pub enum AdminAuthError {
    /// The file cannot be read.
    #[error("[admin] token_file: {path}: {source}; it must be a file that this user can read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The token is too short, or more than one line.
    #[error(
        "[admin] token_file: {0}: a token is one line of at least {MIN_TOKEN} visible characters; \
         `openssl rand -hex 24` makes one"
    )]
    Weak(PathBuf),
}

/// Lets operators in.
#[derive(Debug)]
pub struct AdminAuth {
    /// Digest of the token: comparing digests takes the same time wherever they differ.
    token: Option<blake3::Hash>,
    /// True if operators must authenticate.
    asks: bool,
    acts: DefaultDirectRateLimiter,
    /// Shared by all configurations of a process: a reload must not reset the count of guesses.
    attempts: Arc<TokenAttempts>,
}

impl AdminAuth {
    /// Builds the access rules of these settings; reads the token.
    pub fn open(admin: &settings::AdminSettings) -> Result<Self, AdminAuthError> {
        let token = admin.token_file.as_deref().map(read_token).transpose()?;
        Ok(Self { token, ..Self::shut(admin) })
    }

    /// Builds access rules for a missing token: only a client with a certificate of `client_ca` gets in.
    pub fn shut(admin: &settings::AdminSettings) -> Self {
        let acts = NonZeroU32::new(admin.acts).unwrap_or(NonZeroU32::MIN);
        let burst = acts.saturating_mul(NonZeroU32::MIN.saturating_add(2));
        let acts = DefaultDirectRateLimiter::direct(Quota::per_second(acts).allow_burst(burst));
        Self { token: None, asks: admin.requires_auth(), acts, attempts: Arc::default() }
    }

    /// Takes over the record of wrong tokens from other access rules.
    #[must_use]
    pub(super) fn after(self, other: &Self) -> Self {
        Self { attempts: Arc::clone(&other.attempts), ..self }
    }

    /// Checks whether this request may be answered at all.
    pub(super) fn authorize<B>(&self, request: &Request<B>, operator: &Operator) -> Result<(), ApiProblem> {
        if !self.asks {
            return is_loopback_host(request);
        }
        if operator.certified {
            return Ok(());
        }
        let Some(shown) = shown(request.headers()) else { return Err(ApiProblem::unauthorized()) };
        let (address, now) = (operator.peer.ip(), Instant::now());
        // SECURITY: checked before the token, so that a correct guess gets the same answer.
        if let Some(after) = self.attempts.holds(address, now) {
            return Err(ApiProblem::too_many().after(after));
        }
        if self.token.is_some_and(|token| blake3::hash(shown.as_bytes()) == token) {
            return Ok(());
        }
        self.attempts.record_wrong(address, now);
        Err(ApiProblem::unauthorized())
    }

    /// Checks whether the request may change something.
    ///
    /// SECURITY: a page of another site can make a browser send POST, with the browser's credentials for us, but the
    /// browser names that site in `Origin` (Fetch standard); a request without `Origin` must send JSON, which no form can.
    pub(super) fn authorize_action<B>(&self, request: &Request<B>) -> Result<(), ApiProblem> {
        let fields = request.headers();
        let is_json = field(fields, header::CONTENT_TYPE)
            .and_then(|kind| kind.split(';').next())
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
        let origin = fields.get(header::ORIGIN);
        if origin.is_none() && !is_json {
            let detail = "send Content-Type: application/json, with a body or without";
            return Err(ApiProblem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        if let Some(origin) = origin {
            let origin = origin.to_str().unwrap_or_default();
            let own = authority(request).map(|authority| authority.to_string()).unwrap_or_default();
            let is_own = origin.split_once("://").is_some_and(|(_, from)| from.eq_ignore_ascii_case(&own));
            if !is_own {
                return Err(ApiProblem::new(StatusCode::FORBIDDEN, "this request comes from another site"));
            }
        }
        self.acts.check().map_err(|_| ApiProblem::too_many())
    }
}

fn read_token(path: &Path) -> Result<blake3::Hash, AdminAuthError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| AdminAuthError::Unreadable { path: path.to_path_buf(), source })?;
    let token = text.trim();
    let is_good = token.len() >= MIN_TOKEN && token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_good { Ok(blake3::hash(token.as_bytes())) } else { Err(AdminAuthError::Weak(path.to_path_buf())) }
}

/// Refuses a `Host` that is not this machine: without a token whoever reaches the listener is an operator.
///
/// SECURITY: a site whose name is made to lead to 127.0.0.1 (DNS rebinding) would reach the listener from the operator's
/// own browser; its requests carry its name.
fn is_loopback_host<B>(request: &Request<B>) -> Result<(), ApiProblem> {
    let is_local = authority(request).is_some_and(|authority| {
        let host = authority.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
    });
    if is_local {
        return Ok(());
    }
    let detail =
        "without a token these pages answer to localhost and to IP addresses only: see [admin] token_file";
    Err(ApiProblem::new(StatusCode::MISDIRECTED_REQUEST, detail))
}

fn authority<B>(request: &Request<B>) -> Option<Authority> {
    request.uri().authority().cloned().or_else(|| field(request.headers(), header::HOST)?.parse().ok())
}

fn field(fields: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    fields.get(name)?.to_str().ok()
}

/// Token of the request: `Bearer` (RFC 6750 section 2.1), or the password of `Basic` (RFC 7617), which a browser asks for.
fn shown(fields: &HeaderMap) -> Option<String> {
    let (scheme, rest) = field(fields, header::AUTHORIZATION)?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    decoded.split_once(':').map(|(_, password)| password.to_owned())
}
