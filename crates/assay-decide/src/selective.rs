//! Answering only when sure: risk against coverage on the test items, and the threshold that dev promises.

use assay_stats::{Judged, Selected, calibrate, risk_coverage, select};

use crate::input::{DecisionInput, SureAnswers};
use crate::record::{Promise, RiskPoint, Selective};

/// How sure a promise is, over the draw of the dev items.
const LEVEL: f64 = 0.95;
/// Points of a curve that are recorded.
const POINTS: usize = 60;

pub(crate) fn selective(input: &DecisionInput, index: usize) -> Option<Selective> {
    let sure = input.candidates[index].sure.as_ref()?;
    let test = judged(&sure.test);
    let all = risk_coverage(&test, sure.test.items);
    let every = all.len().div_ceil(POINTS).max(1);
    let kept = all.iter().enumerate().filter(|(i, _)| i % every == 0 || i + 1 == all.len());
    let promise = input.stated.max_risk.map(|max_risk| {
        let dev = judged(&sure.dev);
        let chosen = calibrate(&dev, sure.dev.items, max_risk, LEVEL);
        Promise {
            max_risk,
            level: LEVEL,
            dev_items: sure.dev.items,
            threshold: chosen.map(|c| c.threshold),
            dev: chosen.map(point),
            test: chosen.and_then(|c| select(&test, sure.test.items, c.threshold)).map(point),
        }
    });
    Some(Selective { curve: kept.map(|(_, p)| point(*p)).collect(), promise })
}

fn judged(answers: &SureAnswers) -> Vec<Judged<'_>> {
    let answers = answers.answers.iter();
    answers
        .map(|(cluster, confidence, loss)| Judged { cluster, confidence: *confidence, loss: *loss })
        .collect()
}

fn point(selected: Selected) -> RiskPoint {
    RiskPoint { coverage: selected.coverage, risk: selected.risk }
}
