//! What makes data unfit for a decision, found before anything is computed.

use std::collections::{BTreeMap, HashMap, HashSet};

use assay_types::{Item, RowRef, Task};
use serde::Serialize;

use crate::normal::{near_duplicates, normalise};
use crate::shape::nearest;

/// Fewer test items than this get a warning: only large differences can be shown with them.
const FEW_TEST_ITEMS: usize = 100;
/// Share of shingles from which two inputs count as nearly the same.
const NEAR: f64 = 0.9;
/// Share of test items on which two candidates are assumed to disagree, when none has been measured.
const DISAGREEMENT: f64 = 0.2;

/// What is checked.
#[derive(Clone, Copy)]
pub struct LintInput<'a> {
    /// What the feature does.
    pub task: Task,
    /// Items that candidates learn from.
    pub train: &'a [Item],
    /// Items that choices are made on; empty when they are still to be taken from train.
    pub dev: &'a [Item],
    /// Items that decide.
    pub test: &'a [Item],
    /// Paths of all documents, relative to their folder, with `/`; `None` leaves gold documents unchecked.
    pub documents: Option<&'a [String]>,
    /// How long items may be; `None` leaves lengths unchecked.
    pub context: Option<Context<'a>>,
}

/// The room that a model has for an item.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Tokens that fit.
    pub limit: usize,
    /// Tokens of an item as the model sees it.
    pub tokens: &'a dyn Fn(&Item) -> usize,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The decision would be wrong or impossible.
    Error,
    /// The decision would be weaker than it looks.
    Warning,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// There are no test items.
    NoTest,
    /// There are no training items.
    NoTrain,
    /// A split has one label only.
    OneLabel,
    /// All outputs of a split are equal.
    EqualOutputs,
    /// A label of the test items that train does not have.
    UnseenLabel,
    /// A test input that also stands in train or dev, letter for letter or normalised.
    Leak,
    /// The same input with different labels (error), or different answers (warning).
    Contradiction,
    /// A gold document that is not among the documents.
    UnknownDocument,
    /// An answerable item without a reference.
    NoReference,
    /// An item that does not fit into the context.
    TooLong,
    /// Too few test items to show any but large differences.
    FewTestItems,
    /// A test input that nearly stands in train or dev.
    NearLeak,
    /// An input that stands twice in a split.
    Duplicate,
    /// A label that train has once.
    RareLabel,
}

/// Something that the user should know about the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub code: Code,
    /// The row, where it is about one.
    pub location: Option<RowRef>,
    /// What was found, in a sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// Looks for everything that [`Code`] names. Errors come first; within them findings are sorted by
/// code, file and row. The same input gives the same findings.
pub fn lint(input: &LintInput<'_>) -> Vec<Finding> {
    let mut findings = Findings::default();
    let splits = [("train", input.train), ("dev", input.dev), ("test", input.test)]
        .map(|(name, items)| Part { name, items, keys: items.iter().map(key).collect() });
    empty_splits(input, &mut findings);
    for part in &splits {
        within(input.task, part, &mut findings);
        outputs(input.task, part, &mut findings);
        part.items.iter().for_each(|item| single(input, item, &mut findings));
    }
    let [train, dev, test] = &splits;
    leaks(test, &[train, dev], &mut findings);
    if input.task == Task::Classify {
        label_coverage(input, &mut findings);
    }
    if let Some(documents) = input.documents {
        unknown_documents(&splits, documents, &mut findings);
    }
    findings.0.sort_by(|a, b| {
        let by = |f: &Finding| (f.severity, f.code, f.location.clone(), f.message.clone());
        by(a).cmp(&by(b))
    });
    findings.0
}

/// One split with its items' normalised inputs.
struct Part<'a> {
    name: &'static str,
    items: &'a [Item],
    keys: Vec<String>,
}

fn key(item: &Item) -> String {
    let key = normalise(&item.input);
    // An input of nothing but punctuation is compared as it is.
    if key.is_empty() { item.input.clone() } else { key }
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn error(&mut self, code: Code, at: Option<&Item>, message: String, hint: &str) {
        self.add(Severity::Error, code, at, message, hint);
    }

    fn warning(&mut self, code: Code, at: Option<&Item>, message: String, hint: &str) {
        self.add(Severity::Warning, code, at, message, hint);
    }

    fn add(
        &mut self,
        severity: Severity,
        code: Code,
        at: Option<&Item>,
        message: String,
        hint: &str,
    ) {
        let location = at.map(|item| item.source.clone());
        self.0.push(Finding { severity, code, location, message, hint: hint.to_owned() });
    }
}

