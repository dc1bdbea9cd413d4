//! Steps, epochs, and the choice among them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::process::Command;

use assay_model::{Adapter, Decoder};
use assay_train::{
    BadRows, EpochReport, Example, Learner, Schedule, SftConfig, TrainError, Trained, Trainer,
    mean_loss, prepare,
};

use crate::common::{CHATML, qa, quietly, rows, tiny, tiny_with};

pub(crate) fn config() -> SftConfig {
    SftConfig {
        rank: 4,
        alpha: 8.0,
        learning_rate: 1e-2,
        epochs: 3,
        batch_size: 3,
        warmup_steps: 2,
        weight_decay: 0.01,
        seed: 5,
        micro_batch_tokens: 100,
        ..SftConfig::default()
    }
}

pub(crate) fn train(decoder: &Decoder, config: &SftConfig, rows: &[Example]) -> Trained {
    let trainer = Trainer { decoder, config, train: rows, dev: rows, checkpoints: None };
    trainer.train(None, &mut quietly).expect("a whole run")
}

/// Largest difference of two adapters, relative to the largest value.
fn difference(a: &Adapter, b: &Adapter) -> f32 {
    let pairs = || a.parameters().iter().zip(b.parameters());
    let scale = pairs().map(|(x, _)| x.abs()).fold(0.0, f32::max);
    pairs().map(|(x, y)| (x - y).abs()).fold(0.0, f32::max) / scale
}

/// The adapter after one step on all `rows` in one batch, and what the step reported.
fn one_step(decoder: &Decoder, rows: &[&Example], config: &SftConfig) -> (Adapter, f64, f64) {
    let mut learner = Learner::new(config.untrained(decoder));
    // B is zero at first, so that A gets its gradient from the second step on.
    learner.step(decoder, rows, config, 1e-2).unwrap();
    let report = learner.step(decoder, rows, config, 1e-2).unwrap();
    (learner.adapter, report.loss(), report.grad_norm)
}

#[test]
fn packing_and_order_change_rounding_only() {
    let d = tiny();
    let rows = rows(&d);
    let forward: Vec<&Example> = rows.iter().collect();
    let backward: Vec<&Example> = rows.iter().rev().collect();
    let packed = |tokens| SftConfig { micro_batch_tokens: tokens, ..config() };
    let (adapter, loss, norm) = one_step(&d, &forward, &packed(usize::MAX));
    for (rows, tokens) in
        [(&forward, 1), (&forward, 150), (&backward, usize::MAX), (&backward, 150)]
    {
        let (other, other_loss, other_norm) = one_step(&d, rows, &packed(tokens));
        assert!((loss - other_loss).abs() < 1e-5, "{tokens}: loss {loss} {other_loss}");
        assert!((norm - other_norm).abs() < 1e-4 * norm, "{tokens}: norm {norm} {other_norm}");
        // AdamW turns a gradient near zero into a step of full size: hence no tighter bound.
        assert!(difference(&adapter, &other) < 0.05, "{}", difference(&adapter, &other));
    }
}

#[test]
fn a_token_weighs_the_same_in_every_row() {
    let d = tiny();
    let rows = rows(&d);
    let refs: Vec<&Example> = rows.iter().collect();
    let mut learner = Learner::new(config().untrained(&d));
    let report = learner.step(&d, &refs, &config(), 1e-3).unwrap();
    let (mut nll, mut tokens) = (0.0, 0);
    for row in &rows {
        let n = row.supervised_tokens();
        nll += mean_loss(&d, std::slice::from_ref(row), None, 4096).unwrap() * n as f64;
        tokens += n;
    }
    assert_eq!(report.supervised, tokens);
    assert!((report.loss() - nll / tokens as f64).abs() < 1e-5);
    // B is zero: the first loss is the base model's.
    assert!((report.loss() - mean_loss(&d, &rows, None, 4096).unwrap()).abs() < 1e-5);
}

#[test]
fn b_moves_first_then_a() {
    let d = tiny();
    let rows = rows(&d);
    let refs: Vec<&Example> = rows.iter().collect();
    let config = SftConfig { weight_decay: 0.0, ..config() };
    let mut learner = Learner::new(config.untrained(&d));
    let mut before = learner.adapter.clone();
    for expected in [(true, false), (false, false)] {
        learner.step(&d, &refs, &config, 1e-2).unwrap();
        for (old, new) in before.pairs().zip(learner.adapter.pairs()) {
            assert_eq!((old.a == new.a, old.b == new.b), expected, "{:?}", old.module);
        }
        before = learner.adapter.clone();
    }
}

