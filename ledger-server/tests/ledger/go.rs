//! Programs in Go that are peers of the tests, built from modules that pin them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// Builds `package` of the module in `tests/MODULE`. Go's own cache keeps the parts.
pub(crate) fn built(module: &str, package: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(module);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(module);
    let mut build = Command::new(go());
    build
        .current_dir(folder)
        .args(["build", "-mod=readonly", "-o"])
        .arg(&program)
        .arg(package);
    let built = build.output().unwrap_or_else(|e| panic!("{build:?}: {e}"));
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{build:?}: {said}");
    program
}

/// Go from the path, or from where its own installer puts it.
fn go() -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/local/go/bin".into()]);
    folders
        .map(|folder| folder.join("go"))
        .find(|file| file.is_file())
        .expect("Go is missing: peers of the tests are programs in Go; run hack/setup, or install Go 1.26 or later from https://go.dev/dl/")
}
