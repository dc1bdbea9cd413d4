//! Gradients against finite differences and candle's autograd, and the laws that training rests on.

use assay_model::{Adapter, Decoder, ModelError, Module, PackedBatch, Precision};

use crate::oracle::{self, Stored};
use crate::tiny::{Tiny, Values, batch, documents};

pub(crate) fn gradients(
    decoder: &Decoder,
    adapter: &Adapter,
    batch: &PackedBatch,
    divisor: f64,
    checkpointing: bool,
) -> (f64, Adapter) {
    let mut gradients = adapter.zeros_like();
    let loss =
        decoder.loss_and_gradients(batch, adapter, divisor, &mut gradients, checkpointing).unwrap();
    assert_eq!(loss.tokens, batch.targets());
    (loss.nll, gradients)
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |m, v| m.max(v.abs()))
}

fn relative_error(got: &[f32], expected: &[f32]) -> f32 {
    let difference: Vec<f32> = got.iter().zip(expected).map(|(a, b)| a - b).collect();
    largest(&difference) / largest(expected)
}

#[test]
fn backward_equals_autograd() {
    let sets = [&Module::ALL[..], &[Module::Q, Module::V], &[Module::Down]];
    for (tied, targets) in [true, false].into_iter().flat_map(|t| sets.map(|s| (t, s))) {
        let tiny = Tiny::new(tied);
        let stored = Stored { weights: tiny.weights.clone(), rope_factor: 1.0 };
        check_autograd(&tiny.decoder, &stored, &tiny.adapter(targets, 11));
    }
}

pub(crate) fn check_autograd(decoder: &Decoder, stored: &Stored, adapter: &Adapter) {
    let batch = batch();
    let truth = oracle::truth(decoder.config(), stored, adapter, &batch, 29.0);
    let (nll, got) = gradients(decoder, adapter, &batch, 29.0, false);
    assert!((nll - truth.nll).abs() < 1e-5 * truth.nll, "{nll}, autograd {}", truth.nll);
    for (pair, (a, b)) in got.pairs().zip(truth.gradients) {
        let (ea, eb) = (relative_error(pair.a, &a), relative_error(pair.b, &b));
        assert!(ea < 1e-5, "dA of {:?} {}: {ea:e}", pair.module, pair.layer);
        assert!(eb < 1e-5, "dB of {:?} {}: {eb:e}", pair.module, pair.layer);
    }
}

#[test]
fn backward_equals_finite_differences() {
    check_differences(&Tiny::new(true).decoder);
}

pub(crate) fn check_differences(decoder: &Decoder) {
    let batch = batch();
    for module in Module::ALL {
        let adapter = crate::tiny::adapter(decoder, &[module], 3);
        let (_, gradient) = gradients(decoder, &adapter, &batch, 1.0, false);
        let mut values = Values::new(9);
        let direction: Vec<f32> = adapter.parameters().iter().map(|_| values.next()).collect();
        let slope: f64 = direction
            .iter()
            .zip(gradient.parameters())
            .map(|(&d, &g)| f64::from(d) * f64::from(g))
            .sum();
        let step = 1e-3f32;
        let at = |steps: f32| {
            let mut moved = adapter.clone();
            for (p, d) in moved.parameters_mut().iter_mut().zip(&direction) {
                *p += steps * step * d;
            }
            decoder.loss(&batch, Some(&moved)).unwrap().nll
        };
        // Of fourth order.
        let measured = 8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0));
        let measured = measured / (12.0 * f64::from(step));
        // A direction may happen to be nearly level: what f32 cannot resolve depends on the gradient.
        let norm = gradient.parameters().iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>();
        let error = (measured - slope).abs() / slope.abs().max(norm.sqrt());
        assert!(error < 1e-3, "{module:?}: slope {slope}, measured {measured}");
    }
}

#[test]
fn gradients_exist_everywhere() {
    let tiny = Tiny::new(true);
    let mut adapter = tiny.decoder.new_adapter(4, 8.0, &Module::ALL, 1);
    let (_, first) = gradients(&tiny.decoder, &adapter, &batch(), 30.0, false);
    for pair in first.pairs() {
        assert!(pair.a.iter().all(|&v| v == 0.0), "B = 0 makes dA exactly 0");
        assert!(largest(pair.b) > 0.0, "no dB in {:?} {}", pair.module, pair.layer);
    }
    for (p, g) in adapter.parameters_mut().iter_mut().zip(first.parameters()) {
        *p -= 0.1 * g;
    }
    let (_, second) = gradients(&tiny.decoder, &adapter, &batch(), 30.0, false);
    for pair in second.pairs() {
        assert!(largest(pair.a) > 0.0, "no dA in {:?} {}", pair.module, pair.layer);
    }
}

#[test]
fn packed_equals_unpacked() {
    let tiny = Tiny::new(true);
    let adapter = tiny.adapter(&Module::ALL, 4);
    let (nll, together) = gradients(&tiny.decoder, &adapter, &batch(), 7.0, false);
    let mut sum = 0.0;
    let mut apart = adapter.zeros_like();
    for (tokens, supervised) in documents() {
        let one = PackedBatch::pack([(&tokens[..], &supervised[..])]);
        let loss = tiny.decoder.loss_and_gradients(&one, &adapter, 7.0, &mut apart, false).unwrap();
        assert_eq!(loss, tiny.decoder.loss(&one, Some(&adapter)).unwrap());
        sum += loss.nll;
    }
    assert!((nll - sum).abs() < 1e-9 * nll, "{nll} packed, {sum} unpacked");
    let error = relative_error(together.parameters(), apart.parameters());
    assert!(error < 1e-6, "{error:e}");
}

