//! Servers in Java that are peers of the tests: their jars from Maven Central, each pinned by its hash, and a program of a few lines that starts them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use sha2::{Digest as _, Sha256};

/// Where jars come from.
const CENTRAL: &str = "https://repo1.maven.org/maven2";

/// Fetches the jars that `tests/NAME/jars.sha256` lists, and says by what class path they are used. What was fetched before is used again.
pub(crate) fn class_path(name: &str) -> String {
    // Tests run side by side, and a jar that one of them writes must not be what another reads.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let list = fs::read_to_string(source(name).join("jars.sha256")).unwrap();
    let jars: Vec<(&str, &str)> = list.lines().filter_map(|l| l.split_once("  ")).collect();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("jars");
    fs::create_dir_all(&folder).unwrap();
    let file = |path: &str| folder.join(path.rsplit('/').next().unwrap());
    let is_right =
        |(hash, path): &(&str, &str)| fs::read(file(path)).is_ok_and(|bytes| hex(&bytes) == **hash);
    let missing: Vec<_> = jars.iter().filter(|jar| !is_right(jar)).collect();
    if !missing.is_empty() {
        let mut curl = Command::new("curl");
        curl.args(["-sSf", "--retry", "3", "--parallel", "--parallel-max", "8"]);
        for (_, path) in &missing {
            curl.arg("-o")
                .arg(file(path))
                .arg(format!("{CENTRAL}/{path}"));
        }
        let fetched = curl.output().unwrap();
        assert!(fetched.status.success(), "the jars of {name}: {fetched:?}");
    }
    for jar in missing {
        assert!(is_right(jar), "{} is not what is pinned", jar.1);
    }
    let paths = jars.iter().map(|(_, path)| file(path));
    let paths: Vec<_> = paths.map(|path| path.display().to_string()).collect();
    paths.join(":")
}

/// Java running a program of `tests/NAME`, with at most so many MiB of heap.
pub(crate) fn java(name: &str, program: &str, heap: u32) -> Command {
    let mut java = Command::new("java");
    java.arg(format!("-Xmx{heap}m"))
        .args([
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Dlog4j2.level=warn",
        ])
        .args(["-cp", &class_path(name)])
        .arg(source(name).join(program));
    java
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name)
}

fn hex(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
