//! The binary as a user runs it: real processes, real weights, what stands on the screen.

mod backend;
mod bad_input;
mod documents;
mod end_to_end;
mod plan;
mod project;
mod remote;
mod retrieval;
mod search;

use std::path::Path;
use std::process::{Command, Output};

/// What a command left behind.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn assay(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
    // The user's own configuration has no say in a test.
    command.current_dir(dir).args(args).env("XDG_CONFIG_HOME", dir.join("no-config"));
    command
}

pub(crate) fn run(dir: &Path, args: &[&str]) -> Ran {
    let Output { status, stdout, stderr } = assay(dir, args).output().expect("assay starts");
    let text = |bytes: Vec<u8>| {
        String::from_utf8(bytes).expect("UTF-8").replace(&dir.display().to_string(), "[DIR]")
    };
    Ran { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// A project folder with the given files.
pub(crate) fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        let path = dir.path().join(name);
        fs_err::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs_err::write(path, text).expect("a file");
    }
    dir
}
