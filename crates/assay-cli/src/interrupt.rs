//! Ctrl-C: the first asks the work to stop at the next safe point, the second ends the process.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

static ASKED: AtomicBool = AtomicBool::new(false);

/// The work was stopped by the user; what was finished is kept.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

pub(crate) fn install() -> Result<()> {
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("\nstopping at the next safe point; once more to stop at once");
    })?;
    Ok(())
}

pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// An error if the user asked to stop.
pub(crate) fn check() -> Result<()> {
    if asked() { Err(Interrupted.into()) } else { Ok(()) }
}