#[test]
fn checkpointing_gives_the_same_bits() {
    let d = tiny();
    let rows = rows(&d);
    let plain = train(&d, &config(), &rows);
    let other = train(&d, &SftConfig { checkpointing: true, ..config() }, &rows);
    assert_eq!(plain.adapter.parameters(), other.adapter.parameters());
    assert_eq!(plain.history, other.history);
}

#[test]
fn the_same_seed_gives_the_same_bits_another_one_does_not() {
    let d = tiny();
    let rows = rows(&d);
    let first = train(&d, &config(), &rows);
    let again = train(&tiny(), &config(), &rows);
    assert_eq!(first.adapter.parameters(), again.adapter.parameters());
    let other = train(&d, &SftConfig { seed: 6, ..config() }, &rows);
    assert_ne!(first.history, other.history);
}

/// Run in processes of its own by [`two_processes_train_the_same_bits`].
#[test]
#[ignore = "prints what `two_processes_train_the_same_bits` compares"]
#[expect(clippy::print_stdout, reason = "its output is read by the test that starts it")]
fn print_trained_bits() {
    let d = tiny();
    let trained = train(&d, &config(), &rows(&d));
    let mut hasher = DefaultHasher::new();
    trained.adapter.parameters().iter().for_each(|v| v.to_bits().hash(&mut hasher));
    println!("bits {:x}", hasher.finish());
}

#[test]
fn two_processes_train_the_same_bits() {
    let run = || {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "training::print_trained_bits", "--ignored", "--nocapture"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().find_map(|l| l.split_once("bits ").map(|(_, b)| b.to_owned())).unwrap()
    };
    assert_eq!(run(), run());
}

