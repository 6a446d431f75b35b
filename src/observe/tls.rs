//! TLS of the endpoint: rustls with ring, and a listener whose handshakes do not wait for each other.

use super::{
    renewed::Renewed,
    token::{bad, private},
};
use crate::error::Result;
use axum::serve::Listener;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};
use tokio::{net::TcpListener, net::TcpStream, task::JoinSet, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Within which a handshake is done, or dropped.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at the same time: more than that wait in the system's queue.
const HANDSHAKES: usize = 64;

/// What the endpoint shows, and whom it lets in.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads certificate and key, and the CA of the client certificates to demand.
    ///
    /// # Errors
    /// [`crate::error::Error::BadConfig`] for files that cannot be read or do not fit each other.
    pub fn read(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|why| bad("--tls-certificate", format!("cannot be used: {why}"), ""))?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let flag = "--tls-client-ca";
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path, flag)? {
                    roots
                        .add(certificate)
                        .map_err(|why| bad(flag, format!("names a file that is no CA: {}: {why}", path.display()), ""))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|why| bad(flag, format!("cannot be used: {why}"), ""))?)
            }
        };
        let chain = certificates(certificate, "--tls-certificate")?;
        let secret = PrivateKeyDer::from_pem_slice(&private(key, "--tls-key")?).map_err(|_| {
            let problem = format!("names a file without a private key in PEM: {}", key.display());
            bad("--tls-key", problem, "it begins with `-----BEGIN PRIVATE KEY-----`; an encrypted key has to be decrypted first")
        })?;
        let mut config = builder.with_single_cert(chain, secret).map_err(|why| {
            bad("--tls-key", format!("and `--tls-certificate` do not go together: {why}"), "give the key that the certificate was made for")
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config).into()))
    }

    /// The same, read again when a file changes: connections made from then on see the new one.
    ///
    /// # Errors
    /// As [`Tls::read`].
    pub fn renewed(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Renewed<Self>> {
        let (certificate, key, client_ca) = (certificate.to_owned(), key.to_owned(), client_ca.map(Path::to_owned));
        let files = [&certificate, &key].into_iter().chain(&client_ca).cloned().collect();
        Renewed::new(files, move || Self::read(&certificate, &key, client_ca.as_deref()))
    }
}

impl Renewed<Tls> {
    pub(super) fn listen(self, tcp: TcpListener) -> TlsListener {
        TlsListener { tcp, tls: self, handshakes: JoinSet::new() }
    }
}

fn certificates(path: &Path, flag: &str) -> Result<Vec<CertificateDer<'static>>> {
    let unreadable = |why: String| bad(flag, format!("names a file that cannot be read: {}: {why}", path.display()), "");
    let text = std::fs::read(path).map_err(|why| unreadable(why.to_string()))?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(|why| unreadable(why.to_string()))?;
    if found.is_empty() {
        return Err(bad(flag, format!("names a file without a certificate in PEM: {}", path.display()), ""));
    }
    Ok(found)
}

/// Hands out connections whose handshake is done.
pub(super) struct TlsListener {
    tcp: TcpListener,
    tls: Renewed<Tls>,
    handshakes: JoinSet<Option<(TlsStream<TcpStream>, SocketAddr)>>,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                Some(done) = self.handshakes.join_next() => if let Ok(Some(connection)) = done { return connection },
                // The listener of the plain endpoint waits out what cannot be accepted, such as too many open files.
                (stream, from) = Listener::accept(&mut self.tcp), if self.handshakes.len() < HANDSHAKES => {
                    let accepting = self.tls.now().0.accept(stream);
                    self.handshakes.spawn(async move {
                        let done = timeout(HANDSHAKE, accepting).await;
                        let why = match done {
                            Ok(Ok(stream)) => return Some((stream, from)),
                            Ok(Err(why)) => why.to_string(),
                            Err(_) => "no handshake in time".to_owned(),
                        };
                        tracing::debug!(%from, error = why, "a connection to the endpoint was dropped");
                        None
                    });
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}
