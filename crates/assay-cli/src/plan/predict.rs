//! The arithmetic of the planner: from counts of tokens and measured speeds to seconds, from shapes to bytes.
//!
//! Pure: nothing is opened, measured or asked here.

use std::collections::BTreeMap;

use assay_kernels::CACHE_BLOCK;
use assay_model::{DecoderConfig, TrainingPass};
use serde::{Deserialize, Serialize};

/// Tokens that a pass reads beside answers that are being written, and sequences that are written together: what the
/// decoder's engine does.
const READ_BESIDE: f64 = 128.0;
pub(crate) const TOGETHER: f64 = 32.0;
/// Rows of a pass that reads, and rows whose logits exist then: as in the decoder and its scoring.
const READ_ROWS: usize = 512;
const LOGIT_ROWS: usize = 128;
/// Values of an adapter in training are there five times, in f32: weights, gradients, two moments, the best epoch.
const ADAPTER_COPIES: usize = 5 * 4;
/// What the pool of activations keeps beyond the largest need, for passes of other lengths.
const POOL_SPARE: f64 = 0.25;
/// Memory for keys and values unless there is less.
pub(crate) const CACHE_BYTES: u64 = 1 << 30;
/// Prompts whose keys and values must fit at once: with fewer, batches are none.
const SMALLEST_BATCH: u64 = 4;

/// Speeds of one model on one machine, with an adapter or without.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Speeds {
    /// Seconds to read a prompt of so many tokens, by length.
    pub(crate) read_s: Vec<(f64, f64)>,
    /// Seconds to read behind so many known tokens so many others; `None` for a model of short contexts.
    pub(crate) read_behind_s: Option<((f64, f64), f64)>,
    /// Seconds to write a token behind so many others, alone.
    pub(crate) write_s: Vec<(f64, f64)>,
    /// Seconds per token when 32 answers are written together, behind the shortest prompts of `write_s`.
    pub(crate) write_together_s: f64,
    /// Seconds of the general suite.
    pub(crate) general_s: f64,
}

impl Speeds {
    /// Seconds to read `tokens` behind `known` ones: linear between lengths that were measured, and attention's share,
    /// linear in the tokens before each.
    fn read(&self, known: f64, tokens: f64) -> f64 {
        let attention = |known: f64, tokens: f64| self.bend() * tokens * (known + tokens / 2.0);
        let rest: Vec<(f64, f64)> =
            self.read_s.iter().map(|&(n, s)| (n, s - attention(0.0, n))).collect();
        line(&rest, tokens) + attention(known, tokens)
    }

    /// Seconds that reading a token takes longer per token before it.
    fn bend(&self) -> f64 {
        let Some(((known, tokens), s)) = self.read_behind_s else { return 0.0 };
        ((s - line(&self.read_s, tokens)) / (known * tokens)).max(0.0)
    }

    /// Seconds to write one token alone behind so many others.
    fn write(&self, behind: f64) -> f64 {
        line(&self.write_s, behind)
    }
}

/// The value at `x` of a line through points that are sorted; its ends go on straight, but never below the first point
/// by more than half.
fn line(points: &[(f64, f64)], x: f64) -> f64 {
    match points {
        [] => 0.0,
        [(_, y)] => *y,
        _ => {
            let at = points.iter().filter(|(px, _)| *px < x).count().clamp(1, points.len() - 1);
            let ((x0, y0), (x1, y1)) = (points[at - 1], points[at]);
            let value = y0 + (y1 - y0) * (x - x0) / (x1 - x0);
            value.max(points[0].1 / 2.0)
        }
    }
}

/// What the prompts of some items have in common, and what not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Prompts {
    /// Tokens at the beginning of all of them.
    pub(crate) shared: f64,
    /// Further tokens of one that no other has read, on average.
    pub(crate) fresh: f64,
    /// Tokens for which the pages of one have room that no other shares, on average.
    pub(crate) kept: f64,
    /// Tokens of the longest.
    pub(crate) longest: usize,
    /// Seconds to retrieve and assemble one.
    pub(crate) retrieve_s: f64,
}

