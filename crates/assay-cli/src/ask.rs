//! `assay ask`: one question to the decided release.

use std::io::Write;
use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::Result;
use assay_candidate::{Options, Request};

use crate::config::Loaded;
use crate::run::release;

pub(crate) fn ask(
    loaded: &Loaded,
    question: &str,
    candidate: Option<&str>,
    json: bool,
) -> Result<ExitCode> {
    let release = release::open(loaded, candidate)?;
    if let Some(drift) = &release.drift {
        eprintln!("note: {drift}");
    }
    let mut out = std::io::stdout();
    let mut broken = false;
    let request = Request::new(question).seen_by(loaded.config.retrieval.viewer());
    let output = release.candidate.answer(&request, &Options::default(), &mut |text| {
        if !json && (write!(out, "{text}").is_err() || out.flush().is_err()) {
            broken = true;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    if broken {
        return Ok(ExitCode::SUCCESS);
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&output)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!();
    for c in &output.citations {
        let pages = c.pages.map_or_else(String::new, |pages| format!(" ({pages})"));
        let place = format!("{}:{}-{}{pages}", c.document, c.start, c.end);
        println!("\n[{}] {place}\n    “{}”", c.source_number, c.quote);
    }
    eprintln!(
        "\n{} · {:.0} ms retrieval, {:.0} ms prompt, {:.0} ms answer · {}",
        release.candidate.spec().name,
        output.timing.retrieval_ms,
        output.timing.prefill_ms,
        output.timing.decode_ms,
        output.usage.map_or("unknown tokens".to_owned(), |u| {
            format!("{} + {} tokens", u.input_tokens, u.output_tokens)
        }),
    );
    Ok(ExitCode::SUCCESS)
}
