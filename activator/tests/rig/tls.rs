//! TLS: a certificate authority, and clients that trust it.

use std::{path::Path, sync::Arc};

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{GENEROUS, Rig};

/// Name in the handshake.
const HOST: &str = "hello.default.example.com";

/// The certificate authority that the clients of tests trust.
pub(crate) struct Authority {
    issuer: rcgen::Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: rcgen::Issuer::new(params, key), root }
    }

    /// Writes a certificate for every function of `default`, as the kubelet does: into a new folder that a symbolic
    /// link is moved to.
    pub(crate) fn write(&self, folder: &Path, version: &str, last_year: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["*.default.example.com".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        swap(folder, version, &certificate.pem(), &key.serialize_pem());
        certificate.der().clone()
    }

    /// Writes a certificate into the folder; returns the flags of the TLS listener.
    pub(crate) fn flags(&self, folder: &Path) -> [String; 3] {
        self.write(folder, "1", 2100);
        let [certificate, key] = ["tls.crt", "tls.key"].map(|file| folder.join("..data").join(file));
        [
            "--tls-addr=127.0.0.1:0".to_owned(),
            format!("--tls-cert-file={}", certificate.display()),
            format!("--tls-key-file={}", key.display()),
        ]
    }

    /// A TLS connection that offers these protocols.
    pub(crate) async fn connect(&self, rig: &Rig, protocols: &[&str]) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(rig.tls.unwrap()).await.unwrap();
        timeout(GENEROUS, self.try_connect(stream, protocols)).await.expect("no handshake").unwrap()
    }

    pub(crate) async fn try_connect(
        &self,
        stream: TcpStream,
        protocols: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(HOST).unwrap(), stream).await
    }
}

pub(crate) fn swap(folder: &Path, version: &str, certificate: &str, key: &str) {
    let data = folder.join(version);
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("tls.crt"), certificate).unwrap();
    std::fs::write(data.join("tls.key"), key).unwrap();
    let link = folder.join("..next");
    std::os::unix::fs::symlink(version, &link).unwrap();
    std::fs::rename(link, folder.join("..data")).unwrap();
}
