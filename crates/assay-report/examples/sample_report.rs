//! Writes a report of invented figures, to look at the page:
//! `cargo run --release -p assay-report --example sample_report -- FOLDER`.

#[path = "../tests/it/sample.rs"]
mod sample;

use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| ".".into()));
    for (name, data) in [("decided", sample::decided()), ("open", sample::open())] {
        fs_err::write(folder.join(format!("{name}.html")), assay_report::html(&data))?;
        fs_err::write(folder.join(format!("{name}.md")), assay_report::markdown(&data))?;
    }
    Ok(())
}
