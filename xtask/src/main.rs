//! Automation of the workspace: what CI runs, what a newcomer runs first.
//!
//!     cargo xtask test     every test, with the models they need
//!     cargo xtask ci       all that must pass before a change lands
//!     cargo xtask demo     examples/helpdesk from nothing to report.html
//!     cargo xtask bench peers [train compiled generate embed]
//!                          figures of this machine beside those of other tools, as ratios
//!     cargo xtask bench search [documents] [--clustered]
//!                          search over random documents beside bm25s, faiss and Chroma
//!     cargo xtask bench documents
//!                          what becomes of real and hostile documents (docs/ingestion.md)
//!
//! Every step is an ordinary command, printed before it runs, so that it can be repeated by hand.

#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "this is an edge: it talks to the person who runs it"
)]

mod documents;
mod peers;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["ci"] => ci(),
        ["test", rest @ ..] => test(rest),
        ["demo"] => demo(),
        ["bench", "peers", only @ ..] => bench_peers(only),
        ["bench", "search", rest @ ..] => bench_search(rest),
        ["bench", "documents"] => bench_documents(),
        _ => {
            eprintln!(
                "usage: cargo xtask ci | test [nextest arguments] | demo | bench peers [SCRIPT…] \
                 | bench search [DOCUMENTS] [--clustered] | bench documents"
            );
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Dependencies that must never appear: (crate, what it must not reach, why).
const FORBIDDEN_EDGES: &[(&str, &str, &str)] = &[
    ("assay-decide", "tokio", "the decision is pure"),
    ("assay-decide", "rusqlite", "the decision is pure"),
    ("assay-decide", "assay-model", "the decision reads records, not models"),
    ("assay-stats", "assay-model", "statistics know numbers only"),
    ("assay-kernels", "candle-core", "kernels know slices only"),
    ("assay-kernels", "assay-types", "kernels know slices only"),
    ("assay-model", "tokio", "compute is synchronous"),
    ("assay-model", "assay-index", "a model does not know retrieval"),
    ("assay-train", "assay-index", "training does not know retrieval"),
    ("assay-train", "tokio", "compute is synchronous"),
    ("assay-index", "assay-model", "the index sees embeddings through a trait"),
    ("assay-index", "tokio", "compute is synchronous"),
    ("assay-index", "assay-backends", "the index sees servers through a trait"),
    ("assay-backends", "assay-model", "a server holds vectors, whatever made them"),
    ("assay-candidate", "tokio", "compute is synchronous"),
    ("assay-text", "assay-types", "parsers know text and spans only"),
    ("assay-data", "assay-train", "data do not know training"),
    ("assay-eval", "assay-decide", "metrics do not know the decision"),
    ("assay-eval", "assay-model", "metrics read records, not models"),
    ("assay-report", "assay-model", "the report renders records"),
    ("assay-serve", "assay-train", "serving does not train"),
    ("assay-remote", "tokio", "remote clients are threads"),
    ("assay-remote", "assay-model", "a server's model needs no weights here"),
    ("assay-eval", "assay-remote", "metrics read records, not models"),
];

fn ci() -> Result<()> {
    step("format", cargo(&["fmt", "--all", "--check"]))?;
    step(
        "clippy",
        cargo(&["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    )?;
    forbidden_edges()?;
    // Not as `cargo machete`: under `cargo run` it takes its own name for a path.
    step("unused dependencies", Command::new("cargo-machete").current_dir(root()))?;
    deny()?;
    step("spelling", Command::new("typos").current_dir(root()))?;
    step(
        "documentation",
        cargo(&["doc", "--release", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    // The README's own test command.
    step("tests", cargo(&["xtask", "test"]))
}

/// Licences, bans and sources; advisories too, where their database can be fetched.
fn deny() -> Result<()> {
    step("licences and sources", cargo(&["deny", "check", "bans", "licenses", "sources"]))?;
    let reachable =
        cargo(&["deny", "fetch"]).stderr(Stdio::null()).status().is_ok_and(|s| s.success());
    if reachable {
        return step("advisories", cargo(&["deny", "check", "advisories"]));
    }
    eprintln!("SKIPPED: security advisories: their database cannot be reached from here");
    Ok(())
}

fn forbidden_edges() -> Result<()> {
    for (package, dependency, why) in FORBIDDEN_EDGES {
        let tree = cargo(&["tree", "--package", package, "--edges", "normal", "--prefix", "none"])
            .stderr(Stdio::inherit())
            .output()
            .context("cargo tree")?;
        let text = String::from_utf8_lossy(&tree.stdout);
        if text.is_empty() {
            bail!("cargo tree printed nothing for {package}");
        }
        if text.lines().any(|l| l.split(' ').next() == Some(dependency)) {
            bail!("{package} depends on {dependency}, but {why}");
        }
    }
    eprintln!("ok: {} forbidden dependencies are absent", FORBIDDEN_EDGES.len());
    Ok(())
}

/// What is repeated without SIMD, as on a processor we have no kernels for: every kernel, and real
/// weights against other tools. Some seconds on a quiet machine.
const PORTABLE_TESTS: &str = "package(assay-kernels) \
    | package(assay-model) & test(/^(encoder|families|golden|gradients|prefix)::/)";

/// Models into the shared cache, then every test. Extra arguments go to nextest; with some, nothing is
/// repeated.
fn test(rest: &[&str]) -> Result<()> {
    fetch_models()?;
    if have("cargo-nextest") {
        let base = ["nextest", "run", "--release", "--workspace", "--no-fail-fast"];
        step("tests", cargo(&[&base, rest].concat()))?;
        if rest.is_empty() {
            let portable = ["-E", PORTABLE_TESTS];
            let mut portable = cargo(&[&base[..], &portable].concat());
            step("tests with ASSAY_KERNELS=portable", portable.env("ASSAY_KERNELS", "portable"))?;
        }
    } else {
        eprintln!("cargo-nextest is not installed: `cargo test` runs the same tests, more slowly");
        step("tests", cargo(&[&["test", "--release", "--workspace", "--tests"], rest].concat()))?;
    }
    step("documentation tests", cargo(&["test", "--release", "--workspace", "--doc", "--quiet"]))
}

fn fetch_models() -> Result<()> {
    // With the tests, whose dependencies have more features: a build without them would compile many a second time.
    step("build", cargo(&["test", "--release", "--workspace", "--tests", "--no-run"]))?;
    let mut fetch = Command::new(target_dir()?.join("release/assay"));
    step("models", fetch.args(["model", "fetch", "smollm2-135m-instruct", "all-minilm-l6-v2"]))
}

/// The helpdesk example, with the binary a user would install.
fn demo() -> Result<()> {
    let assay = assay()?;
    let example = root().join("examples/helpdesk");
    let start = Instant::now();
    step("assay run", Command::new(assay).arg("run").current_dir(&example))?;
    eprintln!(
        "took {:.1} minutes; open {}",
        start.elapsed().as_secs_f64() / 60.0,
        example.join("report.html").display()
    );
    Ok(())
}

/// Builds the program as a user would have it, and says where it is.
fn assay() -> Result<PathBuf> {
    step("build", cargo(&["build", "--release", "--workspace"]))?;
    Ok(target_dir()?.join("release/assay"))
}

/// Rounds in which Assay and its peers take turns.
const ROUNDS: usize = 3;

fn bench_peers(only: &[&str]) -> Result<()> {
    peers::peers(&root(), &assay()?, ROUNDS, only)
}

fn bench_search(rest: &[&str]) -> Result<()> {
    let (documents, options) = match rest {
        [number, options @ ..] if number.parse::<usize>().is_ok() => (number.parse()?, options),
        options => (100_000, options),
    };
    // With the whole workspace, for another choice of features would compile all dependencies again.
    step("build", cargo(&["build", "--release", "--workspace", "--example", "search_speed"]))?;
    let mut command = Command::new(target_dir()?.join("release/examples/search_speed"));
    peers::search(&root(), &mut command, documents, options)
}

fn bench_documents() -> Result<()> {
    let assay = assay()?;
    let data = std::env::var_os("ASSAY_TEST_DATA")
        .map_or_else(|| root().join("../shared/data"), PathBuf::from);
    documents::documents(&assay, &data)
}

fn target_dir() -> Result<PathBuf> {
    let out = cargo(&["metadata", "--format-version", "1", "--no-deps"]).output()?;
    let text = String::from_utf8(out.stdout)?;
    let key = "\"target_directory\":\"";
    let start = text.find(key).context("cargo metadata names no target directory")? + key.len();
    let end = text[start..].find('"').context("cargo metadata is cut short")?;
    Ok(PathBuf::from(text[start..start + end].replace("\\\\", "\\")))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask has a parent").to_path_buf()
}

fn cargo(args: &[&str]) -> Command {
    let mut c = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    c.args(args).current_dir(root());
    c
}

fn have(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

fn step(name: &str, mut command: impl std::borrow::BorrowMut<Command>) -> Result<()> {
    let command = command.borrow_mut();
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|w| w.to_string_lossy().into_owned())
        .collect();
    eprintln!("== {name}: {}", words.join(" "));
    let status = command.status().with_context(|| format!("cannot start `{}`", words[0]))?;
    if !status.success() {
        bail!("{name} failed: `{}` ended with {status}", words.join(" "));
    }
    Ok(())
}
