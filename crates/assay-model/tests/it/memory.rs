//! Memory as it is planned, against memory as it is counted.

use assay_model::{Decoder, Module, PackedBatch, Precision, TrainingPass};

fn close(what: &str, planned: usize, counted: usize, tolerance: f64) {
    let ratio = planned as f64 / counted as f64;
    assert!(
        (ratio - 1.0).abs() < tolerance,
        "{what}: planned {planned}, counted {counted}: {ratio:.3}"
    );
}

#[test]
fn an_outline_tells_what_the_weights_will_take() {
    let Some(path) = assay_testkit::smollm() else { return };
    let outline = Decoder::outline(&path).unwrap();
    let decoder = Decoder::open(&path, Precision::Bf16).unwrap();
    assert_eq!(&outline.config, decoder.config());
    close("weights", outline.weight_bytes, decoder.weight_bytes(), 0.02);
}

#[test]
fn a_training_pass_takes_what_its_shape_says() {
    let Some(path) = assay_testkit::smollm() else { return };
    for checkpointing in [false, true] {
        // Each with a pool of its own: it counts the largest need so far.
        let decoder = Decoder::open(&path, Precision::Bf16).unwrap();
        let (tokens, rank) = ([40, 90], 4);
        let rows = tokens.map(|n| (0..n).map(|i| 20 + i as u32).collect::<Vec<u32>>());
        let learned = tokens.map(|n| (0..n).map(|i| i >= n / 2).collect::<Vec<bool>>());
        let batch = PackedBatch::pack(rows.iter().zip(&learned).map(|(r, l)| (&r[..], &l[..])));
        let adapter = decoder.new_adapter(rank, 8.0, &Module::ALL, 1);
        assert_eq!(adapter.parameters().len(), decoder.config().adapter_parameters(rank));
        let before = decoder.weight_bytes();
        let mut gradients = adapter.zeros_like();
        decoder.loss_and_gradients(&batch, &adapter, 1.0, &mut gradients, checkpointing).unwrap();
        let pass = TrainingPass { tokens: 130, targets: batch.targets(), rank, checkpointing };
        let config = decoder.config();
        close("activations", config.activation_bytes(pass), decoder.activation_bytes(), 0.05);
        close("transposes", config.transposed_bytes(), decoder.weight_bytes() - before, 0.02);
    }
}
