//! ROUGE-L with Porter stemming, as `rouge-score` 0.1.2 computes it with `use_stemmer=True`.

use crate::porter;
use crate::squad::harmonic;

/// Tokens: lower case, anything but `a-z0-9` separates, tokens of more than three characters are stemmed.
///
/// English only by construction: "café" becomes "caf".
pub(crate) fn rouge_tokens(text: &str) -> Vec<String> {
    text.to_lowercase()
        .split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit())
        .filter(|t| !t.is_empty())
        .map(|t| if t.len() > 3 { porter::stem(t) } else { t.to_owned() })
        .collect()
}

/// ROUGE-L F1, 0..=1: longest common subsequence of stemmed tokens, the best over all references.
///
/// `None` without references. A text without tokens scores 0. Source: C.-Y. Lin, ACL workshop (2004).
pub fn rouge_l(prediction: &str, references: &[String]) -> Option<f64> {
    let prediction = rouge_tokens(prediction);
    references
        .iter()
        .map(|reference| {
            let reference = rouge_tokens(reference);
            let common = common_subsequence(&prediction, &reference);
            harmonic(common, prediction.len(), reference.len())
        })
        .reduce(f64::max)
}

/// Length of the longest common subsequence.
fn common_subsequence(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0usize; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == y { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    #[test]
    fn tokens_equal_rouge_score() {
        let Some(path) = assay_testkit::golden_metrics() else { return };
        let text = fs_err::read_to_string(path).unwrap();
        let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
        for case in golden["groups"]["rouge_tokens"]["cases"].as_array().unwrap() {
            if case["input"]["stem"] == true {
                let text = case["input"]["text"].as_str().unwrap();
                assert_eq!(
                    serde_json::json!(super::rouge_tokens(text)),
                    case["expected"],
                    "{text}"
                );
            }
        }
    }
}
