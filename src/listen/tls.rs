//! Server certificates: chosen by SNI, and reloaded while connections are served.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, ParsedCertificate, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::TlsAcceptor;

use crate::config::settings::TlsSettings;

/// Errors that keep certificates from being used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file.
    #[error("TLS: {path}: {source}; it must be a PEM file that this user can read")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: rustls_pki_types::pem::Error,
    },
    /// A file without a certificate.
    #[error("TLS: there is no certificate in {0}; it must be a PEM file that holds one")]
    Empty(PathBuf),
    /// Certificate and key do not fit, or cannot be used.
    #[error("TLS: {path}: {source}; do certificate and key belong together?")]
    Pair {
        /// The certificate.
        path: PathBuf,
        /// Cause.
        source: rustls::Error,
    },
    /// Authorities that cannot be used.
    #[error("TLS: {path}: {source}; it must hold certificates of authorities")]
    Authorities {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: VerifierBuilderError,
    },
    /// Rustls.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Certificates with their keys, as they were read from their files.
#[derive(Debug, Clone)]
pub struct Certificates(Vec<Arc<CertifiedKey>>);

impl Certificates {
    /// Reads all pairs; a bad one is an error for all.
    pub fn read(pairs: &[TlsSettings]) -> Result<Self, CertificateError> {
        pairs.iter().map(|pair| read(pair).map(Arc::new)).collect::<Result<_, _>>().map(Self)
    }

    /// Certificate for this name; without a match or a name the first.
    fn of(&self, name: Option<&str>, is_fit: impl Fn(&CertifiedKey) -> bool) -> Option<Arc<CertifiedKey>> {
        let name = name.and_then(|name| ServerName::try_from(name).ok());
        let is_named = |pair: &&Arc<CertifiedKey>| match &name {
            Some(name) => pair.cert.first().is_some_and(|leaf| is_for(leaf, name)),
            None => true,
        };
        let mut named = self.0.iter().filter(is_named);
        let fit = named.clone().find(|pair| is_fit(pair));
        fit.or_else(|| named.next()).or_else(|| self.0.first()).cloned()
    }
}

impl PartialEq for Certificates {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().map(|pair| &pair.cert).eq(other.0.iter().map(|pair| &pair.cert))
    }
}

fn is_for(leaf: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    ParsedCertificate::try_from(leaf).is_ok_and(|leaf| verify_server_name(&leaf, name).is_ok())
}

fn read(pair: &TlsSettings) -> Result<CertifiedKey, CertificateError> {
    let chain = all(&pair.cert)?;
    let key = PrivateKeyDer::from_pem_file(&pair.key).map_err(refuse(&pair.key))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider())
        .map_err(|source| CertificateError::Pair { path: pair.cert.clone(), source })
}

/// All certificates of a file; at least one.
fn all(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let found = CertificateDer::pem_file_iter(path).map_err(refuse(path))?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(refuse(path))?;
    if found.is_empty() { Err(CertificateError::Empty(path.to_owned())) } else { Ok(found) }
}

fn refuse(path: &Path) -> impl FnOnce(rustls_pki_types::pem::Error) -> CertificateError {
    let path = path.to_owned();
    move |source| CertificateError::Pem { path, source }
}

/// Verifier for client certificates of these authorities. A client without a certificate is accepted as anonymous.
fn clients(path: &Path) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
    let mut authorities = RootCertStore::empty();
    for authority in all(path)? {
        authorities.add(authority)?;
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider);
    let verifier = verifier.allow_unauthenticated().build();
    verifier.map_err(|source| CertificateError::Authorities { path: path.to_owned(), source })
}

/// The certificates in use. A handshake takes those that hold at its beginning.
#[derive(Debug)]
pub struct CertificateResolver(ArcSwap<Certificates>);

impl CertificateResolver {
    /// TLS 1.2 and 1.3 with these certificates, HTTP/2 before HTTP/1.1. With a file of `authorities` a client may show
    /// a certificate that they issued; any other certificate ends the handshake.
    pub fn new(
        certificates: Certificates,
        authorities: Option<&Path>,
    ) -> Result<(Arc<Self>, TlsAcceptor), CertificateError> {
        let clients = authorities.map(clients).transpose()?;
        let resolver = Arc::new(Self(ArcSwap::from_pointee(certificates)));
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients.unwrap_or_else(WebPkiClientVerifier::no_client_auth))
            .with_cert_resolver(Arc::clone(&resolver) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok((resolver, TlsAcceptor::from(Arc::new(config))))
    }

    /// Replaces the certificates for new connections. True if they differ from the ones before.
    pub fn replace(&self, certificates: Certificates) -> bool {
        let certificates = Arc::new(certificates);
        *self.0.swap(Arc::clone(&certificates)) != *certificates
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        self.0.load().of(hello.server_name(), |pair| pair.key.choose_scheme(schemes).is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn pair(folder: &Path, name: &str) -> TlsSettings {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        fs::write(&cert, made.cert.pem()).expect("a file");
        fs::write(&key, made.signing_key.serialize_pem()).expect("a file");
        TlsSettings { cert, key }
    }

    #[test]
    fn the_name_that_is_asked_for_chooses_and_who_is_unknown_gets_the_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let pairs = ["one.test", "*.two.test"].map(|name| pair(folder.path(), name));
        let certificates = Certificates::read(&pairs).expect("certificates");
        let of = |name| certificates.of(name, |_| true).expect("one");
        let at = |number: usize| Arc::as_ptr(&certificates.0[number]);
        for (name, expected) in
            [(Some("one.test"), 0), (Some("a.two.test"), 1), (Some("other.test"), 0), (None, 0)]
        {
            assert_eq!(Arc::as_ptr(&of(name)), at(expected), "{name:?}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_name_of_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, two) = (pair(folder.path(), "one.test"), pair(folder.path(), "two.test"));
        let refused = |cert: &Path, key: &Path| {
            let pair = TlsSettings { cert: cert.to_owned(), key: key.to_owned() };
            Certificates::read(&[pair]).expect_err("not to be used").to_string()
        };
        assert!(refused(&one.cert, &two.key).contains("belong together"));
        assert!(refused(&one.key, &one.key).contains("there is no certificate in"));
        assert!(refused(Path::new("/nowhere.pem"), &one.key).contains("/nowhere.pem"));
        fs::write(&two.key, "-----BEGIN PRIVATE KEY-----\nAAAA\n").expect("a file");
        assert!(refused(&two.cert, &two.key).contains("two.test.key"));
    }
}