fn empty_splits(input: &LintInput<'_>, findings: &mut Findings) {
    let n = input.test.len();
    if n == 0 {
        findings.error(
            Code::NoTest,
            None,
            "there are no test items".into(),
            "label items that candidates do not learn from; 200 are a good start",
        );
    } else if n < FEW_TEST_ITEMS {
        let points = 100.0 * detectable(n);
        findings.warning(
            Code::FewTestItems,
            None,
            format!("there are {n} test items: a difference below about {points:.0} points cannot be told from chance"),
            &format!(
                "label at least {FEW_TEST_ITEMS}; 400 show about {:.0} points",
                100.0 * detectable(400)
            ),
        );
    }
    if input.train.is_empty() {
        let message = "there are no training items".to_owned();
        match input.task {
            Task::Classify => findings.error(
                Code::NoTrain,
                None,
                message,
                "label some: the set of labels is taken from them",
            ),
            Task::Qa | Task::Extract | Task::Generate => findings.warning(
                Code::NoTrain,
                None,
                message,
                "label some: without them nothing can be tuned and no example shown",
            ),
        }
    }
}

/// The difference of two shares that `n` items show with 80 % power, if candidates disagree on [`DISAGREEMENT`].
fn detectable(n: usize) -> f64 {
    assay_stats::minimum_detectable_effect((DISAGREEMENT / n as f64).sqrt(), 0.05, 0.8)
}

/// Duplicates and contradictions.
fn within(task: Task, part: &Part<'_>, findings: &mut Findings) {
    let mut first: HashMap<(&str, Option<&str>), &Item> = HashMap::new();
    for (item, key) in part.items.iter().zip(&part.keys) {
        let earlier = *first.entry((key, item.system.as_deref())).or_insert(item);
        if std::ptr::eq(earlier, item) {
            continue;
        }
        let at = &earlier.source;
        if same_output(earlier, item) {
            findings.warning(
                Code::Duplicate,
                Some(item),
                format!("stands in {} already, at {at}", part.name),
                "remove one of them",
            );
        } else if task == Task::Classify {
            findings.error(
                Code::Contradiction,
                Some(item),
                format!(
                    "has the label {}, and the same text at {at} has {}",
                    quoted(item),
                    quoted(earlier)
                ),
                "keep the right one of them",
            );
        } else {
            findings.warning(
                Code::Contradiction,
                Some(item),
                format!("has another answer than the same input at {at}"),
                "if both are right, write them as references of one item",
            );
        }
    }
}

fn same_output(a: &Item, b: &Item) -> bool {
    let set = |i: &Item| i.references.iter().map(|r| normalise(r)).collect::<HashSet<_>>();
    let unanswerable = |i: &Item| i.answerable == Some(false);
    unanswerable(a) == unanswerable(b) && set(a) == set(b)
}

fn quoted(item: &Item) -> String {
    item.references.first().map_or("no label".into(), |l| format!("`{l}`"))
}

/// One label, or one output, in a whole split.
fn outputs(task: Task, part: &Part<'_>, findings: &mut Findings) {
    let given: Vec<&String> = part.items.iter().filter_map(|i| i.references.first()).collect();
    let [first, rest @ ..] = given.as_slice() else { return };
    if rest.is_empty() || rest.iter().any(|r| r != first) {
        return;
    }
    let (name, n) = (part.name, given.len());
    match task {
        Task::Classify => findings.error(
            Code::OneLabel,
            None,
            format!("all {n} labelled items of {name} have the label `{first}`"),
            "there is nothing to tell apart: add items with other labels",
        ),
        Task::Qa | Task::Extract | Task::Generate => findings.error(
            Code::EqualOutputs,
            None,
            format!("all {n} outputs of {name} are equal"),
            "check the column or field that the outputs are read from",
        ),
    }
}

