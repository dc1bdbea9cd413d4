//! Everything that is promised at the boundary of the crate.

use assay_model::{Decoder, Precision};
use std::sync::OnceLock;

mod decoding;
mod encoder;
mod encoder_families;
mod families;
mod fetch;
mod form;
mod golden;
mod gradients;
mod loading;
mod memory;
mod oracle;
mod pieces;
mod prefix;
mod real;
mod tiny;

/// The small decoder on its real weights, opened once per precision; `None` where it is missing.
fn smollm(precision: Precision) -> Option<Decoder> {
    static OPEN: [OnceLock<Option<Decoder>>; 2] = [OnceLock::new(), OnceLock::new()];
    let open = || {
        let path = assay_testkit::smollm()?;
        Some(Decoder::open(&path, precision).expect("the real weights open"))
    };
    OPEN[usize::from(precision == Precision::F32)].get_or_init(open).clone()
}
