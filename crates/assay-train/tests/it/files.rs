//! Checkpoints: what resuming gives, and what is not resumed.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use assay_model::Decoder;
use assay_train::{Checkpoints, Example, SftConfig, TrainError, Trained, Trainer};

use crate::common::{quietly, rows, tiny};
use crate::training::{config, train};

fn folder(dir: &Path) -> Checkpoints {
    Checkpoints { dir: dir.join("run"), every: Duration::from_secs(3600) }
}

/// Trains until `stop` progress reports were seen, then is broken off.
fn part(
    decoder: &Decoder,
    rows: &[Example],
    config: &SftConfig,
    checkpoints: &Checkpoints,
    stop: usize,
) -> Result<Trained, TrainError> {
    let trainer =
        Trainer { decoder, config, train: rows, dev: rows, checkpoints: Some(checkpoints) };
    let mut seen = 0;
    trainer.train(None, &mut |_| {
        seen += 1;
        if seen == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
}

fn assert_same(a: &Trained, b: &Trained) {
    assert_eq!(a.adapter.parameters(), b.adapter.parameters());
    assert_eq!(a.history, b.history);
    assert_eq!((a.steps, a.tokens, a.best_epoch), (b.steps, b.tokens, b.best_epoch));
}

fn files(checkpoints: &Checkpoints) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs_err::read_dir(&checkpoints.dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn a_resumed_run_is_the_uninterrupted_one_bit_for_bit() {
    let d = tiny();
    let rows = rows(&d);
    let whole = train(&d, &config(), &rows);
    // Nine steps and three evaluations: broken off after each in turn.
    for stop in 1..12 {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = folder(dir.path());
        match part(&d, &rows, &config(), &checkpoints, stop) {
            Err(TrainError::Stopped { steps: 9, checkpoint: Some(path), .. }) => {
                assert!(path.is_file());
            }
            other => panic!("{stop}: {other:?}"),
        }
        let resumed = part(&tiny(), &rows, &config(), &checkpoints, usize::MAX).unwrap();
        assert_same(&resumed, &whole);
        assert!(resumed.seconds > 0.0);
    }
}

#[test]
fn a_run_goes_on_with_checkpointing_where_it_began_without() {
    let d = tiny();
    let rows = rows(&d);
    let dir = tempfile::tempdir().unwrap();
    part(&d, &rows, &config(), &folder(dir.path()), 5).unwrap_err();
    let less = SftConfig { checkpointing: true, ..config() };
    let resumed = part(&d, &rows, &less, &folder(dir.path()), usize::MAX).unwrap();
    assert_same(&resumed, &train(&d, &config(), &rows));
}

#[test]
fn a_run_broken_off_at_every_report_still_comes_out_the_same() {
    let d = tiny();
    let rows = rows(&d);
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = folder(dir.path());
    let mut parts = 1;
    let trained = loop {
        match part(&d, &rows, &config(), &checkpoints, 1) {
            Ok(trained) => break trained,
            Err(TrainError::Stopped { .. }) => parts += 1,
            Err(other) => panic!("{other}"),
        }
    };
    // The twelfth report comes when there is nothing left to break off.
    assert_eq!(parts, 12);
    assert_same(&trained, &train(&d, &config(), &rows));
    // A finished run returns at once.
    let again = part(&d, &rows, &config(), &checkpoints, 1).unwrap();
    assert_same(&again, &trained);
    assert_eq!(files(&checkpoints).len(), 2);
}

#[test]
fn a_damaged_checkpoint_falls_back_to_the_one_before() {
    let d = tiny();
    let rows = rows(&d);
    let whole = train(&d, &config(), &rows);
    let damages: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes.truncate(100),
        |bytes| bytes.truncate(3),
        |bytes| *bytes.last_mut().unwrap() ^= 1,
        |bytes| bytes[60] ^= 1,
    ];
    for damage in damages {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints { every: Duration::ZERO, ..folder(dir.path()) };
        part(&d, &rows, &config(), &checkpoints, 7).unwrap_err();
        let newest = files(&checkpoints).pop().unwrap();
        let mut bytes = fs_err::read(&newest).unwrap();
        damage(&mut bytes);
        fs_err::write(&newest, &bytes).unwrap();
        let resumed = part(&d, &rows, &config(), &checkpoints, usize::MAX).unwrap();
        assert_same(&resumed, &whole);
    }
}

#[test]
fn all_damaged_is_a_fresh_start() {
    let d = tiny();
    let rows = rows(&d);
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = folder(dir.path());
    part(&d, &rows, &config(), &checkpoints, 5).unwrap_err();
    for file in files(&checkpoints) {
        fs_err::write(&file, b"nothing").unwrap();
    }
    let trained = part(&d, &rows, &config(), &checkpoints, usize::MAX).unwrap();
    assert_same(&trained, &train(&d, &config(), &rows));
}

#[test]
fn checkpoints_of_another_run_are_refused() {
    let d = tiny();
    let rows = rows(&d);
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = folder(dir.path());
    part(&d, &rows, &config(), &checkpoints, 2).unwrap_err();
    let check = |rows: &[Example], config: &SftConfig, expected: &[&str]| match part(
        &d,
        rows,
        config,
        &checkpoints,
        usize::MAX,
    ) {
        Err(TrainError::ForeignCheckpoint { differs, path }) => {
            assert_eq!(differs, expected);
            assert!(path.starts_with(dir.path()));
        }
        other => panic!("{other:?}"),
    };
    check(&rows, &SftConfig { learning_rate: 1e-3, ..config() }, &["settings"]);
    check(&rows[1..], &config(), &["training rows", "dev rows"]);
    let trainer = Trainer {
        decoder: &d,
        config: &config(),
        train: &rows,
        dev: &[],
        checkpoints: Some(&checkpoints),
    };
    let error = trainer.train(None, &mut quietly).unwrap_err();
    assert!(error.to_string().ends_with("belongs to another run: dev rows differ"), "{error}");
    assert!(error.hint().is_some());
}
