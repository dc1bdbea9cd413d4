//! Data that try to become part of the page.

use std::collections::BTreeSet;

use assay_decide::ReportData;
use assay_report::{html, markdown};
use scraper::Html;
use serde_json::{Map, Value};

use crate::{sample, select};

const ATTACK: &str =
    r#"</title></style><script>alert(1)</script>"'><img src=x onerror=alert(2)>{{ 7*7 }}|`<b>"#;

/// Fields whose values are words of the program, not text of the user.
const WORDS: [&str; 3] = ["task", "outcome", "source"];
/// Maps whose keys are text of the user.
const MAPS: [&str; 6] = ["metrics", "slices", "hashes", "seeds", "counts", "settings"];

/// The same data with the attack behind every text.
fn poisoned(field: &str, value: Value) -> Value {
    match value {
        Value::String(s) if !WORDS.contains(&field) => Value::String(s + ATTACK),
        Value::Array(values) => {
            Value::Array(values.into_iter().map(|v| poisoned(field, v)).collect())
        }
        Value::Object(map) => {
            let free = MAPS.contains(&field) && map.values().all(|v| !v.is_array());
            let record = field == "slices" && map.contains_key("value");
            let key = |k: String| if free && !record { k + ATTACK } else { k };
            let entries = map.into_iter().map(|(k, v)| {
                let value = poisoned(&k, v);
                (key(k), value)
            });
            Value::Object(entries.collect::<Map<_, _>>())
        }
        other => other,
    }
}

fn attacked() -> ReportData {
    let value = serde_json::to_value(sample::decided()).unwrap();
    serde_json::from_value(poisoned("", value)).unwrap()
}

#[test]
fn no_text_becomes_markup() {
    let text = html(&attacked());
    assert!(!text.contains("<script>") && !text.contains("<img"));
    let page = Html::parse_document(&text);
    assert!(page.errors.is_empty(), "{:?}", page.errors);
    assert!(page.select(&select("script, img, iframe, object, link")).next().is_none());
    let all = select("*");
    let mut attributes = page.select(&all).flat_map(|e| e.value().attrs());
    assert!(attributes.all(|(name, _)| !name.starts_with("on")));
    let title = page.select(&select("title")).next().unwrap().text().collect::<String>();
    assert!(title.contains("<script>alert(1)</script>"), "the text is shown as it is: {title}");
    let kinds = |page: &Html| -> BTreeSet<String> {
        page.select(&all).map(|e| e.value().name().to_owned()).collect()
    };
    let harmless = kinds(&Html::parse_document(&html(&sample::decided())));
    assert!(kinds(&page).is_subset(&harmless), "the attack brought its own elements");
}

#[test]
fn no_text_becomes_markdown() {
    let text = markdown(&attacked());
    let outside_code: String = text.split('`').step_by(2).collect();
    assert!(!outside_code.contains("<script>") && !outside_code.contains("<img"));
    for (bad, good) in text.lines().zip(markdown(&sample::decided()).lines()) {
        let cells = |line: &str| line.replace("\\|", "").matches('|').count();
        if good.starts_with('|') {
            assert_eq!(cells(bad), cells(good), "{bad}");
        }
    }
}
