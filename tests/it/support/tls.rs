//! Certificates of the tests' own, and clients that believe them.
#![allow(clippy::disallowed_methods, reason = "viewers connect to the proxy; the rule is for the product")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A fresh certificate for this name, in the folder as `{file}.pem` and `{file}.key`.
pub(crate) fn makes(folder: &Path, file: &str, name: &str) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    std::fs::write(folder.join(format!("{file}.pem")), made.cert.pem()).expect("a file");
    std::fs::write(folder.join(format!("{file}.key")), made.signing_key.serialize_pem()).expect("a file");
    made.cert.der().clone()
}

/// A client that believes these certificates, and what it says of itself.
#[derive(Default)]
pub(crate) struct TlsClient<'a> {
    pub(crate) trusted: &'a [&'a CertificateDer<'static>],
    pub(crate) own: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    /// Protocols that it offers (ALPN).
    pub(crate) alpn: &'a [&'a str],
}

impl TlsClient<'_> {
    /// Shakes hands with the server of this name; `None`: it is not believed.
    pub(crate) async fn shakes(self, address: SocketAddr, name: &str) -> Option<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in self.trusted {
            roots.add((*certificate).clone()).expect("a certificate");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_root_certificates(roots);
        let mut client = match self.own {
            Some((certificate, key)) => client.with_client_auth_cert(vec![certificate], key).expect("a pair"),
            None => client.with_no_client_auth(),
        };
        client.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let tcp = TcpStream::connect(address).await.expect("a connection");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        TlsConnector::from(Arc::new(client)).connect(name, tcp).await.ok()
    }
}
