//! The cluster's certificates: one authority, made anew for each cluster and gone with its folder.

use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

/// Who a certificate is for.
struct Subject<'a> {
    file: &'a str,
    name: &'a str,
    group: Option<&'a str>,
    /// Names and addresses, for servers.
    hosts: &'a [&'a str],
    addresses: &'a [IpAddr],
}

/// The folder with the certificates and keys.
#[derive(Clone, Debug)]
pub(super) struct Pki(PathBuf);

impl Pki {
    pub(super) fn at(folder: &Path) -> Self {
        Self(folder.join("pki"))
    }

    /// `<name>.crt` or `<name>.key`.
    pub(super) fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Makes them all. `api` are the addresses that the API server answers on.
    pub(super) fn create(&self, node: &str, node_address: IpAddr, api: &[IpAddr]) -> Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let ca = self.authority("ca", "rouse-e2e")?;
        let front = self.authority("front-proxy-ca", "rouse-e2e-front-proxy")?;
        let client = |file, name, group| Subject { file, name, group, hosts: &[], addresses: &[] };
        let api_hosts = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
        ];
        let node_name = format!("system:node:{node}");
        let subjects = [
            Subject { file: "apiserver", name: "kube-apiserver", group: None, hosts: &api_hosts, addresses: api },
            Subject {
                file: "kubelet",
                name: &node_name,
                group: Some("system:nodes"),
                hosts: &[node],
                addresses: &[node_address],
            },
            client("apiserver-kubelet-client", "kube-apiserver-kubelet-client", Some("system:masters")),
            client("admin", "rouse-e2e-admin", Some("system:masters")),
            client("controller-manager", "system:kube-controller-manager", None),
            client("scheduler", "system:kube-scheduler", None),
            client("proxy", "system:kube-proxy", None),
        ];
        for subject in &subjects {
            self.issue(subject, &ca)?;
        }
        self.issue(&client("front-proxy-client", "front-proxy-client", None), &front)?;
        let tokens = KeyPair::generate()?;
        std::fs::write(self.0.join("service-accounts.key"), tokens.serialize_pem())?;
        std::fs::write(self.0.join("service-accounts.pub"), tokens.public_key_pem())?;
        Ok(())
    }

    fn authority(&self, file: &str, name: &str) -> Result<Issuer<'static, KeyPair>> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        std::fs::write(self.0.join(format!("{file}.crt")), params.self_signed(&key)?.pem())?;
        std::fs::write(self.0.join(format!("{file}.key")), key.serialize_pem())?;
        Ok(Issuer::new(params, key))
    }

    fn issue(&self, subject: &Subject<'_>, issuer: &Issuer<'_, KeyPair>) -> Result<()> {
        let hosts: Vec<String> = subject.hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts)?;
        params.subject_alt_names.extend(subject.addresses.iter().map(|address| SanType::IpAddress(*address)));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject.name);
        if let Some(group) = subject.group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        std::fs::write(self.0.join(format!("{}.crt", subject.file)), params.signed_by(&key, issuer)?.pem())?;
        std::fs::write(self.0.join(format!("{}.key", subject.file)), key.serialize_pem())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_certificate_has_its_key_and_strangers_cannot_read_them() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::at(folder.path());
        pki.create("rouse-x", "10.250.0.2".parse().unwrap(), &["10.96.0.1".parse().unwrap()]).unwrap();
        let inside = folder.path().join("pki");
        assert_eq!(std::fs::metadata(&inside).unwrap().permissions().mode() & 0o777, 0o700);
        let mut certificates = 0;
        for entry in std::fs::read_dir(&inside).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "crt") {
                certificates += 1;
                assert!(KeyPair::from_pem(&std::fs::read_to_string(path.with_extension("key")).unwrap()).is_ok());
            }
        }
        assert_eq!(certificates, 10);
        assert!(Path::new(&pki.file("service-accounts.pub")).exists());
    }
}
