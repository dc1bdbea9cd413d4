//! Invented decisions: nothing here was measured.

use std::collections::BTreeMap;

use assay_decide::{
    CandidateRecord, Comparison, ConstraintRecord, ConstraintValue, Cost, Decision, EpochRecord,
    EvidenceSource, FlowStep, General, Inputs, LatencyMs, MetricSummary, Outcome, Prices, Promise,
    ReportData, ReportItem, ReportOutput, RiskPoint, SCHEMA_VERSION, Selective, SliceDecision,
    SliceRecord, Tokens, TrainingHistory,
};
use assay_types::{Citation, ItemId, Retrieved, Score, Task};

fn summary(value: f64, half: f64, n: usize, failed: usize) -> MetricSummary {
    MetricSummary {
        value: Some(value),
        ci_low: Some((value - half).max(0.0)),
        ci_high: Some((value + half).min(1.0)),
        n,
        failed,
        skipped: 0,
    }
}

struct Candidate {
    name: &'static str,
    value: f64,
    half: f64,
    /// Medians of retrieval, prompt and answer in milliseconds.
    times: [f64; 3],
    training_usd: f64,
    per_query_usd: f64,
    break_even: Option<(f64, &'static str)>,
    general_after: f64,
    retrieves: bool,
}

const SLICES: [(&str, &str, usize, f64); 6] = [
    ("type", "fact", 74, 0.05),
    ("type", "procedure", 61, -0.02),
    ("type", "troubleshooting", 45, -0.11),
    ("answerable", "yes", 180, 0.01),
    ("answerable", "no", 20, -0.18),
    ("split", "unseen document", 96, -0.06),
];

fn candidate(c: &Candidate) -> CandidateRecord {
    let total: f64 = c.times.iter().sum();
    let mut metrics = BTreeMap::from([
        ("f1".to_owned(), summary(c.value, c.half, 200, usize::from(c.name == "hybrid"))),
        ("exact_match".to_owned(), summary(0.82 * c.value, c.half, 200, 0)),
    ]);
    if c.retrieves {
        metrics.insert("recall_at_5".into(), summary(0.885, 0.04, 180, 0));
        metrics.insert("citation_validity".into(), summary(0.96, 0.03, 172, 0));
    }
    let slice = |(slice, value, n, shift): &(&str, &str, usize, f64)| SliceRecord {
        slice: (*slice).into(),
        value: (*value).into(),
        summary: summary(
            (c.value + shift * (1.3 - c.value)).clamp(0.02, 0.98),
            1.0 / (*n as f64).sqrt(),
            *n,
            0,
        ),
    };
    let tuned = c.training_usd > 0.0;
    CandidateRecord {
        name: c.name.into(),
        eligible: true,
        ineligible_because: Vec::new(),
        metrics,
        latency_ms: LatencyMs {
            p50: Some(total),
            p95: Some(1.7 * total),
            mean: Some(1.1 * total),
            retrieval_p50: c.retrieves.then_some(c.times[0]),
            retrieval_p95: c.retrieves.then_some(2.0 * c.times[0]),
            prefill_p50: Some(c.times[1]),
            prefill_p95: Some(1.5 * c.times[1]),
            decode_p50: Some(c.times[2]),
            decode_p95: Some(2.0 * c.times[2]),
        },
        tokens: Tokens {
            input_mean: Some(if c.retrieves { 812.4 } else { 146.0 }),
            output_mean: Some(21.3),
            output_per_s: Some(64.0),
        },
        cost: Cost {
            per_query_usd: Some(c.per_query_usd),
            training_usd: Some(c.training_usd),
            labels_usd: Some(if tuned { 300.0 } else { 0.0 }),
            per_month_usd: Some(40_000.0 * c.per_query_usd),
            break_even_queries: c.break_even.map(|b| b.0),
            break_even_against: c.break_even.map(|b| b.1.to_owned()),
        },
        general: General {
            before: Some(0.412),
            after: Some(c.general_after),
            n: 300,
            diff: Some(c.general_after - 0.412),
            ci_low: tuned.then_some(c.general_after - 0.412 - 0.021),
            ci_high: tuned.then_some(c.general_after - 0.412 + 0.021),
            p_value: tuned.then_some(0.31),
        },
        selective: Some(selective(c.value)),
        slices: SLICES.iter().map(slice).collect(),
        notes: match c.name {
            "prompt" => vec!["3 examples in the prompt, chosen on dev".into()],
            "tuned" => vec!["checkpoint of epoch 3".into()],
            _ => Vec::new(),
        },
    }
}

/// The surer, the better; nothing is promised for the weakest.
fn selective(f1: f64) -> Selective {
    let point = |coverage: f64| RiskPoint { coverage, risk: (1.0 - f1) * (0.4 + 0.6 * coverage) };
    let kept = (f1 > 0.5).then(|| point(0.4));
    Selective {
        curve: (1..=20).map(|i| point(f64::from(i) / 20.0)).collect(),
        promise: Some(Promise {
            max_risk: 0.3,
            level: 0.95,
            dev_items: 60,
            threshold: kept.map(|_| 0.83),
            dev: kept,
            test: kept.map(|p| RiskPoint { coverage: p.coverage - 0.03, risk: p.risk + 0.02 }),
        }),
    }
}

fn comparison(a: &str, b: &str, diff: f64, half: f64, p: f64, adjusted: f64) -> Comparison {
    Comparison {
        a: a.into(),
        b: b.into(),
        metric: "f1".into(),
        diff: Some(diff),
        ci_low: Some(diff - half),
        ci_high: Some(diff + half),
        p_value: Some(p),
        p_adjusted: Some(adjusted),
        mcnemar_p: None,
        n: 200,
        clusters: 41,
        failed: usize::from(a == "hybrid" || b == "hybrid"),
        needed_labels: (adjusted >= 0.05).then_some(640),
        test: "sign flip of whole documents, 10,000 draws".into(),
    }
}

fn step(
    question: &str,
    answer: &str,
    evidence: &str,
    source: EvidenceSource,
    speaks_for: &str,
) -> FlowStep {
    FlowStep {
        question: question.into(),
        answer: answer.into(),
        evidence: evidence.into(),
        source,
        speaks_for: speaks_for.into(),
        timed: false,
    }
}

fn strings<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn inputs() -> Inputs {
    let numbers = |pairs: [(&str, usize); 5]| {
        pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<BTreeMap<_, _>>()
    };
    Inputs {
        hashes: strings([
            ("corpus", "3f1c9e0b7a52d84466b0e91c2d75a8f0c4d1137e9b6a20558fd3c7a1e84b9d02"),
            ("train", "a81b54f7c39d02e6175fbc8844e0d9a3b26c71f05e8d94a30c7f1b62d5e8a947"),
            ("test", "07d2e6b9815ca34fd7608b1e93c2fa5547e0d81b6c39f2a4850be7d16c94f38a"),
            ("base model", "e95b0c7d1f8a4632c05d7be981f64a20b3c8d5e7a9104f2b6d83c5e0f7a19b64"),
        ]),
        seeds: BTreeMap::from([("bootstrap".into(), 20_260_101), ("training".into(), 7)]),
        counts: numbers([
            ("train items", 540),
            ("dev items", 60),
            ("test items", 200),
            ("documents", 44),
            ("clusters", 41),
        ]),
        settings: strings([
            ("alpha", "0.05"),
            ("margin", "2.0 points"),
            ("bootstrap samples", "10000"),
        ]),
    }
}

fn flowchart() -> Vec<FlowStep> {
    use EvidenceSource::{Measured, Stated, Unknown};
    vec![
        step(
            "Does the knowledge change?",
            "Weekly",
            "The project file states that documents change every week; a tuned model would have to be tuned again.",
            Stated,
            "retrieval",
        ),
        step(
            "Can the answer be found?",
            "Yes, mostly",
            "The gold document is among the first five for 88.5% of the questions.",
            Measured,
            "retrieval",
        ),
        step(
            "Are there labels enough to tune?",
            "Yes",
            "540 training items; tuning gains 11.2 points of F1 without retrieval.",
            Measured,
            "tuning",
        ),
        step(
            "Is a fixed format needed?",
            "No",
            "Answers are short spans; no schema is set.",
            Stated,
            "",
        ),
        step(
            "Is latency tight?",
            "No limit set",
            "No limit stands in the project file.",
            Unknown,
            "",
        ),
        step(
            "Is the volume high?",
            "40,000 a month",
            "Training is repaid after 61,000 answers against rag.",
            Measured,
            "tuning",
        ),
    ]
}

fn output(candidate: &str, text: &str, score: Score, cites: bool) -> ReportOutput {
    let retrieved = |document: &str, in_context| Retrieved {
        document: document.into(),
        start: 120,
        end: 640,
        score: 0.031,
        in_context,
    };
    let quote = "Hold the brass pin for nine seconds until the ring turns violet.";
    ReportOutput {
        candidate: candidate.into(),
        text: text.into(),
        score,
        citations: if cites {
            vec![Citation {
                document: "howto/reset.md".into(),
                start: 412,
                end: 412 + quote.len(),
                quote: quote.into(),
                source_number: 1,
                repaired: false,
                pages: None,
            }]
        } else {
            Vec::new()
        },
        dropped_citations: usize::from(candidate == "rag"),
        retrieved: if matches!(candidate, "rag" | "hybrid") {
            vec![
                retrieved("howto/reset.md", true),
                retrieved("devices/kiln-2.md", true),
                retrieved("billing/fees.md", false),
            ]
        } else {
            Vec::new()
        },
        abstained: text.contains("do not say"),
    }
}

fn items() -> Vec<ReportItem> {
    let item = |id: &str, input: &str, references: &[&str], outputs| ReportItem {
        id: ItemId(id.into()),
        input: input.into(),
        references: references.iter().map(|r| (*r).to_owned()).collect(),
        doc_ids: if references.is_empty() { vec![] } else { vec!["howto/reset.md".into()] },
        slices: strings([("type", "procedure"), ("split", "unseen document")]),
        outputs,
    };
    use Score::{Failed, Scored};
    vec![
        item(
            "test-031",
            "How long do I hold the pin before the second-generation kiln forgets its network?",
            &["nine seconds", "9 s"],
            vec![
                output(
                    "prompt",
                    "Press and hold the power button for about ten seconds, then release it.",
                    Scored(0.0),
                    false,
                ),
                output(
                    "rag",
                    "Hold the brass pin until the ring turns violet [1].",
                    Scored(0.33),
                    true,
                ),
                output("tuned", "five seconds", Scored(0.5), false),
                output("hybrid", "nine seconds [1]", Scored(1.0), true),
            ],
        ),
        item(
            "test-118",
            "Which of the two fees applies when the parcel is returned unopened after the thirtieth day?",
            &["The restocking fee"],
            vec![
                output("prompt", "There are usually no fees.", Scored(0.0), false),
                output("rag", "The documents do not say.", Scored(0.0), false),
                output("tuned", "the restocking fee", Scored(1.0), false),
                output(
                    "hybrid",
                    "",
                    Failed("no answer within the limit of 64 tokens".into()),
                    false,
                ),
            ],
        ),
        item(
            "test-164",
            "Does the company sell bicycles?",
            &[],
            vec![
                output("prompt", "Yes, it sells a range of bicycles.", Scored(0.0), false),
                output("rag", "The documents do not say.", Scored(1.0), false),
                output("tuned", "Yes", Scored(0.0), false),
                output("hybrid", "The documents do not say.", Scored(1.0), false),
            ],
        ),
    ]
}

fn training() -> Vec<TrainingHistory> {
    let epochs = |dev: [f64; 5]| {
        let epoch = |(i, dev): (usize, f64)| EpochRecord {
            epoch: i + 1,
            train_loss: 2.1 * 0.62f64.powi(i as i32) + 0.2,
            dev_loss: Some(dev),
            seconds: 41.0,
        };
        dev.into_iter().enumerate().map(epoch).collect()
    };
    vec![
        TrainingHistory {
            candidate: "tuned".into(),
            epochs: epochs([1.92, 1.41, 1.28, 1.31, 1.37]),
            best_epoch: Some(3),
        },
        TrainingHistory {
            candidate: "hybrid".into(),
            epochs: epochs([1.22, 0.83, 0.71, 0.69, 0.74]),
            best_epoch: Some(4),
        },
    ]
}

const CANDIDATES: [Candidate; 4] = [
    Candidate {
        name: "prompt",
        value: 0.142,
        half: 0.035,
        times: [0.0, 120.0, 340.0],
        training_usd: 0.0,
        per_query_usd: 0.000_041,
        break_even: None,
        general_after: 0.412,
        retrieves: false,
    },
    Candidate {
        name: "rag",
        value: 0.523,
        half: 0.058,
        times: [14.0, 890.0, 360.0],
        training_usd: 0.0,
        per_query_usd: 0.000_118,
        break_even: None,
        general_after: 0.412,
        retrieves: true,
    },
    Candidate {
        name: "tuned",
        value: 0.254,
        half: 0.047,
        times: [0.0, 90.0, 180.0],
        training_usd: 1.84,
        per_query_usd: 0.000_024,
        break_even: Some((19_600.0, "rag")),
        general_after: 0.398,
        retrieves: false,
    },
    Candidate {
        name: "hybrid",
        value: 0.681,
        half: 0.054,
        times: [14.0, 870.0, 190.0],
        training_usd: 2.62,
        per_query_usd: 0.000_075,
        break_even: Some((61_000.0, "rag")),
        general_after: 0.404,
        retrieves: true,
    },
];

/// Retrieval with tuning wins.
pub(crate) fn decided() -> ReportData {
    let candidates: Vec<_> = CANDIDATES.iter().map(candidate).collect();
    let slices = SLICES.map(|(slice, value, n, _)| SliceDecision {
        slice: slice.into(),
        value: value.into(),
        n,
        leader: Some("hybrid".into()),
        winner: (n > 50).then(|| "hybrid".into()),
    });
    ReportData {
        project: "Kilnworks help desk (invented)".into(),
        decision: Decision {
            schema_version: SCHEMA_VERSION,
            task: Task::Qa,
            primary_metric: "f1".into(),
            winner: Some("hybrid".into()),
            outcome: Outcome::Better,
            verdict: "Use `hybrid`: with f1 0.681 [0.627, 0.735] it is significantly better than `prompt`, `rag` and `tuned` on the same 200 items. The closest: +0.158 [+0.097, +0.219] against `rag` (p < 0.001 after Holm).".into(),
            needed_labels: None,
            minimum_detectable_effect: Some(0.0621),
            warnings: vec!["One answer of hybrid failed; it counts as the lowest score in comparisons.".into()],
            flips: vec![
                "rag, if answers must cost less than $0.00002: no candidate does today.".into(),
                "rag, if documents change more often than training can be repeated.".into(),
            ],
            candidates,
            skipped: Vec::new(),
            comparisons: vec![
                comparison("rag", "hybrid", -0.158, 0.061, 0.0001, 0.0005),
                comparison("hybrid", "tuned", 0.427, 0.066, 0.0001, 0.0006),
                comparison("hybrid", "prompt", 0.539, 0.06, 0.0001, 0.0006),
                comparison("rag", "tuned", 0.269, 0.07, 0.0001, 0.0006),
                comparison("rag", "prompt", 0.381, 0.064, 0.0001, 0.0006),
                comparison("tuned", "prompt", 0.112, 0.117, 0.061, 0.061),
            ],
            flowchart: flowchart(),
            constraints: vec![ConstraintRecord {
                name: "max_p95_latency_ms".into(),
                limit: 2500.0,
                timed: true,
                measured: CANDIDATES
                    .iter()
                    .map(|c| ConstraintValue {
                        candidate: c.name.into(),
                        value: Some(1.7 * c.times.iter().sum::<f64>()),
                        ok: true,
                    })
                    .collect(),
            }],
            slices: slices.into(),
            prices: Prices { hardware_usd_per_hour: 0.2, label_usd: 0.5, ..Prices::default() },
            inputs: inputs(),
            times: BTreeMap::from([("ingest".into(), 3.4), ("train".into(), 412.0), ("evaluate".into(), 655.2)]),
        },
        items: items(),
        training: training(),
        method_notes: vec![
            "Every figure on this page is invented, to show the page.".into(),
            "Candidates answered the same 200 test items once. Intervals are cluster bootstraps over source documents; p values are from sign flips of whole documents, corrected by Holm's method.".into(),
        ],
    }
}

/// Too few labels for a verdict, no prices, no documents, a candidate that may not win.
pub(crate) fn open() -> ReportData {
    let mut data = decided();
    data.project = "Ticket queues (invented)".into();
    let d = &mut data.decision;
    d.task = Task::Classify;
    d.primary_metric = "accuracy".into();
    d.outcome = Outcome::Inconclusive;
    d.winner = None;
    d.needed_labels = Some(640);
    d.minimum_detectable_effect = Some(0.118);
    d.verdict = "No significant winner: `tuned` leads `rag` by 4.2 points of accuracy, and chance could do that (p = 0.310 after Holm). About 640 more labelled test items would settle it.".into();
    d.warnings = vec![
        "The test split has 88 items: only differences of 12 points and more can be shown.".into(),
    ];
    d.flips.clear();
    d.constraints.clear();
    d.prices = Prices::default();
    d.slices.clear();
    d.comparisons = vec![
        Comparison {
            metric: "accuracy".into(),
            mcnemar_p: Some(0.28),
            n: 88,
            clusters: 88,
            ..comparison("tuned", "rag", 0.042, 0.088, 0.31, 0.31)
        },
        Comparison {
            metric: "accuracy".into(),
            mcnemar_p: Some(0.001),
            n: 88,
            clusters: 88,
            ..comparison("tuned", "prompt", 0.301, 0.11, 0.0004, 0.0008)
        },
    ];
    d.candidates.retain(|c| c.name != "hybrid");
    for (c, value) in d.candidates.iter_mut().zip([0.41, 0.669, 0.711]) {
        c.metrics = BTreeMap::from([("accuracy".to_owned(), summary(value, 0.097, 88, 0))]);
        c.cost = Cost::default();
        c.general = General::default();
        c.slices.clear();
    }
    d.candidates[0].eligible = false;
    d.candidates[0].ineligible_because =
        vec!["Its 95th percentile of latency is 782 ms, the limit is 500 ms.".into()];
    data.items.clear();
    data.training.truncate(1);
    data
}