impl Prompts {
    /// Of a sample of prompts.
    pub(crate) fn of(prompts: &[Vec<u32>], retrieve_s: f64) -> Self {
        let mut sorted: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        sorted.sort_unstable();
        let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else {
            return Prompts::default();
        };
        let shared = if sorted.len() == 1 { 0 } else { common(first, last) };
        // In sorted order, what a prompt shares with any other it shares with a neighbour.
        let known: usize = sorted.windows(2).map(|w| common(w[0], w[1])).sum();
        let all: usize = sorted.iter().map(|p| p.len()).sum();
        // Only whole pages are shared.
        let pages = |p: &&[u32]| p.len().next_multiple_of(CACHE_BLOCK);
        let kept: usize =
            sorted.iter().map(|p| pages(p) - shared / CACHE_BLOCK * CACHE_BLOCK).sum();
        Prompts {
            shared: shared as f64,
            fresh: (all - known - shared) as f64 / sorted.len() as f64,
            kept: kept as f64 / sorted.len() as f64,
            longest: sorted.iter().map(|p| p.len()).max().unwrap_or(0),
            retrieve_s,
        }
    }
}

fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Items to answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answers {
    pub(crate) prompts: Prompts,
    /// New tokens of an answer, on average.
    pub(crate) new: f64,
    /// Items that are answered one at a time.
    pub(crate) alone: usize,
    /// Items that are answered in batches.
    pub(crate) batched: usize,
}

impl Answers {
    /// Tokens for which there is room once all of them were read.
    fn kept_tokens(&self) -> f64 {
        let n = (self.alone + self.batched) as f64;
        if n == 0.0 { 0.0 } else { self.prompts.shared + n * self.prompts.kept }
    }

    pub(crate) fn seconds(&self, speeds: &Speeds) -> f64 {
        let n = (self.alone + self.batched) as f64;
        if n == 0.0 {
            return 0.0;
        }
        let Prompts { shared, fresh, retrieve_s, .. } = self.prompts;
        let behind = shared + fresh + self.new / 2.0;
        // The first new token comes with the prompt.
        let further = (self.new - 1.0).max(0.0);
        let alone = speeds.read(shared, fresh) + further * speeds.write(behind);

        let batched = self.batched as f64;
        let reading = batched * fresh;
        let per_read = speeds.read(0.0, READ_BESIDE) / READ_BESIDE
            + speeds.bend() * (shared + fresh / 2.0 - READ_BESIDE / 2.0).max(0.0);
        // A pass costs something, and each token in it something more: from one alone and 32 together.
        let short = speeds.write_s.first().map_or(0.0, |p| p.0);
        let one = speeds.write(short);
        let token = ((TOGETHER * speeds.write_together_s - one) / (TOGETHER - 1.0)).max(0.0);
        let pass = (one - token).max(0.0);
        let tokens = batched * further;
        let longer = (speeds.write(behind) - one).max(0.0);
        let passes = (tokens / TOGETHER).max(reading / READ_BESIDE).max(further.min(tokens));
        n * retrieve_s
            + if shared > 0.0 { speeds.read(0.0, shared) } else { 0.0 }
            + self.alone as f64 * alone
            + reading * per_read
            + tokens * (token + longer)
            + passes * pass
    }
}

/// An adapter to train.
#[derive(Clone, Debug)]
pub(crate) struct Training {
    pub(crate) epochs: usize,
    /// Tokens of all passes of all epochs.
    pub(crate) tokens: f64,
    /// Tokens per second, measured on such passes.
    pub(crate) tokens_per_s: f64,
    /// Tokens of the dev rows, whose loss is measured after every epoch.
    pub(crate) dev_tokens: f64,
    /// Dev items that are answered after every epoch.
    pub(crate) probe: Answers,
}

impl Training {
    fn seconds(&self, speeds: &Speeds) -> f64 {
        let (pass, s) = speeds.read_s.last().copied().unwrap_or((1.0, 0.0));
        let evaluation = self.dev_tokens * s / pass + self.probe.seconds(speeds);
        self.tokens / self.tokens_per_s + self.epochs as f64 * evaluation
    }
}

/// What is left to do for a candidate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    /// Variants that are tried on dev.
    pub(crate) choosing: Vec<Answers>,
    pub(crate) training: Option<Training>,
    /// The test items, for each variant that may be chosen.
    pub(crate) answering: Vec<Answers>,
    /// Whether the general suite is to be scored with these weights.
    pub(crate) general: bool,
}

/// Predicted seconds of a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Seconds {
    /// Choosing on dev, or training.
    pub(crate) build: f64,
    /// The test items.
    pub(crate) answers: f64,
    pub(crate) general: f64,
}

impl Seconds {
    pub(crate) fn total(&self) -> f64 {
        self.build + self.answers + self.general
    }
}

