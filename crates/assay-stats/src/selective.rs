//! Answering only when sure: risk against coverage, and thresholds whose risk is bounded.

use statrs::distribution::{Binomial, DiscreteCDF};

use crate::Clustered;

/// Shares of the answers that a threshold may keep; more of them would cost the bound its strength.
const KEPT: [f64; 10] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];

/// One answer: how sure the model was of it, and what it lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged<'a> {
    /// Unit of resampling, such as the document that the item is about.
    pub cluster: &'a str,
    /// Larger is surer.
    pub confidence: f64,
    /// From 0 (right) to 1 (wrong).
    pub loss: f64,
}

/// What happens when answers below `threshold` are withheld.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Selected {
    /// Least confidence that is answered.
    pub threshold: f64,
    /// Share of all items that are answered.
    pub coverage: f64,
    /// Mean loss of those.
    pub risk: f64,
    /// How many they are.
    pub n: usize,
}

/// Risk against coverage, from the surest answers to all, one point per distinct confidence. `items` counts those too that
/// the model itself declined.
///
/// Source: R. El-Yaniv and Y. Wiener, JMLR 11 (2010).
pub fn risk_coverage(answers: &[Judged<'_>], items: usize) -> Vec<Selected> {
    let sorted = surest_first(answers);
    let mut points: Vec<Selected> = Vec::new();
    let mut sum = 0.0;
    for (i, answer) in sorted.iter().enumerate() {
        sum += answer.loss;
        let last = sorted.get(i + 1).is_none_or(|next| next.confidence < answer.confidence);
        if last {
            let n = i + 1;
            points.push(Selected {
                threshold: answer.confidence,
                coverage: n as f64 / items as f64,
                risk: sum / n as f64,
                n,
            });
        }
    }
    points
}

/// What a threshold does to other answers than those it was made from; `None` if it withholds all.
pub fn select(answers: &[Judged<'_>], items: usize, threshold: f64) -> Option<Selected> {
    let kept = answers.iter().filter(|a| a.confidence >= threshold);
    let (n, sum) = kept.fold((0usize, 0.0), |(n, sum), a| (n + 1, sum + a.loss));
    (n > 0).then(|| Selected {
        threshold,
        coverage: n as f64 / items as f64,
        risk: sum / n as f64,
        n,
    })
}

/// The threshold that answers most while the true risk of what is answered is at most `max_risk`, with probability `level`
/// over the draw of the calibration items; `None` when so few items can promise it for no threshold.
///
/// Ten thresholds are tried, that keep a tenth to all of the answers. They depend on the confidences alone, and given these
/// each is tested by an exact binomial tail where every loss is 0 or 1, else by the bound of Hoeffding and Bentkus, at a
/// tenth of `1 - level` (Bonferroni): Y. Geifman and R. El-Yaniv, NeurIPS 2017, with the p-value of A. Angelopoulos et al.,
/// "Learn then Test" (arXiv 2110.01052). Clusters count as so many items fewer as their losses are alike (design effect).
pub fn calibrate(
    answers: &[Judged<'_>],
    items: usize,
    max_risk: f64,
    level: f64,
) -> Option<Selected> {
    let sorted = surest_first(answers);
    let promised = |share: &f64| {
        let at = ((sorted.len() as f64 * share).ceil() as usize).checked_sub(1)?;
        let chosen = select(answers, items, sorted[at].confidence)?;
        let kept = answers.iter().filter(|a| a.confidence >= chosen.threshold);
        let losses = Clustered::new(kept.clone().map(|a| (a.cluster, a.loss)));
        let n = (chosen.n as f64 / losses.design_effect().max(1.0)).floor();
        let all_or_nothing = kept.clone().all(|a| a.loss == 0.0 || a.loss == 1.0);
        let p = p_value(chosen.risk, n, max_risk, all_or_nothing);
        (p <= (1.0 - level) / KEPT.len() as f64).then_some(chosen)
    };
    KEPT.iter().filter_map(promised).max_by(|a, b| a.coverage.total_cmp(&b.coverage))
}

/// How likely `n` losses have a mean of at most `risk` when the true one is above `max_risk`, at most.
fn p_value(risk: f64, n: f64, max_risk: f64, all_or_nothing: bool) -> f64 {
    if n < 1.0 || risk > max_risk {
        return 1.0;
    }
    let Ok(binomial) = Binomial::new(max_risk.clamp(0.0, 1.0), n as u64) else { return 1.0 };
    // Rounded up, against us; the tolerance is for whole numbers that lost a bit.
    let tail = binomial.cdf((n * risk - 1e-9).ceil().max(0.0) as u64);
    if all_or_nothing {
        return tail;
    }
    let divergence = if risk <= 0.0 {
        -(1.0 - max_risk).ln()
    } else {
        risk * (risk / max_risk).ln() + (1.0 - risk) * ((1.0 - risk) / (1.0 - max_risk)).ln()
    };
    (-n * divergence).exp().min(std::f64::consts::E * tail)
}

fn surest_first<'a, 'b>(answers: &'b [Judged<'a>]) -> Vec<&'b Judged<'a>> {
    let mut sorted: Vec<&Judged<'a>> = answers.iter().collect();
    sorted.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    sorted
}
