//! Finds the server's binary and makes sure that it is up to date.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tokio::sync::OnceCell;

use crate::download::{run, workspace_dir};

/// Returns `EYEGO_TEST_SERVER_BIN` or the workspace's binary, which is built once per process.
pub(super) async fn path() -> Result<PathBuf> {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    if let Some(path) = std::env::var_os("EYEGO_TEST_SERVER_BIN") {
        return Ok(PathBuf::from(path));
    }
    let path =
        BUILT.get_or_try_init(|| async { tokio::task::spawn_blocking(build).await? }).await?;
    Ok(path.clone())
}

/// Builds the binary. Cargo only checks the sources if it is up to date.
fn build() -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    let profile_dir =
        profile_dir(&executable).context("this executable is not in a target directory")?;
    let target_dir = profile_dir.parent().context("a profile's directory has a parent")?;
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        // The only profile whose directory has a different name.
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Build scripts that read the outer cargo's variables for this package would see a change, and
    // half of the dependencies would be built again.
    for (key, _) in std::env::vars_os() {
        let outer = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "OUT_DIR"];
        if key.to_str().is_some_and(|key| outer.iter().any(|prefix| key.starts_with(prefix))) {
            cargo.env_remove(key);
        }
    }
    // Builds the whole workspace, so that dependencies have the same features as in
    // `cargo test --workspace` and are not built a second time.
    cargo
        .args(["build", "--quiet", "--workspace", "--bin", "eyego-log-server"])
        .args(["--profile", profile, "--target-dir"])
        .arg(target_dir)
        .current_dir(workspace_dir()?);
    run(&mut cargo).context("cannot build the server")?;
    Ok(profile_dir.join("eyego-log-server"))
}

/// Tests run from `target/<profile>/deps`, other binaries from `target/<profile>`.
fn profile_dir(executable: &Path) -> Option<&Path> {
    let dir = executable.parent()?;
    if dir.ends_with("deps") { dir.parent() } else { Some(dir) }
}

#[cfg(test)]
mod tests {
    use super::profile_dir;
    use std::path::Path;

    #[tokio::test]
    async fn binary_is_built() {
        assert!(super::path().await.unwrap().is_file());
    }

    #[test]
    fn profile_directory_is_derived_from_the_executable() {
        for executable in ["/w/target/release/deps/it-1a2b", "/w/target/release/stack"] {
            assert_eq!(profile_dir(Path::new(executable)), Some(Path::new("/w/target/release")));
        }
    }
}
