//! Epochs: order of rows, learning rate, evaluation, early stop, checkpoints.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use assay_model::{Adapter, Decoder, PackedBatch};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoints, Identity, Saved};
use crate::learner::{Learner, mean_loss};
use crate::pack::pack;
use crate::{Example, SftConfig, TrainError};

/// Measures an adapter on the user's task; higher is better.
pub type Metric<'a> =
    dyn FnMut(&Adapter) -> Result<f64, Box<dyn std::error::Error + Send + Sync>> + 'a;

/// Told after each step, and again after each epoch's evaluation; may end the run.
pub type Observer<'a> = dyn FnMut(&Progress) -> ControlFlow<()> + 'a;

/// Supervised fine-tuning of a LoRA adapter on a frozen decoder.
#[derive(Clone, Copy, Debug)]
pub struct Trainer<'a> {
    /// The frozen base.
    pub decoder: &'a Decoder,
    /// Settings.
    pub config: &'a SftConfig,
    /// Rows to learn from.
    pub train: &'a [Example],
    /// Rows to choose the best epoch by; may be empty.
    pub dev: &'a [Example],
    /// Where to save, and resume from; `None` keeps everything in memory.
    pub checkpoints: Option<&'a Checkpoints>,
}

/// Where a run stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Epoch of the last step, from 1.
    pub epoch: usize,
    /// Steps taken.
    pub step: usize,
    /// Steps of the whole run, if it does not stop early.
    pub steps: usize,
    /// Mean loss per learned token of the last step, before it was taken; nats.
    pub loss: f64,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Norm of the last gradient, before clipping.
    pub grad_norm: f64,
    /// Tokens, prompts included, per second spent in steps; over the whole run.
    pub tokens_per_s: f64,
    /// After an epoch: what its evaluation found.
    pub dev: Option<EpochReport>,
}

/// What an epoch came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// The epoch, from 1.
    pub epoch: usize,
    /// Mean loss per learned token over its steps, each before it was taken; nats.
    pub train_loss: f64,
    /// Mean loss per learned token on the dev rows; `None` without dev rows.
    pub dev_loss: Option<f64>,
    /// The caller's metric; `None` without one.
    pub dev_metric: Option<f64>,
}

impl EpochReport {
    /// What the best epoch is chosen by; higher is better.
    fn score(&self) -> Option<f64> {
        self.dev_metric.or(self.dev_loss.map(|loss| -loss))
    }
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The adapter of the best epoch; of the last one if there is nothing to choose by.
    pub adapter: Adapter,
    /// All epochs, in order.
    pub history: Vec<EpochReport>,
    /// Steps taken.
    pub steps: usize,
    /// Tokens trained on, prompts included.
    pub tokens: u64,
    /// Wall time of the steps, without evaluation; over all parts of a resumed run.
    pub seconds: f64,
    /// The epoch whose adapter this is, from 1.
    pub best_epoch: usize,
    /// Whether patience ran out before the last epoch.
    pub stopped_early: bool,
}

/// How much one forward pass holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassSize {
    /// Training rows.
    pub rows: usize,
    /// Their tokens.
    pub tokens: usize,
    /// Those that are learned.
    pub targets: usize,
}

/// Everything that changes during a run, but for the arrays. The order of rows needs no entry: it
/// is a function of seed and epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub step: usize,
    epoch_nll: f64,
    epoch_supervised: usize,
    last: LastStep,
    tokens: u64,
    seconds: f64,
    history: Vec<EpochReport>,
    best: Option<(usize, f64)>,
    worse: usize,
}

/// For [`Progress`] after an evaluation that a resumed run begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct LastStep {
    loss: f64,
    learning_rate: f64,
    grad_norm: f64,
}

/// A run in progress.
struct Run {
    state: State,
    learner: Learner,
    best: Option<Vec<f32>>,
    identity: Identity,
    saved: Instant,
    /// Rows of the current epoch, shuffled, and which epoch that is.
    order: (usize, Vec<usize>),
}

