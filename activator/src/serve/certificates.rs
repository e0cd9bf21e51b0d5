//! The certificate that TLS connections are served with, and its renewal.
//!
//! It comes from two files, as a mounted Secret has them. The kubelet swaps them by a symbolic link when the Secret changes,
//! which no watch of a file sees in all systems, so they are read again every few seconds. What cannot be used is told and
//! counted, and what was in use stays: a certificate that is late is better than none.

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
    /// What was in the files at the last look.
    seen: Option<u64>,
    /// What is in use or known to be of no use.
    judged: Option<u64>,
    /// When the one in use ends, in seconds of Unix time, until that has been told.
    ends: Option<i64>,
}

/// What two files hold.
struct Pem {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// Why files are of no use.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("no file can be read: {0}")]
    Unread(#[from] io::Error),
    #[error("there is no certificate in PEM in the certificate's file: {0}")]
    Certificate(rustls::pki_types::pem::Error),
    #[error("there is no private key in PEM in the key's file: {0}")]
    Key(rustls::pki_types::pem::Error),
    #[error("the certificate's file is empty")]
    Empty,
    #[error("certificate and key do not belong together, or are of a kind that is not known: {0}")]
    Pair(rustls::Error),
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
}

/// How often the files are read.
const LOOK: Duration = Duration::from_secs(2);
/// More of a file is not read. A long chain has some kilobytes.
const LARGEST: u64 = 1 << 20;

impl Certificates {
    /// The certificate in these files. If they hold none that can be used, connections are refused until they do.
    pub async fn open(certificate: PathBuf, key: PathBuf, metrics: Arc<Metrics>) -> Arc<Self> {
        let state = Mutex::default();
        let this = Arc::new(Self { certificate, key, current: ArcSwapOption::empty(), state, metrics });
        let read = this.read().await;
        // What is bad now is told at once: nothing else can be used.
        this.judge(read, unix_now(), true);
        this
    }

    /// How TLS is spoken. HTTP/2 is offered before HTTP/1.1.
    ///
    /// # Errors
    ///
    /// If the system gives no random numbers.
    pub fn config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A client that comes again needs no whole handshake, and nothing is kept here for it.
        config.ticketer = ring::Ticketer::new()?;
        Ok(Arc::new(config))
    }

    /// Looks at the files for ever.
    pub async fn follow(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let read = self.read().await;
            self.judge(read, unix_now(), false);
        }
    }

    async fn read(&self) -> io::Result<Pem> {
        Ok(Pem { certificate: content(&self.certificate).await?, key: content(&self.key).await? })
    }

    /// Takes what the files hold into use if it is new. Files that are swapped while they are read may not belong together, so
    /// what is of no use is believed when it has been seen twice, or if `believed`.
    fn judge(&self, read: io::Result<Pem>, now: i64, believed: bool) {
        let mut state = self.state.lock();
        let print =
            state.hasher.hash_one(read.as_ref().map(|pem| (&pem.certificate, &pem.key)).map_err(io::Error::kind));
        let settled = believed || state.seen == Some(print);
        state.seen = Some(print);
        if state.judged != Some(print) {
            match read.map_err(Unusable::from).and_then(|pem| usable(&pem)) {
                Ok((key, ends)) => {
                    self.current.store(Some(key));
                    self.metrics.tls.expires(ends);
                    (state.judged, state.ends) = (Some(print), Some(ends));
                    tracing::info!(file = %self.certificate.display(), seconds_left = ends - now, "A TLS certificate is in use");
                }
                Err(error) if settled => {
                    state.judged = Some(print);
                    self.metrics.tls.failed_reloads.inc();
                    let file = self.certificate.display();
                    if self.current.load().is_some() {
                        tracing::warn!(%file, %error, "A new TLS certificate cannot be used; the former is kept");
                    } else {
                        tracing::error!(%file, %error, "There is no TLS certificate; TLS connections are refused until there is");
                    }
                }
                Err(_) => {}
            }
        }
        if state.ends.is_some_and(|ends| ends <= now) {
            state.ends = None;
            tracing::warn!(file = %self.certificate.display(), "The TLS certificate has expired and is still served, for there is no other");
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
    tokio::fs::File::open(path).await?.take(LARGEST).read_to_end(&mut content).await?;
    Ok(content)
}

/// A certificate with its key, and when it ends in seconds of Unix time.
fn usable(pem: &Pem) -> Result<(Arc<CertifiedKey>, i64), Unusable> {
    let chain = CertificateDer::pem_slice_iter(&pem.certificate).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(Unusable::Certificate)?;
    let (_, first) = X509Certificate::from_der(chain.first().ok_or(Unusable::Empty)?)
        .map_err(|error| Unusable::Malformed(error.to_string()))?;
    let ends = first.validity().not_after.timestamp();
    let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(Unusable::Key)?;
    let key = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(Unusable::Pair)?;
    Ok((Arc::new(key), ends))
}

/// Certificates end by the clock of the wall.
fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demand::Ledger;

    /// A certificate that signs itself.
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
    async fn what_cannot_be_used_leaves_the_former_in_use() {
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
            // As while both are swapped.
            Pem { certificate: second.certificate.clone(), key: first.key.clone() },
        ];
        for (n, pem) in bad.into_iter().enumerate() {
            let again = || Ok(Pem { certificate: pem.certificate.clone(), key: pem.key.clone() });
            certificates.judge(again(), 0, false);
            assert_eq!(failures(&certificates), n as u64, "once may be by chance");
            certificates.judge(again(), 0, false);
            certificates.judge(again(), 0, false);
            assert_eq!((in_use(), failures(&certificates)), (before.clone(), n as u64 + 1), "told once");
        }
        certificates.judge(Err(io::ErrorKind::NotFound.into()), 0, false);
        certificates.judge(Err(io::ErrorKind::NotFound.into()), 0, false);
        assert_eq!((in_use(), failures(&certificates)), (before.clone(), 5));
        certificates.judge(Ok(second), 0, false);
        assert_ne!(in_use(), before);
    }

    #[tokio::test]
    async fn an_end_is_told_once_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let certificates = opened(folder.path(), Some(&made())).await;
        let ends = certificates.state.lock().ends.unwrap();
        let line = format!("rouse_tls_certificate_expiry_seconds {ends}\n");
        assert!(certificates.metrics.encode().unwrap().contains(&line));
        for now in [ends, ends + 1] {
            let read = certificates.read().await;
            certificates.judge(read, now, false);
            assert_eq!(certificates.state.lock().ends, None);
            assert!(certificates.current.load().is_some());
        }
    }

    #[tokio::test]
    async fn without_files_there_is_no_certificate_until_they_come() {
        let folder = tempfile::tempdir().unwrap();
        let certificates = opened(folder.path(), None).await;
        assert!(certificates.current.load().is_none());
        assert!(!certificates.metrics.encode().unwrap().contains("certificate_expiry"));
        certificates.judge(Ok(made()), 0, false);
        assert!(certificates.current.load().is_some());
    }
}
