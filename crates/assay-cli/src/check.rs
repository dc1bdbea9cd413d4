//! `assay check`: are the data fit for a decision?

use std::process::ExitCode;

use anyhow::Result;
use assay_data::Severity;

use crate::config::Loaded;
use crate::project::{self, Problem};

/// Findings of one kind that are printed before the rest is counted.
const SHOWN: usize = 10;

pub(crate) fn check(loaded: &Loaded, json: bool) -> Result<ExitCode> {
    let (data, problems) = project::load(loaded, None)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&problems)?);
    } else {
        print!("{}", render(&problems));
        if let Some(data) = &data {
            println!(
                "{} train, {} dev, {} test items ({})",
                data.train.len(),
                data.dev.len(),
                data.test.len(),
                data.shapes
            );
        }
        println!("{}", verdict(&problems));
    }
    Ok(if errors(&problems) == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

pub(crate) fn errors(problems: &[Problem]) -> usize {
    problems.iter().filter(|p| p.severity == Severity::Error).count()
}

fn verdict(problems: &[Problem]) -> String {
    let (errors, warnings) = (errors(problems), problems.len() - errors(problems));
    match (errors, warnings) {
        (0, 0) => "fit for a decision".to_owned(),
        (0, w) => format!("fit for a decision, with {w} warning{}", plural(w)),
        (e, w) => {
            format!("not fit for a decision: {e} error{}, {w} warning{}", plural(e), plural(w))
        }
    }
}

fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}

/// One line per finding, the hint once per kind.
pub(crate) fn render(problems: &[Problem]) -> String {
    let mut out = String::new();
    let mut rest = problems;
    while let Some(first) = rest.first() {
        let n = rest.iter().take_while(|p| p.code == first.code && p.hint == first.hint).count();
        for p in &rest[..n.min(SHOWN)] {
            let severity = if p.severity == Severity::Error { "error" } else { "warning" };
            let place = p.location.as_ref().map_or(String::new(), |l| format!("{l}: "));
            out += &format!("{severity}: {place}{}\n", p.message);
        }
        if n > SHOWN {
            out += &format!("  … and {} more of this kind\n", n - SHOWN);
        }
        if let Some(hint) = &first.hint {
            out += &format!("  hint: {hint}\n");
        }
        rest = &rest[n..];
    }
    out
}
