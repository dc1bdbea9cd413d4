//! What cannot be decided is refused, with the fact.

use assay_decide::*;
use assay_types::{ItemId, Score};

use crate::{candidate, input};

#[track_caller]
fn check(input: &DecisionInput, message: &str) {
    assert_eq!(decide(input).unwrap_err().to_string(), message);
}

#[test]
fn bad_input_is_refused() {
    let two = || input(6, vec![candidate("prompt", 6, |_| 1.0), candidate("rag", 6, |_| 0.0)]);
    check(&input(6, vec![]), "there are no candidates");
    check(&DecisionInput { items: vec![], ..two() }, "there are no test items");
    check(
        &DecisionInput { primary_metric: "em".into(), ..two() },
        "candidate `prompt` has no metric `em`",
    );

    let mut other = two();
    let scores = other.candidates[1].scores.get_mut("f1").unwrap();
    scores.remove(&ItemId("q0003".into()));
    check(
        &other,
        "metric `f1` of candidate `rag` covers 5 items, and the test set has 6; `q0003` is in only one of them",
    );
    let mut other = two();
    let scores = other.candidates[1].scores.get_mut("f1").unwrap();
    scores.insert(ItemId("q0003".into()), Score::Scored(f64::NAN));
    check(&other, "metric `f1` of candidate `rag` is not finite on item `q0003`");

    let mut other = two();
    other.candidates[1].name = "prompt".into();
    check(&other, "two candidates are called `prompt`");
    let mut other = two();
    other.items[1].id = other.items[0].id.clone();
    check(&other, "two test items are called `q0000`");
    let mut other = two();
    other.candidates[0].general = Some(GeneralAnswers { before: vec![true], after: vec![] });
    check(&other, "the general suite of candidate `prompt` has 1 answers before and 0 after");
    let mut other = two();
    other.rule.alpha = 1.5;
    check(&other, "`alpha` must be between 0 and 1, and is 1.5");
}