impl Trainer<'_> {
    /// Trains to the end, to the early stop, or until `observer` breaks.
    ///
    /// With [`Checkpoints`] the run continues from the newest one, and what comes out is bit for
    /// bit what an uninterrupted run gives; a finished run returns at once.
    ///
    /// After each epoch the dev loss is measured, and `metric` if given. The metric decides which
    /// epoch is best, else the dev loss does; of equals the earlier wins.
    ///
    /// # Errors
    /// [`TrainError::Stopped`] if `observer` broke off, [`TrainError::ForeignCheckpoint`] if the
    /// folder belongs to another run, and whatever goes wrong; a checkpoint remains resumable.
    pub fn train(
        &self,
        mut metric: Option<&mut Metric<'_>>,
        observer: &mut Observer<'_>,
    ) -> Result<Trained, TrainError> {
        if let Some(complaint) = self.config.complaint() {
            return Err(TrainError::Config(complaint));
        }
        if self.train.is_empty() {
            return Err(TrainError::NoRows);
        }
        let mut run = self.start()?;
        loop {
            let epochs_done = run.state.step / self.steps_per_epoch();
            let mut dev = None;
            if run.state.history.len() < epochs_done {
                dev = Some(self.end_epoch(&mut run, metric.as_deref_mut())?);
                self.save(&mut run)?;
            } else if self.finished(&run.state) {
                return Ok(self.result(run));
            } else {
                self.step(&mut run)?;
                self.save_if_due(&mut run)?;
            }
            if observer(&self.progress(&run.state, dev)).is_break() && !self.finished(&run.state) {
                let checkpoint = self.save(&mut run)?;
                let (step, steps) = (run.state.step, self.steps());
                return Err(TrainError::Stopped { step, steps, checkpoint });
            }
        }
    }

    /// Sizes of all forward passes of a run that does not stop early, in their order.
    pub fn passes(&self) -> Vec<PassSize> {
        let mut passes = Vec::new();
        for epoch in 0..self.config.epochs {
            let order = shuffled(self.train.len(), self.config.seed, epoch);
            for rows in order.chunks(self.config.batch_size) {
                let rows: Vec<&Example> = rows.iter().map(|&i| &self.train[i]).collect();
                let size = |(batch, rows): (PackedBatch, &[&Example])| PassSize {
                    rows: rows.len(),
                    tokens: batch.tokens.len(),
                    targets: batch.targets(),
                };
                passes.extend(pack(&rows, self.config.micro_batch_tokens).map(size));
            }
        }
        passes
    }

    fn steps_per_epoch(&self) -> usize {
        self.train.len().div_ceil(self.config.batch_size)
    }

    fn steps(&self) -> usize {
        self.config.epochs * self.steps_per_epoch()
    }

    /// Whether all steps are taken and evaluated, or patience ran out.
    fn finished(&self, state: &State) -> bool {
        state.history.len() == self.config.epochs || self.out_of_patience(state)
    }

    fn out_of_patience(&self, state: &State) -> bool {
        self.config.patience > 0 && state.worse >= self.config.patience
    }

    fn start(&self) -> Result<Run, TrainError> {
        let config = self.config;
        let identity = self.identity();
        let mut learner = Learner::new(config.untrained(self.decoder));
        let (mut state, mut best) = (State::default(), None);
        let saved = self.checkpoints.map(|c| c.read(&identity)).transpose()?.flatten();
        if let Some(Saved { state: s, weights, m, v, best: b }) = saved {
            learner.adapter.parameters_mut().copy_from_slice(&weights);
            (learner.m, learner.v, learner.steps) = (m, v, s.step as u64);
            (state, best) = (s, b);
        }
        let order = (usize::MAX, vec![]);
        Ok(Run { state, learner, best, identity, saved: Instant::now(), order })
    }

    fn step(&self, run: &mut Run) -> Result<(), TrainError> {
        let (config, begun) = (self.config, Instant::now());
        let (epoch, at) = (
            run.state.step / self.steps_per_epoch(),
            run.state.step % self.steps_per_epoch() * config.batch_size,
        );
        if run.order.0 != epoch {
            run.order = (epoch, shuffled(self.train.len(), config.seed, epoch));
        }
        let end = (at + config.batch_size).min(self.train.len());
        let rows: Vec<&Example> = run.order.1[at..end].iter().map(|&i| &self.train[i]).collect();
        let factor = config.schedule.factor(run.state.step, config.warmup_steps, self.steps());
        let learning_rate = config.learning_rate * factor;
        let report = run.learner.step(self.decoder, &rows, config, learning_rate)?;

        let state = &mut run.state;
        state.step += 1;
        state.epoch_nll += report.nll;
        state.epoch_supervised += report.supervised;
        state.last = LastStep { loss: report.loss(), learning_rate, grad_norm: report.grad_norm };
        state.tokens += report.tokens as u64;
        state.seconds += begun.elapsed().as_secs_f64();
        Ok(())
    }

    fn end_epoch(
        &self,
        run: &mut Run,
        metric: Option<&mut Metric<'_>>,
    ) -> Result<EpochReport, TrainError> {
        let (state, adapter) = (&mut run.state, &run.learner.adapter);
        let epoch = state.history.len() + 1;
        let dev_loss = match self.dev {
            [] => None,
            dev => {
                Some(mean_loss(self.decoder, dev, Some(adapter), self.config.micro_batch_tokens)?)
            }
        };
        let dev_metric = metric
            .map(|metric| match metric(adapter) {
                Ok(value) if value.is_finite() => Ok(value),
                Ok(value) => Err(TrainError::BadMetric { epoch, value }),
                Err(source) => Err(TrainError::Metric { epoch, source }),
            })
            .transpose()?;
        let train_loss = state.epoch_nll / state.epoch_supervised as f64;
        let report = EpochReport { epoch, train_loss, dev_loss, dev_metric };

        (state.epoch_nll, state.epoch_supervised) = (0.0, 0);
        state.history.push(report.clone());
        if let Some(score) = report.score() {
            match state.best {
                Some((_, best)) if score < best => state.worse += 1,
                Some((_, best)) if score == best => state.worse = 0,
                _ => {
                    (state.best, state.worse) = (Some((epoch, score)), 0);
                    run.best = Some(adapter.parameters().to_vec());
                }
            }
        }
        Ok(report)
    }

    fn progress(&self, state: &State, dev: Option<EpochReport>) -> Progress {
        Progress {
            epoch: (state.step - 1) / self.steps_per_epoch() + 1,
            step: state.step,
            steps: self.steps(),
            loss: state.last.loss,
            learning_rate: state.last.learning_rate,
            grad_norm: state.last.grad_norm,
            tokens_per_s: state.tokens as f64 / state.seconds,
            dev,
        }
    }

    fn save(&self, run: &mut Run) -> Result<Option<PathBuf>, TrainError> {
        let Some(checkpoints) = self.checkpoints else { return Ok(None) };
        let best = run.best.as_deref();
        let path = checkpoints.write(&run.identity, &run.state, &run.learner, best)?;
        run.saved = Instant::now();
        Ok(Some(path))
    }

    fn save_if_due(&self, run: &mut Run) -> Result<(), TrainError> {
        if self.checkpoints.is_some_and(|c| run.saved.elapsed() >= c.every) {
            self.save(run)?;
        }
        Ok(())
    }

    fn result(&self, run: Run) -> Trained {
        let Run { state, learner: Learner { mut adapter, .. }, best, .. } = run;
        if let Some(best) = best {
            adapter.parameters_mut().copy_from_slice(&best);
        }
        Trained {
            adapter,
            steps: state.step,
            tokens: state.tokens,
            seconds: state.seconds,
            best_epoch: state.best.map_or(state.history.len(), |(epoch, _)| epoch),
            stopped_early: state.history.len() < self.config.epochs,
            history: state.history,
        }
    }

    fn identity(&self) -> Identity {
        // Checkpointing changes no bit, so a run that had the memory may go on where there is less of it.
        let config = SftConfig { checkpointing: false, ..self.config.clone() };
        let settings = format!("{config:?} {:?}", self.decoder.precision());
        Identity {
            settings: blake3::hash(settings.as_bytes()).to_string(),
            training_rows: fingerprint(self.train),
            dev_rows: fingerprint(self.dev),
            base_model: self.decoder.file_hash().to_string(),
            chat_template: self.decoder.template().hash().to_string(),
        }
    }
}

/// The order of `n` rows in `epoch`: a function of its arguments, hence nothing to save.
fn shuffled(n: usize, seed: u64, epoch: usize) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(epoch as u64);
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(&mut rng);
    order
}

fn fingerprint(rows: &[Example]) -> String {
    let mut hasher = blake3::Hasher::new();
    for row in rows {
        hasher.update(&(row.tokens.len() as u64).to_le_bytes());
        hasher.update(bytemuck::cast_slice(&row.tokens));
        hasher.update(&row.supervised.iter().map(|&s| u8::from(s)).collect::<Vec<_>>());
    }
    hasher.finalize().to_string()
}
