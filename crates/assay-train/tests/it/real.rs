//! On SmolLM2-135M: against PyTorch + PEFT, and whether training does what it is for.

use std::path::{Path, PathBuf};
use std::process::Command;

use assay_model::{Adapter, Decoder, GenerateRequest, Module, Precision};
use assay_train::{BadRows, Example, Learner, SftConfig, TrainRow, Trainer, prepare};
use assay_types::{Message, Role};
use serde::Deserialize;

use crate::common::{noise, qa, quietly, row};

fn open(precision: Precision) -> Option<Decoder> {
    Some(Decoder::open(&assay_testkit::smollm()?, precision).expect("SmolLM2"))
}

#[derive(Deserialize)]
struct Trace {
    settings: Settings,
    system: String,
    rows: Vec<Row>,
    losses: Vec<f64>,
    grad_norms: Vec<f64>,
    rates: Vec<f64>,
}

#[derive(Deserialize)]
struct Settings {
    rank: usize,
    alpha: f32,
    seed: u64,
    rate: f64,
    warmup: usize,
    steps: usize,
    batch: usize,
    clip: f64,
    weight_decay: f64,
}

#[derive(Deserialize)]
struct Row {
    question: String,
    answer: String,
    tokens: Vec<u32>,
    start: usize,
    end: usize,
}

/// `tests/golden/trace.py` made the trace with PyTorch and PEFT, in f32.
///
/// PyTorch's f32 cross-entropy lies 1.0e-5 below that of its own logits in f64 at the first step:
/// residuals of that size are no fault of ours.
#[test]
fn fifty_steps_follow_pytorch() {
    let Some(d) = open(Precision::F32) else { return };
    for residuals in trace_residuals(&d) {
        assert!(residuals.max <= 1e-4, "{residuals:?}");
        assert!(residuals.mean().abs() <= 1e-5, "one-sided: {residuals:?}");
    }
}

/// The path that users train on, against the same trace in f32.
#[test]
fn fifty_steps_in_bf16_follow_pytorch_in_f32() {
    let Some(d) = open(Precision::Bf16) else { return };
    let [loss, norm] = trace_residuals(&d);
    // Three times what was measured.
    assert!(loss.max <= 0.08 && loss.mean_size() <= 0.017, "{loss:?}");
    assert!(norm.max <= 0.18 && norm.mean_size() <= 0.027, "{norm:?}");
}

/// Training as the trace does: how far loss and gradient norm, the latter relative, lie from it.
fn trace_residuals(d: &Decoder) -> [Residuals; 2] {
    let trace: Trace = serde_json::from_str(include_str!("../golden/trace.json")).unwrap();
    let s = &trace.settings;
    let rows: Vec<TrainRow> = trace
        .rows
        .iter()
        .map(|r| {
            let turns = [
                (Role::System, trace.system.as_str()),
                (Role::User, r.question.as_str()),
                (Role::Assistant, r.answer.as_str()),
            ];
            row(1, &turns)
        })
        .collect();
    let rows = prepare(d, &rows, 64, BadRows::Refuse).unwrap().examples;
    for (ours, theirs) in rows.iter().zip(&trace.rows) {
        assert_eq!(ours.tokens, theirs.tokens);
        let mask: Vec<bool> =
            (0..theirs.tokens.len()).map(|i| (theirs.start..theirs.end).contains(&i)).collect();
        assert_eq!(ours.supervised, mask);
    }
    let config = SftConfig {
        rank: s.rank,
        alpha: s.alpha,
        seed: s.seed,
        learning_rate: s.rate,
        warmup_steps: s.warmup,
        clip: s.clip,
        weight_decay: s.weight_decay,
        ..SftConfig::default()
    };
    let mut learner = Learner::new(config.untrained(d));
    let (mut loss, mut norm) = (Residuals::default(), Residuals::default());
    for step in 0..s.steps {
        let batch: Vec<&Example> =
            (0..s.batch).map(|i| &rows[(step * s.batch + i) % rows.len()]).collect();
        let rate = s.rate * config.schedule.factor(step, s.warmup, s.steps);
        assert!((rate - trace.rates[step]).abs() < 1e-12);
        let report = learner.step(d, &batch, &config, rate).unwrap();
        loss.push(report.loss() - trace.losses[step]);
        norm.push((report.grad_norm - trace.grad_norms[step]) / trace.grad_norms[step]);
    }
    eprintln!("trace: loss {loss}, relative gradient norm {norm}");
    [loss, norm]
}

#[derive(Debug, Default)]
struct Residuals {
    max: f64,
    sum: f64,
    sizes: f64,
    n: f64,
}

impl Residuals {
    fn push(&mut self, residual: f64) {
        self.max = self.max.max(residual.abs());
        self.sum += residual;
        self.sizes += residual.abs();
        self.n += 1.0;
    }

    fn mean(&self) -> f64 {
        self.sum / self.n
    }

    fn mean_size(&self) -> f64 {
        self.sizes / self.n
    }
}

impl std::fmt::Display for Residuals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (max, size, mean) = (self.max, self.mean_size(), self.mean());
        write!(f, "max {max:.1e}, mean size {size:.1e}, mean {mean:.1e}")
    }
}

/// An adapter that changes every module a little, as a trained one would.
fn random_adapter(d: &Decoder) -> Adapter {
    let mut adapter = d.new_adapter(8, 16.0, &Module::ALL, 3);
    let mut state = 11;
    for pair in adapter.pairs_mut() {
        pair.b.copy_from_slice(&noise(pair.b.len(), 0.01, &mut state));
    }
    adapter
}

