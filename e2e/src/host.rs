//! Programs and services of this machine: where they are and whether they respond.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::{command, succeeds};

/// Where distributions put the CNI plugins.
const CNI_FOLDERS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];
/// The plugins that a node's pod network is made of.
const CNI_PLUGINS: [&str; 4] = ["ptp", "host-local", "portmap", "loopback"];

/// Whether a Docker engine responds.
pub async fn docker_responds() -> bool {
    // Without it, an unreachable engine on another machine blocks for minutes.
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, succeeds(command("docker", ["info"]))).await.unwrap_or(false)
}

/// The folder with the CNI plugins.
pub fn cni_folder() -> Option<&'static Path> {
    CNI_FOLDERS.iter().map(Path::new).find(|folder| CNI_PLUGINS.iter().all(|plugin| folder.join(plugin).exists()))
}

/// Looks for a program on PATH and, because not every root has them there, in the sbin folders.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(sbin).map(|folder| folder.join(name)).find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_a_file_on_the_path() {
        assert!(find_program("sh").is_some_and(|program| program.is_file()));
        assert_eq!(find_program("no-such-program-of-rouse"), None);
    }
}