#[test]
fn checkpointing_changes_no_bit() {
    let tiny = Tiny::new(true);
    let adapter = tiny.adapter(&Module::ALL, 4);
    for precision in [Precision::F32, Precision::Bf16] {
        let decoder = Decoder::open(&tiny.path, precision).unwrap();
        let (nll, plain) = gradients(&decoder, &adapter, &batch(), 7.0, false);
        let (again, checkpointed) = gradients(&decoder, &adapter, &batch(), 7.0, true);
        assert_eq!(nll, again, "{precision:?}");
        assert_eq!(plain.parameters(), checkpointed.parameters(), "{precision:?}");
    }
}

#[test]
fn number_of_threads_changes_no_bit() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let tiny = Tiny::new(true);
            let adapter = tiny.adapter(&Module::ALL, 4);
            gradients(&tiny.decoder, &adapter, &batch(), 7.0, false)
        })
    };
    let (one, three) = (run(1), run(3));
    assert_eq!(one.0, three.0);
    assert_eq!(one.1.parameters(), three.1.parameters());
}

/// Run in processes of its own by [`two_processes_agree`].
#[test]
#[ignore = "prints what `two_processes_agree` compares"]
#[expect(clippy::print_stdout, reason = "its output is read by the test that starts it")]
fn print_gradient_bits() {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let tiny = Tiny::new(true);
    let adapter = tiny.adapter(&Module::ALL, 4);
    let (nll, gradients) = gradients(&tiny.decoder, &adapter, &batch(), 7.0, false);
    let mut hasher = DefaultHasher::new();
    gradients.parameters().iter().for_each(|v| v.to_bits().hash(&mut hasher));
    println!("bits {:x} {:x}", nll.to_bits(), hasher.finish());
}

#[test]
fn two_processes_agree() {
    let run = || {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "gradients::print_gradient_bits", "--ignored", "--nocapture"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().find_map(|l| l.split_once("bits ").map(|(_, b)| b.to_owned())).unwrap()
    };
    assert_eq!(run(), run());
}

#[test]
fn untrained_and_absent_adapters_equal_the_base() {
    let tiny = Tiny::new(false);
    let (tokens, _) = documents().remove(2);
    let base = tiny.decoder.logits(&tokens, None).unwrap();
    let untrained = tiny.decoder.new_adapter(4, 8.0, &Module::ALL, 1);
    let with = tiny.decoder.logits(&tokens, Some(&untrained)).unwrap();
    assert!(with == base, "B = 0 changes nothing");
    let trained = tiny.adapter(&Module::ALL, 2);
    assert!(tiny.decoder.logits(&tokens, Some(&trained)).unwrap() != base);
    assert!(tiny.decoder.logits(&tokens, None).unwrap() == base, "off is off");
}

#[test]
fn changed_values_take_effect() {
    let tiny = Tiny::new(true);
    let mut adapter = tiny.adapter(&Module::ALL, 2);
    let (before, _) = gradients(&tiny.decoder, &adapter, &batch(), 1.0, false);
    adapter.parameters_mut().iter_mut().for_each(|v| *v *= 1.5);
    let (after, _) = gradients(&tiny.decoder, &adapter, &batch(), 1.0, false);
    assert_ne!(before, after);
    for pair in adapter.pairs_mut() {
        pair.b.fill(0.0);
    }
    let base = tiny.decoder.loss(&batch(), None).unwrap();
    assert_eq!(tiny.decoder.loss(&batch(), Some(&adapter)).unwrap(), base);
}

#[test]
fn foreign_adapters_are_refused() {
    let tiny = Tiny::new(true);
    let check = |change: &dyn Fn(&mut assay_model::AdapterSpec), what: &str| {
        let mut spec = tiny.adapter(&Module::ALL, 2).spec().clone();
        change(&mut spec);
        let adapter = Adapter::new(tiny.decoder.config(), spec, 1);
        let error = tiny.decoder.loss(&batch(), Some(&adapter)).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
        assert!(matches!(error, ModelError::AdapterMismatch { .. }));
    };
    check(&|spec| spec.base_hash = Some("0123".into()), "base model (sha256) is 0123");
    check(&|spec| spec.template_hash = Some("4567".into()), "chat template (sha256) is 4567");
    let mut config = tiny.decoder.config().clone();
    config.layers = 3;
    let spec = tiny.adapter(&Module::ALL, 2).spec().clone();
    let adapter = Adapter::new(&config, spec.clone(), 1);
    assert!(tiny.decoder.check_adapter(&adapter).unwrap_err().to_string().contains("layers is 3"));
    config.layers = 2;
    config.feed_forward = 41;
    let adapter = Adapter::new(&config, spec, 1);
    assert!(tiny.decoder.check_adapter(&adapter).unwrap_err().to_string().contains("gate_proj"));
}

#[test]
fn misshapen_batches_are_refused() {
    let tiny = Tiny::new(true);
    let check = |change: &dyn Fn(&mut PackedBatch), expected: &str| {
        let mut batch = batch();
        change(&mut batch);
        let error = tiny.decoder.loss(&batch, None).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(&|b| b.supervised[13] = true, "first token");
    check(&|b| b.supervised.truncate(4), "differ in length");
    check(&|b| b.segments[2] = 40, "increase");
    check(&|b| b.segments[0] = 1, "from 0");
    check(&|b| b.tokens[2] = 261, "token 261 is outside of the vocabulary of 261");
    let long = vec![7u32; 97];
    let long = PackedBatch::pack([(&long[..], &[false; 97][..])]);
    let error = tiny.decoder.loss(&long, None).unwrap_err();
    assert!(matches!(error, ModelError::TooLong { tokens: 97, limit: 96 }));
    let empty = tiny.decoder.loss(&PackedBatch::pack([]), None).unwrap();
    assert_eq!((empty.nll, empty.tokens), (0.0, 0));
}
