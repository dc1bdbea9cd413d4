//! Exact search by vectors, without looking at most of them.
//!
//! Four-bit codes give an estimate of every similarity and a bound of its error (see [`assay_kernels::CodedQuery`]).
//! The chunks that lead by the estimates are compared exactly; the k-th of them sets a bar. Whatever may still reach
//! the bar, going by its bound, is estimated again from eight bits, and what may reach it even then is compared
//! exactly. The result is that of comparing everything with `f32` vectors: the same chunks, scores and ties.

use std::ops::Range;

use assay_kernels::{
    CodedQuery, SCAN_ROWS, coarse_bytes, code_coarse, code_fine, consume, fine_bytes, scan_coarse,
    scan_fine,
};

use crate::bits::{Bits, ones};
use crate::projections::Placed;
use crate::segment::{Norms, Section, SegmentWriter};

/// Words of a bitmap that are one task.
const TASK: usize = 32;
/// Chunks compared exactly before anything else, beyond those asked for: a better bar for little.
const MORE_LEADERS: usize = 32;
/// When fewer than one in so many chunks are allowed, their eight-bit codes are read at once.
const FEW: usize = 16;

/// Codes of consecutive chunks, from a multiple of [`SCAN_ROWS`] on.
pub(crate) struct Codes {
    coarse: Vec<u8>,
    coarse_scales: [Vec<f32>; 2],
    fine: Vec<u8>,
    fine_scales: [Vec<f32>; 2],
    norms: Norms,
}

impl Codes {
    /// Of `rows` of `dims` values each; nothing of vectors without values.
    pub(crate) fn of(rows: &[f32], dims: usize) -> Self {
        let chunks = rows.len().checked_div(dims).unwrap_or(0);
        let blocks = chunks.div_ceil(SCAN_ROWS);
        let slots = blocks * SCAN_ROWS;
        let mut codes = Codes {
            coarse: vec![0; blocks * coarse_bytes(dims)],
            coarse_scales: [vec![0.0; slots], vec![0.0; slots]],
            fine: vec![0; chunks * fine_bytes(dims)],
            fine_scales: [vec![0.0; slots], vec![0.0; slots]],
            norms: Norms::default(),
        };
        for (i, row) in rows.chunks_exact(dims.max(1)).enumerate() {
            let block =
                &mut codes.coarse[i / SCAN_ROWS * coarse_bytes(dims)..][..coarse_bytes(dims)];
            let coarse = code_coarse(row, i % SCAN_ROWS, block);
            let fine = code_fine(row, &mut codes.fine[i * fine_bytes(dims)..][..fine_bytes(dims)]);
            (codes.coarse_scales[0][i], codes.coarse_scales[1][i]) = (coarse.step, coarse.error);
            (codes.fine_scales[0][i], codes.fine_scales[1][i]) = (fine.step, fine.error);
            codes.norms.include(coarse, fine);
        }
        codes
    }

    /// Writes the codes of a whole segment; returns its largest norms.
    pub(crate) fn write(all: &[Codes], writer: &mut SegmentWriter) -> std::io::Result<Norms> {
        let mut norms = Norms::default();
        for codes in all {
            writer.write(Section::Coarse, &codes.coarse)?;
            let Norms { exact, coarse, fine } = codes.norms;
            norms = Norms {
                exact: norms.exact.max(exact),
                coarse: norms.coarse.max(coarse),
                fine: norms.fine.max(fine),
            };
        }
        for i in 0..2 {
            all.iter()
                .try_for_each(|c| writer.write(Section::CoarseScales, &c.coarse_scales[i]))?;
        }
        all.iter().try_for_each(|c| writer.write(Section::Fine, &c.fine))?;
        for i in 0..2 {
            all.iter().try_for_each(|c| writer.write(Section::FineScales, &c.fine_scales[i]))?;
        }
        Ok(norms)
    }
}

