//! A server for a test, run by a Python script that is told what to do on standard input.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tempfile::TempDir;

pub(crate) struct Server {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// Its data.
    _dir: TempDir,
}

impl Server {
    /// Runs a script of this folder, unless its packages are missing.
    pub(crate) fn run(script: &str, packages: &[&str]) -> Option<Server> {
        let python = assay_testkit::python_with(packages)?;
        let dir = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(script);
        let mut child = Command::new(python)
            .arg(script)
            .arg(dir.path().join("data"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        Some(Server { child, input, output: BufReader::new(output), _dir: dir })
    }

    /// Asks the script for something, and waits for its answer.
    pub(crate) fn ask(&mut self, what: &str) -> String {
        writeln!(self.input.as_mut().unwrap(), "{what}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the server's script ended on `{what}`");
        line.trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // At the end of its input the script stops the server.
        self.input = None;
        let _ = self.child.wait();
    }
}