impl Work {
    /// Before the choice every variant is as likely as the others.
    pub(crate) fn seconds(&self, speeds: &Speeds) -> Seconds {
        let sum = |answers: &[Answers]| answers.iter().map(|a| a.seconds(speeds)).sum::<f64>();
        let training = self.training.as_ref().map_or(0.0, |t| t.seconds(speeds));
        Seconds {
            build: sum(&self.choosing) + training,
            answers: sum(&self.answering) / self.answering.len().max(1) as f64,
            general: if self.general { speeds.general_s } else { 0.0 },
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        let none = |a: &Answers| a.alone + a.batched == 0;
        let trained = self.training.is_none();
        trained && !self.general && self.choosing.is_empty() && self.answering.iter().all(none)
    }
}

/// What decides the memory of a candidate.
#[derive(Clone, Debug)]
pub(crate) struct Need<'a> {
    pub(crate) config: &'a DecoderConfig,
    /// Held already: weights, embedder, index, program.
    pub(crate) held: u64,
    /// Of an adapter; `None` for the base model alone.
    pub(crate) rank: Option<usize>,
    /// The largest pass of the training, if one is still to be done.
    pub(crate) pass: Option<Rows>,
    /// Tokens whose keys and values are wanted again, while it is built and while it answers.
    pub(crate) kept_building: f64,
    pub(crate) kept_answering: f64,
    /// Tokens of the longest prompt and its answer.
    pub(crate) longest: usize,
}

/// Memory that blocks of keys and values take: the allocator rounds their sizes up, by an eighth at most.
fn rounded(bytes: u64) -> u64 {
    bytes / 8 * 9
}

/// Training rows as far as they decide memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rows {
    /// Tokens of the largest pass, and those of them that are learned.
    pub(crate) tokens: usize,
    pub(crate) targets: usize,
    /// Tokens of the longest row: no pass is smaller.
    pub(crate) longest: usize,
}

/// How a candidate is built within the memory there is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Fit {
    /// Most memory at once.
    pub(crate) memory_bytes: u64,
    /// Whether blocks run forward again on the way back: a third less speed.
    pub(crate) checkpointing: bool,
    /// Limit on keys and values.
    pub(crate) cache_bytes: u64,
}

impl Need<'_> {
    /// Memory while it is built and while it answers: without keys and values, and what those would like to have.
    fn phases(&self, checkpointing: bool) -> [(u64, u64); 2] {
        let c = self.config;
        let wanted = |tokens: f64| {
            rounded(((tokens * c.cache_token_bytes() as f64) as u64).min(CACHE_BYTES))
        };
        let (building, answering) = (wanted(self.kept_building), wanted(self.kept_answering));
        let read = self.held + c.reading_bytes(READ_ROWS, LOGIT_ROWS) as u64;
        let Some(rank) = self.rank else { return [(read, building), (read, answering)] };
        let adapter = c.packed_adapter_bytes(rank) as u64;
        let Some(Rows { tokens, targets, .. }) = self.pass else {
            return [(0, 0), (read + adapter, answering)];
        };
        let pass = TrainingPass { tokens, targets, rank, checkpointing };
        let spare = (c.activation_bytes(pass) as f64 * POOL_SPARE) as u64;
        let pass = c.training_bytes(pass) as u64 + spare;
        // Buffers of the passes stay for the next ones, also while answers are written.
        let trained = self.held + c.transposed_bytes() as u64 + adapter + pass;
        let optimizer = (c.adapter_parameters(rank) * ADAPTER_COPIES) as u64;
        [(trained + optimizer, building), (trained, answering)]
    }

    /// The fastest way within `available` bytes: less memory for keys and values comes before checkpointing, as it costs
    /// less time.
    ///
    /// # Errors
    /// What is needed at least.
    pub(crate) fn fit(&self, available: u64) -> Result<Fit, u64> {
        let smallest = SMALLEST_BATCH * (self.longest * self.config.cache_token_bytes()) as u64;
        let peak = |phases: [(u64, u64); 2], cache: u64| {
            let peaks = phases.map(|(base, wanted)| base + wanted.min(rounded(cache)));
            peaks.into_iter().max().unwrap_or(0)
        };
        let ways: &[bool] = if self.pass.is_some() { &[false, true] } else { &[false] };
        let mut least = u64::MAX;
        for &checkpointing in ways {
            let phases = self.phases(checkpointing);
            least = least.min(peak(phases, smallest));
            if least <= available {
                let short = phases.into_iter().filter(|(base, wanted)| base + wanted > available);
                let spare = short.map(|(base, _)| (available - base) / 9 * 8).min();
                let cache_bytes = spare.unwrap_or(CACHE_BYTES);
                let memory_bytes = peak(phases, cache_bytes);
                return Ok(Fit { memory_bytes, checkpointing, cache_bytes });
            }
        }
        Err(least)
    }

    /// A smaller limit on the tokens of a pass, or else of a row, that makes it fit: key, value and memory.
    pub(crate) fn smaller(&self, available: u64) -> Option<(&'static str, usize, u64)> {
        let rows = self.pass?;
        let limits = [512, 256, 128, 64].into_iter().filter(|n| *n < rows.tokens);
        let (passes, cuts): (Vec<_>, Vec<_>) = limits.partition(|n| *n >= rows.longest);
        let passes = passes.into_iter().map(|n| ("training.micro_batch_tokens", n));
        let cuts = cuts.into_iter().map(|n| ("training.max_tokens", n));
        passes.chain(cuts).find_map(|(key, n)| {
            let targets = rows.targets.min(n);
            let pass = Some(Rows { tokens: n, targets, longest: rows.longest.min(n) });
            let fit = Need { pass, ..self.clone() }.fit(available).ok()?;
            Some((key, n, fit.memory_bytes))
        })
    }
}

