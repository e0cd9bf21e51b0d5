//! TLS certificate and its reload.
//!
//! The certificate is in two files, as a mounted Secret has them. The kubelet swaps them by a symbolic link when the
//! Secret changes, which a file watch does not see on all systems, so the files are read every few seconds. An unusable
//! certificate is logged and counted, and the previous one stays in use: an expired certificate is better than none.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::io::AsyncReadExt as _;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::metrics::Metrics;

/// The certificate in use.
#[derive(Debug)]
pub struct Certificates {
    certificate: PathBuf,
    key: PathBuf,
    current: ArcSwapOption<CertifiedKey>,
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct State {
    hasher: RandomState,
    /// Hash of the files at the last read.
    seen: Option<u64>,
    /// Hash of the files that are in use, or known to be unusable.
    evaluated: Option<u64>,
    /// Expiry of the certificate in use, as Unix time in seconds; cleared once it has been logged.
    not_after: Option<i64>,
}

/// Contents of the two files.
struct Pem {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// Why the files are unusable.
#[derive(Debug, thiserror::Error)]
enum CertificateError {
    #[error("failed to read a file: {0}")]
    Unread(#[from] io::Error),
    #[error("invalid PEM in the certificate file: {0}")]
    Certificate(rustls::pki_types::pem::Error),
    #[error("no PEM private key in the key file: {0}")]
    Key(rustls::pki_types::pem::Error),
    #[error("no certificate in the certificate file")]
    Empty,
    #[error("certificate and key do not match, or have an unsupported type: {0}")]
    Pair(rustls::Error),
    #[error("failed to parse the certificate: {0}")]
    Malformed(String),
}

/// How often the files are read.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);
/// Maximum size that is read. A long chain has some kilobytes.
const MAX_FILE_SIZE: u64 = 1 << 20;

impl Certificates {
    /// Opens the certificate in these files. If it is unusable, TLS connections are refused until it is replaced.
    pub async fn open(certificate: PathBuf, key: PathBuf, metrics: Arc<Metrics>) -> Arc<Self> {
        let state = Mutex::default();
        let this = Arc::new(Self { certificate, key, current: ArcSwapOption::empty(), state, metrics });
        let read = this.read().await;
        // Reported at once: there is no other certificate.
        this.apply(read, unix_now(), true);
        this
    }

    /// Returns the TLS configuration. HTTP/2 is offered before HTTP/1.1.
    ///
    /// # Errors
    ///
    /// If the system provides no random numbers.
    pub fn config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Session tickets: a returning client needs no full handshake, and no state is kept here for it.
        config.ticketer = ring::Ticketer::new()?;
        Ok(Arc::new(config))
    }

    /// Reads the files in an endless loop.
    pub async fn follow(&self) {
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            let read = self.read().await;
            self.apply(read, unix_now(), false);
        }
    }

    async fn read(&self) -> io::Result<Pem> {
        Ok(Pem { certificate: content(&self.certificate).await?, key: content(&self.key).await? })
    }

    /// Takes new contents of the files into use. Files that are swapped while they are read may not match each other,
    /// so a failure counts only if it is seen twice, or if `settled_at_once`.
    fn apply(&self, read: io::Result<Pem>, now: i64, settled_at_once: bool) {
        let mut state = self.state.lock();
        let print =
            state.hasher.hash_one(read.as_ref().map(|pem| (&pem.certificate, &pem.key)).map_err(io::Error::kind));
        let settled = settled_at_once || state.seen == Some(print);
        state.seen = Some(print);
        if state.evaluated != Some(print) {
            match read.map_err(CertificateError::from).and_then(|pem| usable(&pem)) {
                Ok((key, not_after)) => {
                    self.current.store(Some(key));
                    self.metrics.tls.expires(not_after);
                    (state.evaluated, state.not_after) = (Some(print), Some(not_after));
                    tracing::info!(file = %self.certificate.display(), seconds_left = not_after - now, "Loaded TLS certificate");
                }
                Err(error) if settled => {
                    state.evaluated = Some(print);
                    self.metrics.tls.failed_reloads.inc();
                    let file = self.certificate.display();
                    if self.current.load().is_some() {
                        tracing::warn!(%file, %error, "Failed to load the new TLS certificate; keeping the previous one");
                    } else {
                        tracing::error!(%file, %error, "No usable TLS certificate; refusing TLS connections until there is one");
                    }
                }
                Err(_) => {}
            }
        }
        if state.not_after.is_some_and(|not_after| not_after <= now) {
            state.not_after = None;
            tracing::warn!(file = %self.certificate.display(), "TLS certificate has expired; still serving it");
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }
}

async fn content(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = vec![];
    tokio::fs::File::open(path).await?.take(MAX_FILE_SIZE).read_to_end(&mut content).await?;
    Ok(content)
}

/// Parses a certificate with its key, and returns it with its expiry as Unix time in seconds.
fn usable(pem: &Pem) -> Result<(Arc<CertifiedKey>, i64), CertificateError> {
    let chain = CertificateDer::pem_slice_iter(&pem.certificate).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(CertificateError::Certificate)?;
    let (_, first) = X509Certificate::from_der(chain.first().ok_or(CertificateError::Empty)?)
        .map_err(|error| CertificateError::Malformed(error.to_string()))?;
    let not_after = first.validity().not_after.timestamp();
    let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(CertificateError::Key)?;
    let key = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(CertificateError::Pair)?;
    Ok((Arc::new(key), not_after))
}

/// Certificates expire by the wall clock.
fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demand::Ledger;