/// What can be wrong with an item by itself.
fn single(input: &LintInput<'_>, item: &Item, findings: &mut Findings) {
    if item.references.is_empty() && item.answerable != Some(false) {
        findings.error(
            Code::NoReference,
            Some(item),
            "has no reference to score against".into(),
            "add one, or say `\"answerable\": false` if the documents do not hold the answer",
        );
    }
    if let Some(Context { limit, tokens }) = input.context {
        let tokens = tokens(item);
        if tokens > limit {
            findings.error(
                Code::TooLong,
                Some(item),
                format!("is {tokens} tokens long, {limit} fit"),
                "shorten it, remove it, or use a model with a longer context",
            );
        }
    }
}

/// Test inputs that candidates could have seen.
fn leaks(test: &Part<'_>, seen: &[&Part<'_>], findings: &mut Findings) {
    let mut known: HashMap<&str, Vec<(&Item, &str)>> = HashMap::new();
    for part in seen {
        for (item, key) in part.items.iter().zip(&part.keys) {
            known.entry(key).or_default().push((item, part.name));
        }
    }
    let mut clean = Vec::new();
    for (item, key) in test.items.iter().zip(&test.keys) {
        let Some(twins) = known.get(key.as_str()) else {
            clean.push((item, key));
            continue;
        };
        let exact = twins.iter().find(|(twin, _)| twin.input == item.input);
        let (twin, name) = exact.unwrap_or(&twins[0]);
        let how = if exact.is_some() { "stands" } else { "stands, but for case and punctuation," };
        findings.error(
            Code::Leak,
            Some(item),
            format!("{how} in {name} too, at {}", twin.source),
            "remove it from one of them",
        );
    }
    let queries: Vec<String> = clean.iter().map(|(_, key)| (*key).clone()).collect();
    let among: Vec<(&Item, &str, &String)> = seen
        .iter()
        .flat_map(|p| p.items.iter().zip(&p.keys).map(|(i, k)| (i, p.name, k)))
        .collect();
    let keys: Vec<String> = among.iter().map(|(_, _, key)| (*key).clone()).collect();
    for ((item, _), near) in clean.iter().zip(near_duplicates(&queries, &keys, NEAR)) {
        if let Some((i, similarity)) = near {
            let (twin, name, _) = among[i];
            findings.warning(
                Code::NearLeak,
                Some(item),
                format!(
                    "is nearly ({:.0} %) the same as {name} at {}",
                    100.0 * similarity,
                    twin.source
                ),
                "remove it from one of them if it asks the same",
            );
        }
    }
}

/// Labels that test has and train has not, and labels that train has once.
fn label_coverage(input: &LintInput<'_>, findings: &mut Findings) {
    let mut train: BTreeMap<&str, Vec<&Item>> = BTreeMap::new();
    for item in input.train {
        if let Some(label) = item.references.first() {
            train.entry(label).or_default().push(item);
        }
    }
    for (label, items) in &train {
        if let [item] = items.as_slice() {
            findings.warning(
                Code::RareLabel,
                Some(item),
                format!("is the only training item with the label `{label}`"),
                "label more of them, or merge the label with another",
            );
        }
    }
    if train.is_empty() {
        return;
    }
    let mut told = HashSet::new();
    for item in input.test {
        let Some(label) = item.references.first() else { continue };
        if train.contains_key(label.as_str()) || !told.insert(label) {
            continue;
        }
        let n = input.test.iter().filter(|i| i.references.first() == Some(label)).count();
        let hint = match nearest(label, train.keys().copied()) {
            Some(near) => format!("is `{near}` meant?"),
            None => "add training items with it, or remove it from test".to_owned(),
        };
        let message = format!("has the label `{label}`, which train does not have ({n} in test)");
        findings.error(Code::UnseenLabel, Some(item), message, &hint);
    }
}

fn unknown_documents(splits: &[Part<'_>], documents: &[String], findings: &mut Findings) {
    let known: HashSet<&str> = documents.iter().map(String::as_str).collect();
    let mut nearest_of: HashMap<&str, Option<&str>> = HashMap::new();
    for item in splits.iter().flat_map(|part| part.items) {
        for document in item.doc_ids.iter().filter(|d| !known.contains(d.as_str())) {
            let near = *nearest_of
                .entry(document)
                .or_insert_with(|| nearest(document, known.iter().copied()));
            let hint = match near {
                Some(near) => format!("is `{near}` meant?"),
                None => "name documents by their path in the documents folder".to_owned(),
            };
            let message = format!("names the document `{document}`, which is not there");
            findings.error(Code::UnknownDocument, Some(item), message, &hint);
        }
    }
}
