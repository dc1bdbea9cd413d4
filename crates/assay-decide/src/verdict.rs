//! The ruling in plain words.

use crate::input::DecisionInput;
use crate::record::{CandidateRecord, Outcome};
use crate::rule::{Ruling, Table};
use crate::words::{names, number, p, whole};

/// Everything that the sentences draw on.
pub(crate) struct Findings<'a> {
    pub(crate) input: &'a DecisionInput,
    pub(crate) records: &'a [CandidateRecord],
    pub(crate) table: &'a Table<'a>,
    pub(crate) ruling: &'a Ruling,
    pub(crate) needed: Option<usize>,
}

impl Findings<'_> {
    fn name(&self, i: usize) -> &str {
        &self.records[i].name
    }

    fn rivals(&self, of: usize) -> impl Iterator<Item = usize> {
        (0..self.records.len()).filter(move |&i| i != of && self.records[i].eligible)
    }

    /// `f1 0.712 [0.661, 0.760]`.
    fn value(&self, i: usize) -> String {
        let metric = &self.input.primary_metric;
        let m = &self.records[i].metrics[metric];
        match (m.value, m.ci_low, m.ci_high) {
            (Some(v), Some(low), Some(high)) => format!("{metric} {v:.3} [{low:.3}, {high:.3}]"),
            (Some(v), ..) => format!("{metric} {v:.3}"),
            _ => format!("{metric} unknown"),
        }
    }

    /// `+0.120 [0.050, 0.190] over `b``.
    fn difference(&self, a: usize, b: usize) -> String {
        let (diff, name) = (self.table.diff(a, b), self.name(b));
        match self.table.interval(a, b) {
            Some((low, high)) => format!("{diff:+.3} [{low:+.3}, {high:+.3}] against `{name}`"),
            None => format!("{diff:+.3} against `{name}`"),
        }
    }

    pub(crate) fn verdict(&self) -> String {
        match (self.ruling.outcome, self.ruling.winner, self.ruling.leader) {
            (Outcome::Better, Some(w), _) => self.better(w),
            (Outcome::Equivalent, Some(w), Some(leader)) => self.equivalent(w, leader),
            (Outcome::OnlyEligible, Some(w), _) => format!(
                "Use `{}`: it is the only candidate that may win ({}). Quality did not decide.",
                self.name(w),
                self.value(w)
            ),
            (_, _, Some(leader)) => self.inconclusive(leader),
            _ => format!(
                "No decision: none of {} may win. {}",
                names(self.records.iter().map(|r| r.name.as_str())),
                self.records
                    .iter()
                    .map(|r| format!("`{}`: {}", r.name, r.ineligible_because.join(" ")))
                    .collect::<Vec<_>>()
                    .join(" ")
            ),
        }
    }

    fn better(&self, winner: usize) -> String {
        let closest = self
            .rivals(winner)
            .min_by(|&a, &b| self.table.diff(winner, a).total_cmp(&self.table.diff(winner, b)));
        let against = closest.map_or(String::new(), |rival| {
            let adjusted = self.table.pair(winner, rival).map_or(1.0, |pair| pair.p_adjusted);
            format!(
                " The closest: {} ({} after Holm).",
                self.difference(winner, rival),
                p(adjusted)
            )
        });
        format!(
            "Use `{}`: with {} it is significantly better than {} on the same {} items.{against}",
            self.name(winner),
            self.value(winner),
            names(self.rivals(winner).map(|i| self.name(i))),
            whole(self.input.items.len()),
        )
    }

    fn equivalent(&self, winner: usize, leader: usize) -> String {
        let (beaten, tied): (Vec<usize>, Vec<usize>) =
            self.rivals(winner).partition(|&i| self.table.better(winner, i));
        let margin = number(self.input.rule.margin);
        let tied_names = names(tied.iter().map(|&i| self.name(i)));
        let beats = match beaten.as_slice() {
            [] => String::new(),
            some => {
                let names = names(some.iter().map(|&i| self.name(i)));
                format!(" It is significantly better than {names}.")
            }
        };
        let shown = if winner == leader { tied.first().copied() } else { Some(leader) };
        let shown = shown
            .map_or(String::new(), |i| format!(" Difference: {}.", self.difference(winner, i)));
        format!(
            "Use `{}`: a tie on quality, and it is the simplest. With {} it is at most {margin} worse than {tied_names}.\
             {shown}{beats}",
            self.name(winner),
            self.value(winner),
        )
    }

    fn inconclusive(&self, leader: usize) -> String {
        let open = names(self.ruling.open.iter().map(|&i| self.name(i)));
        let closest = self.ruling.open.first();
        let against = closest.map_or(String::new(), |&rival| {
            format!(" The closest: {}.", self.difference(leader, rival))
        });
        let advice = match self.needed {
            Some(n) => format!(" About {} more labelled test items would settle it.", whole(n)),
            None => {
                " They are too alike for any reasonable number of labels to settle it.".to_owned()
            }
        };
        format!(
            "No significant winner. `{}` leads with {}, but {} items cannot tell it from {open}.{against}{advice}",
            self.name(leader),
            self.value(leader),
            whole(self.input.items.len()),
        )
    }

    /// What would change the decision.
    pub(crate) fn flips(&self) -> Vec<String> {
        let mut flips = Vec::new();
        let value = |i: usize| self.records[i].metrics[&self.input.primary_metric].value;
        if let (Outcome::Inconclusive, Some(n)) = (self.ruling.outcome, self.needed) {
            flips.push(format!("About {} more labelled test items.", whole(n)));
        }
        if let (Some(w), Some(leader)) = (self.ruling.winner, self.ruling.leader)
            && w != leader
        {
            flips.push(format!(
                "A margin below {} would ask `{}` to prove that it is as good as `{}`.",
                number(self.input.rule.margin),
                self.name(w),
                self.name(leader)
            ));
        }
        let bar = self.ruling.winner.or(self.ruling.leader).and_then(value);
        for (i, record) in self.records.iter().enumerate().filter(|(_, r)| !r.eligible) {
            if value(i) > bar {
                flips.push(format!(
                    "`{}` scores higher ({}) and may not win: {}",
                    record.name,
                    self.value(i),
                    record.ineligible_because.join(" ")
                ));
            }
        }
        for record in self.records {
            if let (Some(queries), Some(against)) =
                (record.cost.break_even_queries, &record.cost.break_even_against)
            {
                flips.push(format!(
                    "On cost alone, `{}` overtakes `{against}` after {} queries.",
                    record.name,
                    number(queries.round())
                ));
            }
        }
        flips
    }

    /// What to know before trusting the verdict.
    pub(crate) fn warnings(&self, detectable: Option<f64>) -> Vec<String> {
        let bars = &self.input.rule.thresholds;
        let mut warnings = Vec::new();
        let n = self.input.items.len();
        if n < bars.few_test_items {
            let detectable = detectable.map_or(String::new(), |d| {
                format!(" With them a difference of {d:.3} is the smallest that shows with {:.0} % power.", 100.0 * self.input.rule.power)
            });
            warnings.push(format!(
                "Only {n} test items; {} are the least to decide on.{detectable}",
                bars.few_test_items
            ));
        }
        let clusters = self.table.pairs.iter().map(|p| p.clustered.clusters()).min();
        if let Some(k) = clusters.filter(|k| *k < bars.few_clusters) {
            warnings.push(format!(
                "The test items come from only {k} documents; below {} intervals are too narrow.",
                bars.few_clusters
            ));
        }
        for skipped in &self.input.skipped {
            warnings.push(format!("`{}` was skipped: {}.", skipped.name, skipped.reason));
        }
        for record in self.records {
            let m = &record.metrics[&self.input.primary_metric];
            if m.failed > 0 {
                warnings.push(format!(
                    "`{}` has no score on {} of {} items; they are left out of its figures.",
                    record.name,
                    m.failed,
                    m.n + m.failed
                ));
            }
        }
        warnings
    }
}