/// What chunks are ranked by: `factor · (similarity − low) + weight · bm25`.
#[derive(Clone, Copy)]
pub(crate) struct Goal<'a> {
    pub(crate) factor: f64,
    pub(crate) low: f64,
    pub(crate) weight: f64,
    /// Of each slot; nothing stands for zeros.
    pub(crate) bm25: Option<&'a [f32]>,
    /// The largest of them, at least.
    pub(crate) top: f64,
}

impl Goal<'_> {
    /// The most similar first.
    pub(crate) const SIMILAR: Goal<'static> =
        Goal { factor: 1.0, low: 0.0, weight: 0.0, bm25: None, top: 0.0 };
    /// The least similar first.
    pub(crate) const DISTANT: Goal<'static> = Goal { factor: -1.0, ..Goal::SIMILAR };

    /// Monotone in the similarity, also as it is rounded.
    pub(crate) fn score(&self, slot: u32, similarity: f64) -> f64 {
        let bm25 = self.bm25.map_or(0.0, |b| f64::from(b[slot as usize]));
        self.factor * (similarity - self.low) + self.weight * bm25
    }
}

/// A chunk that was compared exactly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scored {
    pub(crate) slot: u32,
    pub(crate) score: f64,
    pub(crate) similarity: f32,
}

/// The similarities of one query to the allowed chunks, as far as they are needed.
pub(crate) struct Similarities<'a> {
    asked: Asked<'a>,
    order: &'a [u32],
    /// Of each slot; 0 where not allowed.
    estimates: Vec<f32>,
    /// At least the error of each.
    bounds: Vec<f32>,
    /// Whose estimates come from eight bits; a bit of a word for each slot.
    refined: Vec<u64>,
}

/// What is searched for, and where.
struct Asked<'a> {
    segments: &'a [Placed],
    query: &'a [f32],
    coded: CodedQuery,
    allowed: &'a Bits,
}

/// Some blocks of a segment, and what is known of them.
struct Task<'a> {
    placed: &'a Placed,
    blocks: Range<usize>,
    estimates: &'a mut [f32],
    bounds: &'a mut [f32],
    refined: &'a mut [u64],
}

impl<'a> Similarities<'a> {
    /// `order` is the place of each slot in the order of equal scores.
    pub(crate) fn new(
        segments: &'a [Placed],
        order: &'a [u32],
        allowed: &'a Bits,
        query: &'a [f32],
    ) -> Self {
        let asked = Asked { segments, query, coded: CodedQuery::new(query), allowed };
        let slots = allowed.len();
        let (estimates, bounds) = (vec![0.0; slots], vec![0.0; slots]);
        let refined = vec![0; slots / SCAN_ROWS];
        let mut similarities = Similarities { asked, order, estimates, bounds, refined };
        let few = allowed.count() < slots / FEW;
        let (asked, tasks) = similarities.tasks();
        consume(tasks.into_iter(), |mut task| {
            if few {
                let words = task.placed.words(asked.allowed, &task.blocks);
                let lanes = words.iter().zip((0..).step_by(SCAN_ROWS));
                let rows = lanes
                    .flat_map(|(word, first)| ones(*word).map(move |bit| first + bit))
                    .collect();
                asked.refine(&mut task, rows);
            } else {
                asked.scan(&mut task);
            }
        });
        similarities
    }

    /// Everything in pieces for many threads.
    fn tasks(&mut self) -> (&Asked<'a>, Vec<Task<'_>>) {
        let (mut estimates, mut bounds, mut refined) =
            (&mut self.estimates[..], &mut self.bounds[..], &mut self.refined[..]);
        let mut tasks = Vec::new();
        for placed in self.asked.segments {
            let blocks = placed.segment.slots() / SCAN_ROWS;
            for start in (0..blocks).step_by(TASK) {
                let blocks = start..(start + TASK).min(blocks);
                let slots = blocks.len() * SCAN_ROWS;
                tasks.push(Task {
                    placed,
                    estimates: estimates.split_off_mut(..slots).unwrap_or_default(),
                    bounds: bounds.split_off_mut(..slots).unwrap_or_default(),
                    refined: refined.split_off_mut(..blocks.len()).unwrap_or_default(),
                    blocks,
                });
            }
        }
        (&self.asked, tasks)
    }

