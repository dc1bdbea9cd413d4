//! Who wins.
//!
//! 1. Only candidates that keep the constraints take part.
//! 2. The one with the highest primary metric wins if it is significantly better than every other (sign-flip test,
//!    Holm over all pairs).
//! 3. Otherwise the simplest candidate wins that, against each other one, is either significantly better or is simpler
//!    and *non-inferior*: the lower end of the interval of the difference lies above −margin. A more complex
//!    candidate must show that it is better; a simpler one only that it is not worse than the margin.
//! 4. Otherwise there is no winner, and the pairs that stand open say how many labels would close them.
//!
//! Rule 3 needs no correction for multiplicity: all of its comparisons must hold at once (intersection–union).

use crate::compare::Pair;
use crate::input::DecisionInput;
use crate::record::{CandidateRecord, Outcome};

/// How the rule ended, by index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ruling {
    pub(crate) outcome: Outcome,
    pub(crate) winner: Option<usize>,
    /// The eligible candidate with the highest primary metric.
    pub(crate) leader: Option<usize>,
    /// Rivals that the leader is not significantly better than, closest first.
    pub(crate) open: Vec<usize>,
}

/// Looks at comparisons from either side.
pub(crate) struct Table<'a> {
    pub(crate) pairs: &'a [Pair],
    pub(crate) alpha: f64,
    pub(crate) margin: f64,
}

impl Table<'_> {
    pub(crate) fn pair(&self, a: usize, b: usize) -> Option<&Pair> {
        self.pairs.iter().find(|p| (p.i, p.j) == (a.min(b), a.max(b)))
    }

    /// Mean of `a − b`.
    pub(crate) fn diff(&self, a: usize, b: usize) -> f64 {
        let diff = self.pair(a, b).map_or(0.0, Pair::diff);
        if a < b { diff } else { -diff }
    }

    /// Interval of `a − b`.
    pub(crate) fn interval(&self, a: usize, b: usize) -> Option<(f64, f64)> {
        let interval = self.pair(a, b)?.interval?;
        Some(if a < b { (interval.low, interval.high) } else { (-interval.high, -interval.low) })
    }

    pub(crate) fn better(&self, a: usize, b: usize) -> bool {
        self.diff(a, b) > 0.0 && self.pair(a, b).is_some_and(|p| p.p_adjusted <= self.alpha)
    }

    pub(crate) fn non_inferior(&self, a: usize, b: usize) -> bool {
        self.interval(a, b).is_some_and(|(low, _)| low > -self.margin)
    }
}

pub(crate) fn rule(
    input: &DecisionInput,
    records: &[CandidateRecord],
    table: &Table<'_>,
) -> Ruling {
    let simplicity = |i: &usize| (input.candidates[*i].complexity(), *i);
    let mut eligible: Vec<usize> = (0..records.len()).filter(|&i| records[i].eligible).collect();
    eligible.sort_by_key(simplicity);
    let value = |i: usize| records[i].metrics[&input.primary_metric].value;
    // The first of equals is the simplest.
    let leader =
        eligible.iter().copied().reduce(|best, i| if value(i) > value(best) { i } else { best });
    let Some(leader) = leader else {
        return Ruling { outcome: Outcome::NoneEligible, winner: None, leader, open: Vec::new() };
    };
    let ruling = |outcome, winner, open| Ruling { outcome, winner, leader: Some(leader), open };
    if eligible.len() == 1 {
        return ruling(Outcome::OnlyEligible, Some(leader), Vec::new());
    }
    let rivals = |of: usize| eligible.iter().copied().filter(move |&i| i != of);
    let mut open: Vec<usize> = rivals(leader).filter(|&i| !table.better(leader, i)).collect();
    open.sort_by(|&a, &b| table.diff(leader, a).total_cmp(&table.diff(leader, b)));
    if open.is_empty() {
        return ruling(Outcome::Better, Some(leader), open);
    }
    let holds = |a: usize, b: usize| {
        let simpler = simplicity(&a) < simplicity(&b);
        table.better(a, b) || simpler && table.non_inferior(a, b)
    };
    match eligible.iter().copied().find(|&c| rivals(c).all(|other| holds(c, other))) {
        Some(winner) => ruling(Outcome::Equivalent, Some(winner), open),
        None => ruling(Outcome::Inconclusive, None, open),
    }
}