    /// Creates a self-signed certificate.
    fn made() -> Pem {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        Pem { certificate: made.cert.pem().into(), key: made.signing_key.serialize_pem().into() }
    }

    async fn opened(folder: &Path, pem: Option<&Pem>) -> Arc<Certificates> {
        let [certificate, key] = ["tls.crt", "tls.key"].map(|name| folder.join(name));
        if let Some(pem) = pem {
            std::fs::write(&certificate, &pem.certificate).unwrap();
            std::fs::write(&key, &pem.key).unwrap();
        }
        Certificates::open(certificate, key, Metrics::new(Ledger::new())).await
    }

    fn failures(certificates: &Certificates) -> u64 {
        certificates.metrics.tls.failed_reloads.get()
    }

    #[tokio::test]
    async fn an_unusable_certificate_leaves_the_previous_one_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (made(), made());
        let certificates = opened(folder.path(), Some(&first)).await;
        let in_use = || certificates.current.load_full().map(|key| key.cert[0].to_vec());
        let before = in_use();
        assert!(before.is_some());
        let bad = [
            Pem { certificate: vec![], key: first.key.clone() },
            Pem { certificate: b"nothing".to_vec(), key: first.key.clone() },
            Pem { certificate: first.certificate.clone(), key: b"nothing".to_vec() },
            // As while both are being swapped.
            Pem { certificate: second.certificate.clone(), key: first.key.clone() },
        ];
        for (n, pem) in bad.into_iter().enumerate() {
            let again = || Ok(Pem { certificate: pem.certificate.clone(), key: pem.key.clone() });
            certificates.apply(again(), 0, false);
            assert_eq!(failures(&certificates), n as u64, "once may be by chance");
            certificates.apply(again(), 0, false);
            certificates.apply(again(), 0, false);
            assert_eq!((in_use(), failures(&certificates)), (before.clone(), n as u64 + 1), "counted once");
        }
        certificates.apply(Err(io::ErrorKind::NotFound.into()), 0, false);
        certificates.apply(Err(io::ErrorKind::NotFound.into()), 0, false);
        assert_eq!((in_use(), failures(&certificates)), (before.clone(), 5));
        certificates.apply(Ok(second), 0, false);
        assert_ne!(in_use(), before);
    }

    #[tokio::test]
    async fn an_expired_certificate_is_logged_once_and_stays_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let certificates = opened(folder.path(), Some(&made())).await;
        let not_after = certificates.state.lock().not_after.unwrap();
        let line = format!("rouse_tls_certificate_expiration_timestamp_seconds {not_after}\n");
        assert!(certificates.metrics.encode().unwrap().contains(&line));
        for now in [not_after, not_after + 1] {
            let read = certificates.read().await;
            certificates.apply(read, now, false);
            assert_eq!(certificates.state.lock().not_after, None);
            assert!(certificates.current.load().is_some());
        }
    }

    #[tokio::test]
    async fn there_is_no_certificate_until_the_files_appear() {
        let folder = tempfile::tempdir().unwrap();
        let certificates = opened(folder.path(), None).await;
        assert!(certificates.current.load().is_none());
        assert!(!certificates.metrics.encode().unwrap().contains("certificate_expiry"));
        certificates.apply(Ok(made()), 0, false);
        assert!(certificates.current.load().is_some());
    }
}
