//! Dialling: name resolution, TCP, TLS. The address to connect to and the name in the request may differ.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Authority;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connection as _, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tower_service::Service;

use super::carrier::ActiveConnection;
use super::error::UpstreamError;
use super::http1::{Http1Connection, Stream};
use super::http2::Http2Pool;
use crate::config::settings::{self, Http2, UpstreamUrl};

/// Errors of the TLS settings for upstreams.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The extra CA file cannot be read as PEM.
    #[error(
        "cannot read certificates from {path}: {source}; [upstream] ca must name a PEM file with at least one certificate"
    )]
    Ca {
        /// The file.
        path: String,
        /// Cause.
        source: rustls_pki_types::pem::Error,
    },
    /// The client certificate or its key cannot be read as PEM.
    #[error("[upstream] client_certificate: {path}: {source}; it must be a PEM file that this user can read")]
    Identity {
        /// The file.
        path: String,
        /// Cause.
        source: rustls_pki_types::pem::Error,
    },
    /// rustls refused a certificate or its own settings.
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
}

/// TLS towards upstreams: the system's roots plus an optional extra CA, and our own certificate where there is one.
pub fn client_tls(upstream: &settings::UpstreamSettings) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    let mut roots = rustls::RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!(%error, "a system certificate store could not be read");
    }
    roots.add_parsable_certificates(native.certs);
    if let Some(path) = &upstream.ca {
        let refuse = |source| TlsError::Ca { path: path.display().to_string(), source };
        let certs = CertificateDer::pem_file_iter(path).map_err(refuse)?.collect::<Result<Vec<_>, _>>();
        let certs = certs.map_err(refuse)?;
        if certs.is_empty() {
            return Err(refuse(rustls_pki_types::pem::Error::NoItemsFound));
        }
        for cert in certs {
            roots.add(cert)?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(Arc::new(
        match upstream.client_certificate.as_ref().and_then(|files| files.pairs().into_iter().next()) {
            None => config.with_no_client_auth(),
            Some(files) => {
                let (chain, key) = identity(&files)?;
                config.with_client_auth_cert(chain, key)?
            }
        },
    ))
}

/// Client certificate for upstreams that ask for one.
fn identity(
    files: &settings::TlsSettings,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let refuse = |path: &Path| {
        let path = path.display().to_string();
        move |source| TlsError::Identity { path, source }
    };
    let chain = CertificateDer::pem_file_iter(&files.cert).map_err(refuse(&files.cert))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(refuse(&files.cert))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(refuse(&files.key))?;
    Ok((chain, key))
}

/// Time without a packet from an upstream after which its host is probed.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Opens connections to one upstream.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    connector: HttpsConnector<ConnectTo>,
    /// Connector for HTTP/1.1 only.
    alone: HttpsConnector<ConnectTo>,
    /// Scheme and authority of the upstream: Host and TLS name.
    target: Uri,
    /// HTTP/2 without asking.
    knows_http2: bool,
}

impl Dialer {
    pub(super) fn new(
        url: &UpstreamUrl,
        connect: Option<Authority>,
        bounds: &settings::UpstreamSettings,
        tls: &Arc<rustls::ClientConfig>,
    ) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // A host that is gone answers no probe. Without one, a request for a canvas would wait for `heal.timeout`.
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE / 3));
        tcp.set_keepalive_retries(Some(3));
        // Shared by the addresses of a name, so that the first, dead one does not use up the time of the rest.
        tcp.set_connect_timeout(Some(bounds.connect_timeout));
        let connector = || HttpsConnectorBuilder::new().with_tls_config((**tls).clone()).https_or_http();
        let elsewhere = ConnectTo { tcp, connect };
        let alone = connector().enable_http1().wrap_connector(elsewhere.clone());
        let connector = match bounds.http2 {
            Http2::Off => alone.clone(),
            Http2::Auto => connector().enable_all_versions().wrap_connector(elsewhere),
            Http2::Always => connector().enable_http2().wrap_connector(elsewhere),
        };
        let mut target = http::uri::Parts::default();
        target.scheme = Some(url.scheme.clone());
        target.authority = Some(url.authority.clone());
        target.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
        let target = Uri::from_parts(target).unwrap_or_default();
        Self { connector, alone, target, knows_http2: bounds.http2 == Http2::Always }
    }

    /// Resolves, connects, shakes hands. The caller sets the deadline.
    pub(super) async fn dial(&self, http2: &Http2Pool) -> Result<ActiveConnection, UpstreamError> {
        let io = self.connector.clone().call(self.target.clone()).await.map_err(refused)?;
        let is_http2 = self.knows_http2 || io.connected().is_negotiated_h2();
        http2.record_dial(!is_http2);
        if is_http2 {
            http2.open(io).await.map(ActiveConnection::Shared).map_err(UpstreamError::Handshake)
        } else {
            Ok(ActiveConnection::Own(Box::new(Http1Connection::new(stream(io)))))
        }
    }
}

impl Dialer {
    /// A connection in HTTP/1.1 that never goes to the pool, because it may go on in another protocol.
    pub(super) async fn dial_alone(&self) -> Result<Http1Connection, UpstreamError> {
        let io = self.alone.clone().call(self.target.clone()).await.map_err(refused)?;
        let mut connection = Http1Connection::new(stream(io));
        connection.alone = true;
        Ok(connection)
    }
}

/// The stream of bytes itself, without a layer that plain TCP does not need.
fn stream(io: MaybeHttpsStream<TokioIo<TcpStream>>) -> Stream {
    match io {
        MaybeHttpsStream::Http(tcp) => Box::new(tcp.into_inner()),
        tls @ MaybeHttpsStream::Https(_) => Box::new(TokioIo::new(tls)),
    }
}

fn refused(error: Box<dyn Error + Send + Sync>) -> UpstreamError {
    let error = UpstreamError::Connect(error);
    if error.is_timeout() { UpstreamError::ConnectTimeout } else { error }
}

/// Connects to `connect` in place of the host that the URL names, so that a proxy can stand under the very
/// name that its upstream had before.
#[derive(Debug, Clone)]
pub(super) struct ConnectTo {
    tcp: HttpConnector,
    connect: Option<Authority>,
}

impl Service<Uri> for ConnectTo {
    type Response = <HttpConnector as Service<Uri>>::Response;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = <HttpConnector as Service<Uri>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(cx)
    }

    fn call(&mut self, named: Uri) -> Self::Future {
        let Some(connect) = &self.connect else { return self.tcp.call(named) };
        let mut parts = named.clone().into_parts();
        parts.authority = Some(connect.clone());
        self.tcp.call(Uri::from_parts(parts).unwrap_or(named))
    }
}