    /// The `k` allowed chunks with the largest scores, exactly; equal scores in order.
    pub(crate) fn best(&mut self, goal: &Goal<'_>, k: usize) -> Vec<Scored> {
        if k == 0 {
            return Vec::new();
        }
        let leaders = self.leaders(goal, k.saturating_add(MORE_LEADERS)).into_iter();
        let mut leaders: Vec<f64> =
            leaders.map(|slot| self.asked.scored(goal, slot).score).collect();
        let bar = if leaders.len() < k {
            f64::NEG_INFINITY
        } else {
            *leaders.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
        };
        let (asked, tasks) = self.tasks();
        let mut found = vec![Vec::new(); tasks.len()];
        consume(tasks.into_iter().zip(&mut found), |(mut task, found)| {
            *found = asked.reach(goal, bar, &mut task);
        });
        let mut found = found.concat();
        let order = |scored: &Scored| self.order[scored.slot as usize];
        found.sort_unstable_by(|a, b| {
            b.score.total_cmp(&a.score).then_with(|| order(a).cmp(&order(b)))
        });
        found.truncate(k);
        found
    }

    /// The `n` allowed slots with the largest scores by the estimates, in any order; all if there are fewer.
    fn leaders(&self, goal: &Goal<'_>, n: usize) -> Vec<u32> {
        let (factor, weight) = (goal.factor as f32, goal.weight as f32);
        let mut leaders: Vec<(f32, u32)> = Vec::new();
        let mut bar = f32::NEG_INFINITY;
        for (word, i) in self.asked.allowed.words().iter().zip(0..) {
            if *word == 0 {
                continue;
            }
            let slots = i * SCAN_ROWS..(i + 1) * SCAN_ROWS;
            let mut scores = [0.0f32; SCAN_ROWS];
            for (score, estimate) in scores.iter_mut().zip(&self.estimates[slots.clone()]) {
                *score = factor * estimate;
            }
            if let Some(bm25) = goal.bm25 {
                scores
                    .iter_mut()
                    .zip(&bm25[slots.clone()])
                    .for_each(|(score, b)| *score += weight * b);
            }
            if !scores.iter().fold(false, |any, score| any | (*score > bar)) {
                continue;
            }
            let above = ones(*word).filter(|bit| scores[*bit as usize] > bar);
            leaders.extend(above.map(|bit| (scores[bit as usize], slots.start as u32 + bit)));
            if leaders.len() / 2 >= n {
                leaders.select_nth_unstable_by(n - 1, |a, b| b.0.total_cmp(&a.0));
                leaders.truncate(n);
                bar = leaders[n - 1].0;
            }
        }
        if leaders.len() > n {
            leaders.select_nth_unstable_by(n - 1, |a, b| b.0.total_cmp(&a.0));
            leaders.truncate(n);
        }
        leaders.into_iter().map(|(_, slot)| slot).collect()
    }
}

