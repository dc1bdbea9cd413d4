//! The decision as a page to show: [`html`] makes one self-contained HTML file, [`markdown`] a short
//! summary for a pull request or a chat.
//!
//! The page needs no network, no script and no font: it can be mailed, archived and printed, in light
//! and dark, on a phone and on a desk. Text that came from data is escaped everywhere.
//!
//! It refuses to compute: every figure is taken from the decision as it stands there, and what is
//! missing is shown as missing.
//!
//! ```no_run
//! # fn data() -> assay_decide::ReportData { unimplemented!() }
//! let data = data();
//! let page = assay_report::html(&data);
//! assert!(page.starts_with("<!doctype html>"));
//! ```

mod chart;
mod figures;
mod format;
mod markdown;
mod view;

pub use markdown::markdown;

use assay_decide::ReportData;

/// The report as one HTML file.
///
/// A pure function: the same data give the same bytes.
pub fn html(data: &ReportData) -> String {
    let mut env = minijinja::Environment::new();
    env.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    // The names end in .html, which turns escaping on.
    env.add_template("figures.html", include_str!("../templates/figures.html"))
        .and_then(|()| env.add_template("report.html", include_str!("../templates/report.html")))
        .expect("the templates are part of the program");
    let style = minijinja::Value::from_safe_string(include_str!("../templates/style.css").into());
    env.get_template("report.html")
        .and_then(|t| {
            t.render(
                minijinja::context! { r => minijinja::value::Serde(view::Report::of(data)), style },
            )
        })
        .expect("the templates fit the view")
}