/// Tokens whose keys and values there is room for once some answers are written.
pub(crate) fn kept_tokens<'a>(answers: impl IntoIterator<Item = &'a Answers>) -> f64 {
    answers.into_iter().map(Answers::kept_tokens).sum()
}

/// Length of the answers of a model that was trained for so many steps: its warm-up leads from what the base model would
/// write to what the rows teach.
pub(crate) fn trained_length(base: f64, taught: f64, steps: usize, warmup_steps: usize) -> f64 {
    let learned = (steps as f64 / warmup_steps.max(1) as f64).min(1.0);
    base + (taught - base) * learned
}

/// Measured speeds by what they are of, as they are kept from run to run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) base: Option<Speeds>,
    /// With an adapter, by its rank.
    pub(crate) adapted: BTreeMap<usize, Speeds>,
    /// Tokens per second of training, by the shape of its passes.
    pub(crate) training: BTreeMap<String, f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speeds() -> Speeds {
        Speeds {
            // 1 ms per token and 1 µs more per token before it.
            read_s: [32.0f64, 128.0, 512.0].map(|n| (n, 1e-3 * n + 0.5e-6 * n * n)).to_vec(),
            read_behind_s: Some((
                (896.0, 128.0),
                0.128 + 0.5e-6 * 128.0 * 128.0 + 1e-6 * 896.0 * 128.0,
            )),
            write_s: vec![(32.0, 5e-3), (1024.0, 10e-3)],
            write_together_s: 1e-3,
            general_s: 6.0,
        }
    }

    fn close(got: f64, expected: f64) {
        assert!((got / expected - 1.0).abs() < 0.03, "{got}, expected {expected}");
    }

    #[test]
    fn reading_costs_more_behind_what_was_read() {
        let s = speeds();
        close(s.read(0.0, 1024.0), 1e-3 * 1024.0 + 0.5e-6 * 1024.0 * 1024.0);
        close(s.bend(), 1e-6);
        close(s.read(500.0, 256.0), s.read(0.0, 256.0) + 1e-6 * 500.0 * 256.0);
        assert!(s.read(0.0, 1.0) > 0.0);
    }

    #[test]
    fn one_answer_alone_is_its_prompt_and_its_further_tokens() {
        let prompts = Prompts { fresh: 256.0, retrieve_s: 0.1, ..Prompts::default() };
        let a = Answers { prompts, new: 11.0, alone: 2, batched: 0 };
        let s = speeds();
        close(a.seconds(&s), 2.0 * (0.1 + s.read(0.0, 256.0) + 10.0 * s.write(261.5)));
        assert_eq!(Answers { alone: 0, ..a }.seconds(&s), 0.0);
    }

    #[test]
    fn a_batch_of_long_answers_costs_what_32_together_cost() {
        let prompts = Prompts { fresh: 1.0, ..Prompts::default() };
        let a = Answers { prompts, new: 1001.0, alone: 0, batched: 32 };
        let mut s = speeds();
        s.write_s = vec![(32.0, 5e-3), (1024.0, 5e-3)];
        close(a.seconds(&s), 32_000.0 * 1e-3);
    }

    #[test]
    fn what_prompts_share_is_counted_once() {
        let prompts = [vec![1, 2, 3, 4], vec![1, 2, 3, 5, 6], vec![1, 2, 9]];
        let p = Prompts::of(&prompts, 0.0);
        assert_eq!((p.shared, p.longest), (2.0, 5));
        // Beyond the two of all: 3, 4, then 5 and 6, then 9.
        assert_eq!(p.fresh, 5.0 / 3.0);
        // Each has a page of its own.
        assert_eq!(p.kept, 128.0);
        let long = [vec![1; 300], vec![1; 301]];
        assert_eq!(Prompts::of(&long, 0.0).kept, 128.0);
        assert_eq!(Prompts::of(&prompts[..1], 0.0).fresh, 4.0);
        assert_eq!(Prompts::of(&[], 0.0), Prompts::default());
    }

    #[test]
    fn a_training_is_its_tokens_and_an_evaluation_per_epoch() {
        let probe = Answers { prompts: Prompts::default(), new: 1.0, alone: 0, batched: 0 };
        let training =
            Training { epochs: 2, tokens: 4000.0, tokens_per_s: 400.0, dev_tokens: 1024.0, probe };
        let work = Work { training: Some(training), general: true, ..Work::default() };
        assert!(!work.is_done() && Work::default().is_done());
        let s = speeds();
        close(work.seconds(&s).build, 10.0 + 4.0 * s.read(0.0, 512.0));
        close(work.seconds(&s).total(), 16.0 + 4.0 * s.read(0.0, 512.0));
    }

    #[test]
    fn answers_shorten_while_the_learning_rate_warms_up() {
        for (steps, length) in [(0, 30.0), (10, 18.0), (20, 6.0), (500, 6.0)] {
            assert_eq!(trained_length(30.0, 6.0, steps, 20), length);
        }
        assert_eq!(trained_length(30.0, 6.0, 1, 0), 6.0);
    }

    /// SmolLM2-135M.
    fn config() -> DecoderConfig {
        DecoderConfig {
            layers: 30,
            hidden: 576,
            heads: 9,
            kv_heads: 3,
            head_dim: 64,
            feed_forward: 1536,
            vocab: 49_152,
            context_length: 2048,
            rope_theta: 1e5,
            norm_eps: 1e-5,
            embedding_scale: 1.0,
            attention_scale: 0.125,
            gate: assay_model::Gate::Silu,
            qkv_bias: false,
            qk_norm: false,
            post_norms: false,
            sliding_window: None,
        }
    }

    fn need(config: &DecoderConfig) -> Need<'_> {
        Need {
            config,
            held: 500_000_000,
            rank: Some(16),
            pass: Some(Rows { tokens: 1024, targets: 200, longest: 300 }),
            kept_building: 10_000.0,
            kept_answering: 20_000.0,
            longest: 350,
        }
    }

    #[test]
    fn less_memory_costs_the_cache_first_then_checkpointing_then_a_refusal() {
        let config = config();
        let need = need(&config);
        assert_eq!(config.adapter_parameters(16), 4_884_480);
        assert_eq!(config.cache_token_bytes(), 46_080);
        let free = need.fit(u64::MAX).unwrap();
        assert_eq!((free.checkpointing, free.cache_bytes), (false, CACHE_BYTES));
        let mut last = free.memory_bytes;
        let mut seen = vec![];
        for available in (1..40).rev().map(|n| n * 100_000_000) {
            match need.fit(available) {
                Ok(fit) => {
                    assert!(fit.memory_bytes <= available && fit.memory_bytes <= last);
                    last = fit.memory_bytes;
                    seen.push((fit.checkpointing, fit.cache_bytes < CACHE_BYTES));
                }
                Err(least) => {
                    assert!(least > available);
                    assert!(need.fit(least).is_ok());
                    seen.push((true, false));
                }
            }
        }
        seen.dedup();
        let in_turn = [(false, false), (false, true), (true, false)];
        assert!(seen.starts_with(&in_turn[..2]) && seen.contains(&(true, true)), "{seen:?}");
    }

    #[test]
    fn what_does_not_fit_fits_with_smaller_passes_or_shorter_rows() {
        let config = config();
        let need = need(&config);
        let least = need.fit(0).unwrap_err();
        let (key, n, bytes) = need.smaller(least - 20_000_000).unwrap();
        assert_eq!((key, n), ("training.micro_batch_tokens", 512));
        assert!(bytes <= least - 20_000_000);
        let long = Need { pass: Some(Rows { tokens: 1024, targets: 200, longest: 900 }), ..need };
        let (key, n, _) = long.smaller(least - 20_000_000).unwrap();
        assert_eq!((key, n), ("training.max_tokens", 512));
        assert_eq!(long.smaller(1_000_000), None);
    }
}
