//! Certificates with their keys.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::value::{As, OneOrMany};

/// `server.tls` and the like: as many certificates as keys, and at least one of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct TlsFiles {
    /// PEM file with the certificate chain, leaf first; or a list of them, selected by SNI.
    #[serde(with = "As::<OneOrMany<PathBuf>>")]
    pub cert: Vec<PathBuf>,
    /// PEM file with the private key; or a list of them, in the order of the certificates.
    #[serde(with = "As::<OneOrMany<PathBuf>>")]
    pub key: Vec<PathBuf>,
}

impl TlsFiles {
    /// Each certificate with its key.
    pub fn pairs(&self) -> Vec<TlsSettings> {
        let pairs = self.cert.iter().zip(&self.key);
        pairs.map(|(cert, key)| TlsSettings { cert: cert.clone(), key: key.clone() }).collect()
    }

    /// Relative paths begin at `folder`.
    pub(in crate::config) fn resolve(&mut self, folder: &Path) {
        for path in self.cert.iter_mut().chain(&mut self.key) {
            *path = folder.join(&*path);
        }
    }
}

/// PEM files of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// Certificate chain, leaf first.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
}
