//! Fixtures for tests: real models and public datasets, found in place or skipped loudly.
//!
//! Nothing is downloaded here and nothing is faked. A test that needs a fixture begins with
//!
//! ```no_run
//! let Some(gguf) = assay_testkit::model("smollm2-135m-instruct") else { return };
//! ```
//!
//! and says `SKIPPED` on standard error when the fixture is missing. `ASSAY_TEST_REQUIRE=1`, which CI
//! sets, turns a missing model into a failure: models can be fetched anywhere, datasets cannot.

#![expect(clippy::print_stderr, reason = "test support talks to the person who runs the tests")]

use std::path::{Path, PathBuf};

/// Root of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("workspace root")
}

/// Folder of a model of the catalog, e.g. `smollm2-135m-instruct`.
///
/// Looked up in `ASSAY_TEST_MODELS`, then in the shared cache that `assay model fetch` fills.
pub fn model(name: &str) -> Option<PathBuf> {
    let found = optional_model(name);
    assert!(
        found.is_some() || std::env::var_os("ASSAY_TEST_REQUIRE").is_none(),
        "model {name} is required by ASSAY_TEST_REQUIRE and was not found; {MODEL_HINT}"
    );
    found
}

const MODEL_HINT: &str = "run `assay model fetch` or set ASSAY_TEST_MODELS";

/// [`model`] for one that cannot be fetched everywhere: `ASSAY_TEST_REQUIRE` does not ask for it.
pub fn optional_model(name: &str) -> Option<PathBuf> {
    let roots = [
        std::env::var_os("ASSAY_TEST_MODELS").map(PathBuf::from),
        std::env::var_os("ASSAY_CACHE").map(|c| PathBuf::from(c).join("models")),
        std::env::var_os("XDG_CACHE_HOME").map(|c| PathBuf::from(c).join("assay/models")),
        std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache/assay/models")),
    ];
    let found = roots.into_iter().flatten().map(|r| r.join(name)).find(|p| p.is_dir());
    present(found, &format!("model {name}"), MODEL_HINT)
}

/// Path of the GGUF file of the small decoder.
pub fn smollm() -> Option<PathBuf> {
    model("smollm2-135m-instruct").map(|m| m.join("SmolLM2-135M-Instruct.Q4_1.gguf"))
}

/// Folder of a public dataset, e.g. `xquad`, in `ASSAY_TEST_DATA` or `../shared/data` beside the checkout.
pub fn dataset(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("ASSAY_TEST_DATA")
        .map_or_else(|| workspace().join("../shared/data"), PathBuf::from);
    let found = Some(root.join(name)).filter(|p| p.is_dir());
    present(found, &format!("dataset {name}"), "set ASSAY_TEST_DATA to the folder of datasets")
}

/// The golden metric vectors, in `ASSAY_TEST_GOLDEN` or `../shared/golden` beside the checkout.
pub fn golden_metrics() -> Option<PathBuf> {
    let root = std::env::var_os("ASSAY_TEST_GOLDEN")
        .map_or_else(|| workspace().join("../shared/golden"), PathBuf::from);
    let found = Some(root.join("metrics.json")).filter(|p| p.is_file());
    present(found, "golden metrics", "set ASSAY_TEST_GOLDEN to the folder of metrics.json")
}

/// A Python interpreter with the named reference packages, from `ASSAY_TEST_PYTHON`.
pub fn python() -> Option<PathBuf> {
    let found = std::env::var_os("ASSAY_TEST_PYTHON").map(PathBuf::from).filter(|p| p.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: needs ASSAY_TEST_PYTHON, an interpreter with the reference packages");
    }
    found
}

/// [`python`], if it can import all of `packages`; a loud skip otherwise.
pub fn python_with(packages: &[&str]) -> Option<PathBuf> {
    let python = python()?;
    let found = std::process::Command::new(&python)
        .args(["-c", &format!("import {}", packages.join(", "))])
        .output()
        .is_ok_and(|o| o.status.success());
    if !found {
        eprintln!("SKIPPED: {} cannot import {}", python.display(), packages.join(", "));
    }
    found.then_some(python)
}

fn present(found: Option<PathBuf>, what: &str, hint: &str) -> Option<PathBuf> {
    if found.is_none() {
        eprintln!("SKIPPED: {what} was not found; {hint}");
    }
    found
}
