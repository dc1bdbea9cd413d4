//! The report at the crate's boundary: what it says, and what it never does.

mod hostile;
mod sample;

use assay_decide::ReportData;
use assay_report::{html, markdown};
use scraper::{Html, Selector};

fn select(text: &str) -> Selector {
    Selector::parse(text).unwrap()
}

/// The page's text in reading order, one line per heading, paragraph, caption, row or label.
fn structure(page: &str) -> String {
    let page = Html::parse_document(page);
    let parts = select(
        "title, h1, h2, h3, p, dt, dd, li p, caption, tr, summary, figcaption, svg[aria-label], ul li",
    );
    let mut lines = Vec::new();
    for element in page.select(&parts) {
        let name = element.value().name();
        let text: String = match element.value().attr("aria-label") {
            Some(label) => label.to_owned(),
            None => {
                let words = element.text().flat_map(str::split_whitespace);
                words.collect::<Vec<_>>().join(" ")
            }
        };
        lines.push(format!("{name}: {text}"));
    }
    lines.join("\n")
}

#[test]
fn the_page_of_a_decision() {
    insta::assert_snapshot!(structure(&html(&sample::decided())));
}

#[test]
fn the_page_without_a_decision() {
    insta::assert_snapshot!(structure(&html(&sample::open())));
}

#[test]
fn the_summaries() {
    insta::assert_snapshot!(markdown(&sample::decided()));
    insta::assert_snapshot!(markdown(&sample::open()));
}

#[test]
fn the_page_loads_nothing_and_is_sound() {
    for data in [sample::decided(), sample::open(), bare()] {
        let page = html(&data);
        for outside in
            ["http:", "https:", "src=", "url(", "@import", "<script", "<link", "NaN", "undefined"]
        {
            assert!(!page.contains(outside), "the page has {outside}");
        }
        let parsed = Html::parse_document(&page);
        assert!(parsed.errors.is_empty(), "{:?}", parsed.errors);
        for table in parsed.select(&select("table")) {
            assert!(table.select(&select("caption")).next().is_some(), "a table without caption");
        }
        for figure in parsed.select(&select("svg:not([aria-hidden])")) {
            assert!(figure.value().attr("aria-label").is_some(), "a figure without words");
        }
        assert_eq!(page, html(&data), "the same data give the same page");
    }
}

#[test]
fn rows_have_the_cells_of_their_head() {
    let page = Html::parse_document(&html(&sample::decided()));
    let width = |row: scraper::ElementRef<'_>| -> usize {
        let cells = row.child_elements();
        cells.map(|c| c.value().attr("colspan").map_or(1, |n| n.parse().unwrap())).sum()
    };
    for table in page.select(&select("table")) {
        let mut widths: Vec<usize> = table.select(&select("tr")).map(width).collect();
        widths.dedup();
        assert_eq!(widths.len(), 1, "{}", table.html());
    }
}

/// A decision in which nothing could be measured.
fn bare() -> ReportData {
    let mut data = sample::decided();
    data.training.clear();
    data.items.clear();
    data.method_notes.clear();
    let d = &mut data.decision;
    d.outcome = assay_decide::Outcome::NoneEligible;
    d.winner = None;
    d.warnings.clear();
    d.flips.clear();
    d.flowchart.clear();
    d.slices.clear();
    d.minimum_detectable_effect = None;
    for c in &mut d.candidates {
        c.metrics.clear();
        c.latency_ms = Default::default();
        c.tokens = Default::default();
        c.cost = Default::default();
        c.general = Default::default();
    }
    for c in &mut d.comparisons {
        (c.diff, c.ci_low, c.ci_high, c.p_value, c.p_adjusted) = (None, None, None, None, None);
    }
    d.constraints.iter_mut().flat_map(|c| &mut c.measured).for_each(|m| m.value = None);
    data
}
