//! The official OpenAI client against the server: `tests/python/openai_client.py`.

use std::path::Path;
use std::process::Command;

use crate::client::start;

#[test]
fn the_official_client_works() {
    let Some(python) = assay_testkit::python() else { return };
    let (_, base) = start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/openai_client.py");
    let ran = Command::new(python)
        .arg(script)
        .args([&format!("{base}/v1"), "echo", "echo-embed"])
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{out}{err}");
    assert!(out.contains("all passed"), "{out}{err}");
}