#[test]
fn training_lowers_the_loss_and_says_how() {
    let d = tiny();
    let rows = rows(&d);
    let config = SftConfig { epochs: 8, ..config() };
    let mut seen = Vec::new();
    let trainer =
        Trainer { decoder: &d, config: &config, train: &rows, dev: &rows[..3], checkpoints: None };
    let trained = trainer
        .train(None, &mut |p| {
            seen.push(p.clone());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(trained.steps, 24);
    assert_eq!(trained.tokens, 8 * rows.iter().map(|r| r.tokens.len() as u64).sum::<u64>());
    assert_eq!(trained.history.len(), 8);
    let (first, last) = (trained.history[0].train_loss, trained.history[7].train_loss);
    assert!(last < 0.85 * first, "{first} {last}");
    let dev = mean_loss(&d, &rows[..3], Some(&trained.adapter), 4096).unwrap();
    let best = &trained.history[trained.best_epoch - 1];
    assert!((best.dev_loss.unwrap() - dev).abs() < 1e-5);
    // Three steps and one evaluation per epoch.
    assert_eq!(seen.len(), 32);
    assert_eq!(seen.iter().filter_map(|p| p.dev.clone()).collect::<Vec<_>>(), trained.history);
    assert_eq!((seen[4].epoch, seen[4].step, seen[4].steps), (2, 4, 24));
    assert!(seen.iter().all(|p| p.tokens_per_s > 0.0 && p.grad_norm > 0.0));
    let rate = |step| 1e-2 * Schedule::Linear.factor(step - 1, 2, 24);
    assert!(seen.iter().all(|p| (p.learning_rate - rate(p.step)).abs() < 1e-15));
}

/// Runs with a metric that reads from a list; the weights of each epoch as the metric saw them.
fn with_metric(scores: &[f64], patience: usize) -> (Result<Trained, TrainError>, Vec<Vec<f32>>) {
    let d = tiny();
    let rows = rows(&d);
    let config = SftConfig { epochs: scores.len(), patience, ..config() };
    let trainer =
        Trainer { decoder: &d, config: &config, train: &rows, dev: &rows, checkpoints: None };
    let mut seen: Vec<Vec<f32>> = Vec::new();
    let mut metric = |adapter: &Adapter| {
        seen.push(adapter.parameters().to_vec());
        Ok(scores[seen.len() - 1])
    };
    let trained = trainer.train(Some(&mut metric), &mut quietly);
    (trained, seen)
}

fn check_best(scores: &[f64], patience: usize, epochs: usize, best: usize) {
    let (trained, seen) = with_metric(scores, patience);
    let trained = trained.unwrap();
    assert_eq!((trained.history.len(), trained.best_epoch), (epochs, best), "{scores:?}");
    assert_eq!(trained.stopped_early, epochs < scores.len());
    assert_eq!(trained.adapter.parameters(), seen[best - 1], "{scores:?}: the best is restored");
    let metrics: Vec<_> = trained.history.iter().filter_map(|e| e.dev_metric).collect();
    assert_eq!(metrics, scores[..epochs]);
}

#[test]
fn the_metric_decides_which_epoch_is_best_and_when_to_stop() {
    check_best(&[0.1, 0.5, 0.4, 0.3, 0.9], 2, 4, 2);
    check_best(&[0.1, 0.5, 0.4, 0.6, 0.5], 2, 5, 4);
    check_best(&[0.1, 0.5, 0.4, 0.3, 0.9], 0, 5, 5);
    check_best(&[0.5, 0.4], 2, 2, 1);
    // Equal is not worse, and the earlier wins.
    check_best(&[0.5, 0.4, 0.5, 0.4, 0.5], 2, 5, 1);
}

#[test]
fn a_metric_that_fails_ends_the_run() {
    let (result, _) = with_metric(&[0.5, f64::NAN], 2);
    assert!(matches!(result, Err(TrainError::BadMetric { epoch: 2, .. })));
    let d = tiny();
    let rows = rows(&d);
    let trainer =
        Trainer { decoder: &d, config: &config(), train: &rows, dev: &[], checkpoints: None };
    let error = trainer.train(Some(&mut |_| Err("no judge".into())), &mut quietly).unwrap_err();
    assert!(matches!(error, TrainError::Metric { epoch: 1, .. }));
}

#[test]
fn without_dev_rows_the_last_epoch_is_taken() {
    let d = tiny();
    let rows = rows(&d);
    let trainer =
        Trainer { decoder: &d, config: &config(), train: &rows, dev: &[], checkpoints: None };
    let trained = trainer.train(None, &mut quietly).unwrap();
    assert_eq!((trained.best_epoch, trained.stopped_early), (3, false));
    assert!(matches!(trained.history[0], EpochReport { dev_loss: None, dev_metric: None, .. }));
    assert_eq!(trained.adapter.parameters(), train(&d, &config(), &rows).adapter.parameters());
}

#[test]
fn values_that_are_not_finite_stop_before_the_step_and_name_the_row() {
    let d = tiny_with(CHATML, Some(b'z'));
    let rows = [qa(1, "a", "b"), qa(2, "jazz", "c"), qa(3, "d", "e")];
    let rows = prepare(&d, &rows, usize::MAX, BadRows::Refuse).unwrap().examples;
    let refs: Vec<&Example> = rows.iter().collect();
    let mut learner = Learner::new(config().untrained(&d));
    let before = learner.adapter.clone();
    let error = learner.step(&d, &refs, &config(), 1e-2).unwrap_err();
    assert_eq!(error.to_string(), "step 0: loss is not finite; rows train.jsonl:2");
    assert_eq!(learner.adapter.parameters(), before.parameters());

    learner.adapter.parameters_mut()[0] = f32::INFINITY;
    let error = learner.step(&d, &refs[..1], &config(), 1e-2).unwrap_err();
    assert!(error.to_string().ends_with("rows train.jsonl:1"), "{error}");
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let d = tiny();
    let rows = rows(&d);
    let check = |change: fn(&mut SftConfig), expected: &str| {
        let mut config = config();
        change(&mut config);
        let trainer =
            Trainer { decoder: &d, config: &config, train: &rows, dev: &[], checkpoints: None };
        assert_eq!(trainer.train(None, &mut quietly).unwrap_err().to_string(), expected);
    };
    check(|c| c.rank = 0, "training settings: rank is 0");
    check(|c| c.batch_size = 0, "training settings: batch_size is 0");
    check(
        |c| c.learning_rate = f64::NAN,
        "training settings: learning_rate is not a positive number",
    );
    let trainer =
        Trainer { decoder: &d, config: &config(), train: &[], dev: &[], checkpoints: None };
    assert!(matches!(trainer.train(None, &mut quietly), Err(TrainError::NoRows)));
}

#[test]
fn schedules_fall_as_documented() {
    let check = |schedule: Schedule, step, warmup, expected: f64| {
        assert!(
            (schedule.factor(step, warmup, 100) - expected).abs() < 1e-12,
            "{schedule:?} {step}"
        );
    };
    check(Schedule::Constant, 0, 0, 1.0);
    check(Schedule::Constant, 0, 20, 0.05);
    check(Schedule::Constant, 99, 20, 1.0);
    check(Schedule::Linear, 0, 20, 0.05);
    check(Schedule::Linear, 10, 20, 0.55 * 0.9);
    check(Schedule::Linear, 75, 20, 0.25);
    check(Schedule::Cosine, 50, 20, 0.5);
    check(Schedule::Cosine, 99, 0, 0.5 * (1.0 + (0.99 * std::f64::consts::PI).cos()));
}