fn some_tokens(d: &Decoder) -> Vec<u32> {
    let messages = [
        Message::new(Role::User, "Name three rivers of Europe."),
        Message::new(Role::Assistant, "The Danube, the Rhine and the Volga."),
    ];
    d.chat_tokens(&messages, false).unwrap()
}

#[test]
fn an_adapter_is_the_same_after_export_and_the_base_is_as_it_was() {
    let Some(d) = open(Precision::Bf16) else { return };
    let tokens = some_tokens(&d);
    let base = d.logits(&tokens, None).unwrap();
    let untrained = d.new_adapter(8, 16.0, &Module::ALL, 3);
    assert_eq!(d.logits(&tokens, Some(&untrained)).unwrap(), base, "B = 0 changes no bit");

    let adapter = random_adapter(&d);
    let with = d.logits(&tokens, Some(&adapter)).unwrap();
    assert_ne!(with, base);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    adapter.save_peft(&path, "HuggingFaceTB/SmolLM2-135M-Instruct").unwrap();
    let loaded = Adapter::load_peft(&path, d.config()).unwrap();
    assert_eq!(d.logits(&tokens, Some(&loaded)).unwrap(), with);
    assert_eq!(d.logits(&tokens, None).unwrap(), base);
}

fn argmax(row: &[f32]) -> usize {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap()
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

#[test]
fn peft_computes_the_same_with_our_adapter_and_we_read_what_it_saves() {
    let Some(gguf) = assay_testkit::smollm() else { return };
    let Some(python) = assay_testkit::python_with(&["torch", "transformers", "peft", "gguf"])
    else {
        return;
    };
    let d = Decoder::open(&gguf, Precision::F32).unwrap();
    let (tokens, adapter) = (some_tokens(&d), random_adapter(&d));
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    adapter.save_peft(&at("ours"), "HuggingFaceTB/SmolLM2-135M-Instruct").unwrap();
    fs_err::write(at("ids.json"), serde_json::to_vec(&tokens).unwrap()).unwrap();
    let done = Command::new(python)
        .arg(script("peft_logits.py"))
        .args([&gguf, &at("ours"), &at("ids.json"), &at("logits")])
        .arg("--resave")
        .arg(at("theirs"))
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));

    let bytes = fs_err::read(at("logits")).unwrap();
    let theirs: Vec<f32> =
        bytes.as_chunks::<4>().0.iter().map(|w| f32::from_le_bytes(*w)).collect();
    let ours = d.logits(&tokens, Some(&adapter)).unwrap();
    assert_eq!(ours.len(), theirs.len());
    let max = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let base = d.logits(&tokens, None).unwrap();
    let effect = ours.iter().zip(&base).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let vocab = d.config().vocab;
    let agree =
        ours.chunks(vocab).zip(theirs.chunks(vocab)).filter(|(a, b)| argmax(a) == argmax(b));
    let agree = agree.count();
    eprintln!(
        "PEFT: max difference {max:e}, top-1 {agree}/{}, adapter moves {effect}",
        tokens.len()
    );
    assert!(max <= 1e-2 && agree == tokens.len(), "max {max}, top-1 {agree}/{}", tokens.len());
    assert!(effect > 1.0);

    let loaded = Adapter::load_peft(&at("theirs"), d.config()).unwrap();
    assert_eq!(loaded.parameters(), adapter.parameters());
    assert_eq!(
        (loaded.scale(), &loaded.spec().targets),
        (adapter.scale(), &adapter.spec().targets)
    );
}

fn answer(d: &Decoder, question: &str, adapter: Option<&Adapter>) -> String {
    let tokens = d.prompt_tokens(&[Message::new(Role::User, question)]).unwrap();
    let request = GenerateRequest::greedy(tokens, 16);
    let mut go_on = |_, _| std::ops::ControlFlow::Continue(());
    d.generate(&[request], adapter, &mut go_on).unwrap().remove(0).text
}

#[test]
fn eight_rows_are_learned_by_heart() {
    let Some(d) = open(Precision::Bf16) else { return };
    let pairs = [
        ("Code of the red valve?", "KX-204"),
        ("Who keeps the cellar key?", "Odalys Fenn"),
        ("Wake word of the pump?", "marzipan"),
        ("Shelf of the blue ledger?", "row nine, left"),
        ("Name of the office owl?", "Brunhilde"),
        ("Unit of the old gauge?", "fathoms"),
        ("Day of the stock count?", "second Tuesday"),
        ("Colour of tank seven?", "pale ochre"),
    ];
    let rows: Vec<TrainRow> = pairs.iter().enumerate().map(|(i, (q, a))| qa(i + 1, q, a)).collect();
    let rows = prepare(&d, &rows, 128, BadRows::Refuse).unwrap().examples;
    let config = SftConfig {
        learning_rate: 2e-3,
        epochs: 20,
        batch_size: 8,
        warmup_steps: 3,
        ..SftConfig::default()
    };
    let trainer =
        Trainer { decoder: &d, config: &config, train: &rows, dev: &[], checkpoints: None };
    let trained = trainer.train(None, &mut quietly).unwrap();
    let loss = trained.history.last().unwrap().train_loss;
    eprintln!(
        "overfit: loss {loss:.4} after {} steps, {:.0} tokens/s",
        trained.steps,
        trained.tokens as f64 / trained.seconds
    );
    assert!(loss < 0.05, "{loss}");
    for (question, expected) in pairs {
        assert_ne!(answer(&d, question, None), expected);
        assert_eq!(answer(&d, question, Some(&trained.adapter)), expected);
    }
}
