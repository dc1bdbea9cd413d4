use assay_decide::{CandidateRecord, ReportData};

use crate::format::{
    count, ms, p_value, percent, percent_interval, points, points_interval, prose, usd, words,
};
use crate::view::{better_first, headline};

/// A short summary in Markdown: verdict, candidates, differences, and what to know about them.
///
/// Text that came from data is escaped, so that it cannot change the form of the page it is put on.
pub fn markdown(data: &ReportData) -> String {
    let d = &data.decision;
    let (_, before, after) = headline(d.outcome);
    let winner = d.winner.as_ref().map_or_else(String::new, |w| format!("**{}**", escape(w)));
    let mut out = format!("## {}: {before}{winner}{after}\n\n", escape(&data.project));
    out.push_str(&format!("{}\n", sentence(&d.verdict)));

    let metric = escape(&words(&d.primary_metric));
    out.push_str(&format!(
        "\n| candidate | {metric} | 95% interval | items | median latency | 1,000 answers | general suite |\n|:--|--:|:--|--:|--:|--:|--:|\n"
    ));
    for c in &d.candidates {
        out.push_str(&candidate(c, &d.primary_metric, d.winner.as_deref()));
    }
    if !d.comparisons.is_empty() {
        out.push_str("\n| difference | points | 95% interval | p (Holm) |\n|:--|--:|:--|--:|\n");
    }
    for c in d.comparisons.iter().map(better_first) {
        out.push_str(&format!(
            "| {} − {} | {} | {} | {} |\n",
            escape(&c.a),
            escape(&c.b),
            shown(c.diff.map(points)),
            shown(points_interval(c.ci_low, c.ci_high)),
            shown(c.p_adjusted.map(p_value)),
        ));
    }
    for (title, lines) in
        [("Know before trusting it", &d.warnings), ("What would change it", &d.flips)]
    {
        if !lines.is_empty() {
            out.push_str(&format!("\n**{title}**\n\n"));
            lines.iter().for_each(|line| out.push_str(&format!("- {}\n", sentence(line))));
        }
    }
    out
}

fn candidate(c: &CandidateRecord, metric: &str, winner: Option<&str>) -> String {
    let summary = c.metrics.get(metric);
    let name = match winner {
        Some(w) if w == c.name => format!("**{}**", escape(&c.name)),
        _ if !c.eligible => format!("{} (not eligible)", escape(&c.name)),
        _ => escape(&c.name),
    };
    let items = summary.map(|s| match s.failed {
        0 => count(s.n),
        failed => format!("{} ({} failed)", count(s.n), count(failed)),
    });
    let general = c.general.after.map(|after| match c.general.diff {
        Some(diff) => format!("{} ({})", percent(after), points(diff)),
        None => percent(after),
    });
    let cells = [
        summary.and_then(|s| s.value).map(percent),
        summary.and_then(|s| percent_interval(s.ci_low, s.ci_high)),
        items,
        c.latency_ms.p50.map(ms),
        c.cost.per_query_usd.map(|cost| usd(1000.0 * cost)),
        general,
    ];
    format!("| {name} | {} |\n", cells.map(shown).join(" | "))
}

fn shown(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| "–".to_owned())
}

/// A sentence of the program: what stands between backticks stays there.
fn sentence(text: &str) -> String {
    let part = |(part, code): (String, bool)| match code {
        true => format!("`{}`", part.split_whitespace().collect::<Vec<_>>().join(" ")),
        false => escape_keeping_ends(&part),
    };
    prose(text).into_iter().map(part).collect()
}

/// [`escape`], which drops the spaces at the ends, where they part text from a name.
fn escape_keeping_ends(text: &str) -> String {
    let space = |there: bool| if there { " " } else { "" };
    let (start, end) = (text.starts_with(' '), text.len() > 1 && text.ends_with(' '));
    format!("{}{}{}", space(start), escape(text), space(end))
}

/// Text without meaning to Markdown, on one line.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.split_whitespace().collect::<Vec<_>>().join(" ").chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '#' | '!' | '~' | '$' => {
                out.extend(['\\', c])
            }
            _ => out.push(c),
        }
    }
    out
}
