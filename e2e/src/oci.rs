//! OCI image archives, created without Docker: one layer, a configuration, a manifest and an index in a tar file.
//!
//! `ctr images import`, `kind load image-archive`, `docker load` and skopeo read them. The output is reproducible.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::places::hex;

/// Content of an image.
#[derive(Clone, Debug)]
pub struct Image {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Numeric `user` or `user:group`.
    pub user: String,
    /// Files: source path and absolute path in the image. All are readable and executable.
    pub files: Vec<(PathBuf, String)>,
}

/// An image in memory: its blobs.
#[derive(Debug)]
pub struct Packed {
    layer: Blob,
    config: Blob,
    manifest: Blob,
}

#[derive(Debug)]
struct Blob {
    hex: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self { hex: hex(&Sha256::digest(&bytes)), bytes }
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": format!("sha256:{}", self.hex), "size": self.bytes.len()})
    }
}

/// Returns the architecture of this machine in the notation of image manifests.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Image {
    /// Packs the files.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    pub fn pack(&self) -> Result<Packed> {
        let layer = Blob::new(self.layer()?);
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint,
                "User": self.user,
                "WorkingDir": "/",
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", layer.hex)]},
        });
        let config = Blob::new(serde_json::to_vec(&config)?);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar")],
        });
        let manifest = Blob::new(serde_json::to_vec(&manifest)?);
        Ok(Packed { layer, config, manifest })
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut files = self.files.clone();
        files.sort_by(|a, b| a.1.cmp(&b.1));
        let mut folders = std::collections::BTreeSet::from(["tmp".to_owned()]);
        for (_, target) in &files {
            let parts: Vec<&str> = target.trim_matches('/').split('/').collect();
            folders.extend((1..parts.len()).map(|n| parts[..n].join("/")));
        }
        let mut tar = tar::Builder::new(Vec::new());
        for folder in folders {
            let mode = if folder == "tmp" { 0o1777 } else { 0o755 };
            append(&mut tar, &format!("{folder}/"), tar::EntryType::Directory, mode, &[])?;
        }
        for (source, target) in files {
            let bytes = std::fs::read(&source).with_context(|| format!("Cannot read {}", source.display()))?;
            append(&mut tar, target.trim_matches('/'), tar::EntryType::Regular, 0o755, &bytes)?;
        }
        Ok(tar.into_inner()?)
    }
}

impl Packed {
    /// Returns the digest of the manifest without `sha256:`, 64 hexadecimal digits, independent of the image's name.
    pub fn digest(&self) -> &str {
        &self.manifest.hex
    }

    /// Writes the archive under a full image reference (`registry/name:tag`).
    pub fn write(&self, reference: &str, out: impl Write) -> Result<()> {
        let mut descriptor = self.manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
        descriptor["platform"] = json!({"architecture": architecture(), "os": "linux"});
        descriptor["annotations"] = json!({
            "io.containerd.image.name": reference,
            "org.opencontainers.image.ref.name": reference.rsplit(':').next().unwrap_or_default(),
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor],
        });
        // `docker load` reads this file instead of the index.
        let docker = json!([{
            "Config": format!("blobs/sha256/{}", self.config.hex),
            "RepoTags": [reference],
            "Layers": [format!("blobs/sha256/{}", self.layer.hex)],
        }]);
        let mut tar = tar::Builder::new(out);
        let mut file = |path: &str, bytes: &[u8]| append(&mut tar, path, tar::EntryType::Regular, 0o644, bytes);
        file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        file("index.json", &serde_json::to_vec(&index)?)?;
        file("manifest.json", &serde_json::to_vec(&docker)?)?;
        for blob in [&self.layer, &self.config, &self.manifest] {
            file(&format!("blobs/sha256/{}", blob.hex), &blob.bytes)?;
        }
        tar.into_inner()?.flush()?;
        Ok(())
    }
}

/// Adds an entry without time and owner, so that the archive is reproducible.
fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    path: &str,
    kind: tar::EntryType,
    mode: u32,
    bytes: &[u8],
) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, path, bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    fn image(folder: &std::path::Path) -> Image {
        let file = folder.join("program");
        std::fs::write(&file, b"program").unwrap();
        Image {
            entrypoint: vec!["/bin/program".into()],
            user: "65532".into(),
            files: vec![(file, "/bin/program".into())],
        }
    }

    fn entries(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(bytes);
        let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().to_string_lossy().into_owned(), content)
        };
        archive.entries().unwrap().map(read).collect()
    }

    #[test]
    fn every_blob_is_named_by_its_content_and_referred_to() {
        let folder = tempfile::tempdir().unwrap();
        let mut out = Vec::new();
        image(folder.path()).pack().unwrap().write("localhost/x:1", &mut out).unwrap();
        let files = entries(&out);
        for (path, content) in &files {
            if let Some(name) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(name, hex(&Sha256::digest(content)));
            }
        }
        let blob = |digest: &Value| {
            let path = format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"));
            files.get(&path).unwrap_or_else(|| panic!("{path} is missing")).clone()
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "localhost/x:1");
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0]["digest"])).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"]["digest"])).unwrap();
        assert_eq!(config["config"]["Entrypoint"], json!(["/bin/program"]));
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        let layer = entries(&blob(&manifest["layers"][0]["digest"]));
        assert_eq!(layer["bin/program"], b"program");
        assert!(layer.contains_key("bin/") && layer.contains_key("tmp/"));
    }

    #[test]
    fn the_same_files_give_the_same_bytes_and_others_do_not() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let bytes = |folder: &std::path::Path| {
            let mut out = Vec::new();
            image(folder).pack().unwrap().write("localhost/x:1", &mut out).unwrap();
            out
        };
        assert_eq!(bytes(a.path()), bytes(b.path()));
        let packed = image(a.path()).pack().unwrap();
        std::fs::write(a.path().join("program"), b"program 2").unwrap();
        let other = Image { files: vec![(a.path().join("program"), "/bin/program".into())], ..image(b.path()) };
        assert_ne!(packed.digest(), other.pack().unwrap().digest());
    }

    #[test]
    fn a_missing_file_is_named() {
        let image = Image { entrypoint: vec![], user: "0".into(), files: vec![("/nowhere/x".into(), "/x".into())] };
        assert!(format!("{:#}", image.pack().unwrap_err()).contains("/nowhere/x"));
    }
}
