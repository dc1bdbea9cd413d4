use std::collections::BTreeMap;

use assay_types::{Item, Output, Score, Task};
use serde_json::Value;

use crate::EvalError;
use crate::citation::{citation_precision, citation_recall, citation_validity};
use crate::classify::match_label;
use crate::extract::{Schema, slot_f1};
use crate::form::{abstention_accuracy, answer_text, finished, repetition, yes};
use crate::ranking::{
    Grades, average_precision, ndcg_at, rank_documents, recall_at, reciprocal_rank,
};
use crate::rouge::rouge_l;
use crate::squad::{SquadRules, squad_exact_match, squad_f1};

/// Metrics of every task, beyond its own.
const COMMON: [&str; 10] = [
    "citation_precision",
    "citation_recall",
    "citation_validity",
    "context_recall",
    "finished",
    "map",
    "mrr",
    "ndcg@10",
    "recall@5",
    "repetition",
];

/// Computes all metrics of a task for one item at a time.
#[derive(Debug)]
pub struct Scorer {
    task: Task,
    labels: Vec<String>,
    schema: Option<Schema>,
}

impl Scorer {
    /// A scorer of `task`. `classify` needs the closed set of labels, `extract` a JSON schema.
    pub fn new(task: Task, labels: Vec<String>, schema: Option<&Value>) -> Result<Self, EvalError> {
        if task == Task::Classify && labels.is_empty() {
            return Err(EvalError::Missing { task, what: "at least one label" });
        }
        if task == Task::Extract && schema.is_none() {
            return Err(EvalError::Missing { task, what: "a JSON schema" });
        }
        Ok(Scorer { task, labels, schema: schema.map(Schema::new).transpose()? })
    }

    /// The metric that decides this task; higher is better.
    pub fn primary_metric(&self) -> &'static str {
        own_metrics(self.task)[0]
    }

    /// Names of all metrics that [`Scorer::score`] returns, the same for every item.
    pub fn metrics(&self) -> impl Iterator<Item = &'static str> {
        own_metrics(self.task).iter().chain(&COMMON).copied()
    }

    /// All metrics of one output; an `Err` holds the reason why there is none, and fails every metric.
    pub fn score(&self, item: &Item, output: Result<&Output, &str>) -> BTreeMap<String, Score> {
        let output = match output {
            Ok(output) => output,
            Err(reason) => {
                return self.metrics().map(|m| (m.into(), Score::Failed(reason.into()))).collect();
            }
        };
        let answer = answer_text(output);
        let own = match self.task {
            Task::Qa => vec![
                required(squad_f1(&answer, &item.references, SquadRules::V2)),
                required(squad_exact_match(&answer, &item.references, SquadRules::V2)),
                abstention_accuracy(item, output),
            ],
            Task::Classify => {
                let label = match_label(&answer, &self.labels);
                let right = label.is_some_and(|l| item.references.iter().any(|r| r.trim() == l));
                vec![
                    if item.references.is_empty() { required(None) } else { yes(right) },
                    yes(label.is_some()),
                ]
            }
            Task::Extract => vec![
                item.references.first().map_or(required(None), |r| slot_f1(&answer, r)),
                self.schema.as_ref().map_or(required(None), |s| s.valid(&answer)),
            ],
            Task::Generate => vec![
                required(rouge_l(&answer, &item.references)),
                required(squad_f1(&answer, &item.references, SquadRules::V1)),
            ],
        };
        own_metrics(self.task)
            .iter()
            .copied()
            .zip(own)
            .chain(common(item, output))
            .map(named)
            .collect()
    }
}

fn named((name, score): (&str, Score)) -> (String, Score) {
    (name.to_owned(), score)
}

/// Metrics of one task only, the deciding one first.
fn own_metrics(task: Task) -> &'static [&'static str] {
    match task {
        Task::Qa => &["f1", "em", "abstention_accuracy"],
        Task::Classify => &["accuracy", "valid_label"],
        Task::Extract => &["slot_f1", "schema_valid"],
        Task::Generate => &["rougeL", "token_f1"],
    }
}

fn required(value: Option<f64>) -> Score {
    value.map_or_else(|| Score::Failed("the item has no reference".into()), Score::Scored)
}

/// In the order of [`COMMON`].
fn common(item: &Item, output: &Output) -> impl Iterator<Item = (&'static str, Score)> {
    let ranked = |metric: &dyn Fn(&[&str], &Grades) -> Option<f64>| retrieval(item, output, metric);
    let in_context = output.retrieved.iter().filter(|r| r.in_context);
    let context = rank_documents(in_context.map(|r| (r.document.as_str(), r.score)));
    COMMON.into_iter().zip([
        citation_precision(item, output),
        citation_recall(item, output),
        citation_validity(output),
        ranked(&|_, g| recall_at(&context, g, context.len())),
        finished(output),
        ranked(&|r, g| average_precision(r, g)),
        ranked(&|r, g| reciprocal_rank(r, g)),
        ranked(&|r, g| ndcg_at(r, g, 10)),
        ranked(&|r, g| recall_at(r, g, 5)),
        repetition(output),
    ])
}

/// A ranking metric over documents, the gold ones graded 1.
fn retrieval(
    item: &Item,
    output: &Output,
    metric: &dyn Fn(&[&str], &Grades) -> Option<f64>,
) -> Score {
    if output.retrieved.is_empty() {
        return Score::Skipped("nothing was retrieved".into());
    }
    let grades: Grades = item.doc_ids.iter().map(|d| (d.clone(), 1)).collect();
    let ranking = rank_documents(output.retrieved.iter().map(|r| (r.document.as_str(), r.score)));
    metric(&ranking, &grades)
        .map_or_else(|| Score::Skipped("the item names no gold document".into()), Score::Scored)
}