impl Asked<'_> {
    /// Estimates from four bits.
    fn scan(&self, task: &mut Task<'_>) {
        let segment = &task.placed.segment;
        let (codes, steps) = segment.coarse(task.blocks.clone());
        let words = task.placed.words(self.allowed, &task.blocks);
        scan_coarse(&self.coded, segment.dims(), codes, steps, words, task.estimates);
        let (norm, constant) =
            (self.coded.norm, self.constant(segment.norms(), segment.norms().coarse));
        let errors = &segment.coarse_errors()[task.blocks.start * SCAN_ROWS..];
        for (bound, error) in task.bounds.iter_mut().zip(errors) {
            *bound = norm * error + constant;
        }
    }

    /// Estimates of some lanes of the task from eight bits.
    fn refine(&self, task: &mut Task<'_>, lanes: Vec<u32>) {
        let segment = &task.placed.segment;
        let first = (task.blocks.start * SCAN_ROWS) as u32;
        let (codes, steps) = segment.fine();
        let rows: Vec<u32> = lanes.iter().map(|lane| first + lane).collect();
        let mut estimates = vec![0.0; rows.len()];
        scan_fine(&self.coded, codes, steps, &rows, &mut estimates);
        let (norm, constant) =
            (self.coded.norm, self.constant(segment.norms(), segment.norms().fine));
        for ((lane, row), estimate) in lanes.into_iter().zip(rows).zip(estimates) {
            let lane = lane as usize;
            task.estimates[lane] = estimate;
            task.bounds[lane] = norm * segment.fine_errors()[row as usize] + constant;
            task.refined[lane / SCAN_ROWS] |= 1 << (lane % SCAN_ROWS);
        }
    }

    /// The part of the bound that all rows of a segment share: the error of the query's codes, and what
    /// rounding makes of the estimate and of the exact similarity, each of whose terms is rounded once or twice.
    fn constant(&self, norms: Norms, of_codes: f32) -> f32 {
        let terms = (self.query.len() + 32) as f32 / (1u32 << 23) as f32;
        // Twice the rounding also covers that of the bound itself.
        1.000_01 * self.coded.error * of_codes
            + 2.0 * terms * self.coded.norm * norms.exact.max(of_codes)
    }

    /// The allowed chunks of a task whose scores are at least `bar`.
    fn reach(&self, goal: &Goal<'_>, bar: f64, task: &mut Task<'_>) -> Vec<Scored> {
        let segment = &task.placed.segment;
        let first = task.placed.first + (task.blocks.start * SCAN_ROWS) as u32;
        let norms = segment.norms();
        let (factor, weight) = (goal.factor as f32, goal.weight as f32);
        // Compared in `f32`, with room for its rounding: the largest that any term can be.
        let size = goal.factor.abs()
            * (4.0 * f64::from(self.coded.norm * norms.exact.max(norms.coarse)) + goal.low.abs())
            + goal.weight * goal.top
            + if bar.is_finite() { bar.abs() } else { 0.0 };
        let needed = (bar + goal.factor * goal.low - 1e-5 * size) as f32;
        // What cannot be compared is looked at.
        let may = |most: f32| (most >= needed) | most.is_nan();
        let (mut coarse, mut fine) = (Vec::new(), Vec::new());
        for (i, &word) in task.placed.words(self.allowed, &task.blocks).iter().enumerate() {
            if word == 0 {
                continue;
            }
            let own = i * SCAN_ROWS..(i + 1) * SCAN_ROWS;
            let mut most = [0.0f32; SCAN_ROWS];
            let known = task.estimates[own.clone()].iter().zip(&task.bounds[own.clone()]);
            for (most, (estimate, bound)) in most.iter_mut().zip(known) {
                *most = factor * estimate + factor.abs() * bound;
            }
            if let Some(bm25) = goal.bm25 {
                let bm25 = &bm25[first as usize + own.start..first as usize + own.end];
                most.iter_mut().zip(bm25).for_each(|(most, b)| *most += weight * b);
            }
            if !most.iter().fold(false, |any, most| any | may(*most)) {
                continue;
            }
            for bit in ones(word).filter(|bit| may(most[*bit as usize])) {
                let lane = own.start as u32 + bit;
                if task.refined[i] >> bit & 1 == 1 { fine.push(lane) } else { coarse.push(lane) }
            }
        }
        self.refine(task, coarse.clone());
        coarse.retain(|&lane| {
            let (estimate, bound) =
                (f64::from(task.estimates[lane as usize]), f64::from(task.bounds[lane as usize]));
            let most = goal.score(first + lane, estimate + bound.copysign(goal.factor));
            most >= bar || most.is_nan()
        });
        let scored = coarse.into_iter().chain(fine).map(|lane| self.scored(goal, first + lane));
        scored.filter(|scored| scored.score >= bar).collect()
    }

    fn scored(&self, goal: &Goal<'_>, slot: u32) -> Scored {
        let placed = &self.segments[self.segments.partition_point(|p| p.first <= slot) - 1];
        let row = placed.segment.row((slot - placed.first) as usize);
        let similarity = assay_kernels::dot(row, self.query);
        Scored { slot, score: goal.score(slot, f64::from(similarity)), similarity }
    }
}
