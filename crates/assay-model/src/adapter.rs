use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use assay_kernels::{PackedMatrix, Precision};
use rayon::prelude::*;

use crate::config::{DecoderConfig, Module};
use crate::error::ModelError;
use crate::rng::Rng;

/// What an adapter is, apart from its values.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterSpec {
    /// Rank of every pair.
    pub rank: usize,
    /// The output of a pair is multiplied by `alpha / rank`.
    pub alpha: f32,
    /// Modules with a pair, in every layer.
    pub targets: Vec<Module>,
    /// SHA-256 of the base model's file; `None` for an adapter made by another tool.
    pub base_hash: Option<String>,
    /// Hash of the chat template it was trained with; `None` for an adapter made by another tool.
    pub template_hash: Option<String>,
}

/// A LoRA adapter (Hu et al. 2021): per layer and target module, `y += alpha/rank · B·A·x`.
///
/// All values lie in one slice, so that an optimizer sees one tensor: for each layer, for each
/// target in [`Module::ALL`]'s order, `A [rank, inputs]` then `B [outputs, rank]`, row-major as
/// PEFT stores them. The same type holds gradients and optimizer moments.
#[derive(Clone, Debug)]
pub struct Adapter {
    spec: AdapterSpec,
    layers: usize,
    /// Per target: module, inputs, outputs, offset within a layer.
    layout: Vec<Slot>,
    layer_len: usize,
    values: Vec<f32>,
    packed: OnceLock<Arc<PackedAdapter>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    module: Module,
    inputs: usize,
    outputs: usize,
    offset: usize,
}

/// One pair of an adapter.
#[derive(Debug)]
pub struct Pair<T> {
    /// Layer, from 0.
    pub layer: usize,
    /// Module.
    pub module: Module,
    /// Columns of `a`.
    pub inputs: usize,
    /// Rows of `b`.
    pub outputs: usize,
    /// `A [rank, inputs]`.
    pub a: T,
    /// `B [outputs, rank]`.
    pub b: T,
}

impl Adapter {
    /// An untrained adapter: `A` uniform in ±1/√inputs (PEFT's `kaiming_uniform(a=√5)`), `B` zero,
    /// so that it changes nothing yet. The same seed gives the same values.
    pub fn new(config: &DecoderConfig, spec: AdapterSpec, seed: u64) -> Self {
        let mut adapter = Self::zeros(config, spec);
        let mut rng = Rng::new(seed);
        for pair in adapter.pairs_mut() {
            let bound = 1.0 / (pair.inputs as f32).sqrt();
            pair.a.fill_with(|| (2.0 * rng.uniform() - 1.0) * bound);
        }
        adapter
    }

    /// An adapter of zeros. Targets are put in order; duplicates are dropped.
    pub fn zeros(config: &DecoderConfig, mut spec: AdapterSpec) -> Self {
        spec.targets.sort_unstable();
        spec.targets.dedup();
        let mut offset = 0;
        let layout = spec
            .targets
            .iter()
            .map(|&module| {
                let (inputs, outputs) = config.shape(module);
                let slot = Slot { module, inputs, outputs, offset };
                offset += spec.rank * (inputs + outputs);
                slot
            })
            .collect();
        let values = vec![0.0; offset * config.layers];
        Adapter {
            spec,
            layers: config.layers,
            layout,
            layer_len: offset,
            values,
            packed: OnceLock::new(),
        }
    }

    /// The same layout, filled with zeros: for gradients and moments.
    pub fn zeros_like(&self) -> Self {
        Adapter {
            spec: self.spec.clone(),
            layers: self.layers,
            layout: self.layout.clone(),
            layer_len: self.layer_len,
            values: vec![0.0; self.values.len()],
            packed: OnceLock::new(),
        }
    }

    /// Rank, alpha, targets and what it was made for.
    pub fn spec(&self) -> &AdapterSpec {
        &self.spec
    }

    /// Factor on the output of every pair: `alpha / rank`.
    pub fn scale(&self) -> f32 {
        self.spec.alpha / self.spec.rank as f32
    }

    /// All values.
    pub fn parameters(&self) -> &[f32] {
        &self.values
    }

    /// All values, to change.
    pub fn parameters_mut(&mut self) -> &mut [f32] {
        self.packed = OnceLock::new();
        &mut self.values
    }

    /// All pairs, in storage order.
    pub fn pairs(&self) -> impl Iterator<Item = Pair<&[f32]>> {
        let rank = self.spec.rank;
        (0..self.layers).flat_map(move |layer| {
            self.layout.iter().map(move |s| {
                let start = layer * self.layer_len + s.offset;
                let (a, b) =
                    self.values[start..][..rank * (s.inputs + s.outputs)].split_at(rank * s.inputs);
                Pair { layer, module: s.module, inputs: s.inputs, outputs: s.outputs, a, b }
            })
        })
    }

    /// All pairs, in storage order, to change.
    pub fn pairs_mut(&mut self) -> impl Iterator<Item = Pair<&mut [f32]>> {
        self.packed = OnceLock::new();
        let (rank, layout, layers) = (self.spec.rank, &self.layout, self.layers);
        let mut rest = self.values.as_mut_slice();
        let slots = (0..layers).flat_map(move |layer| layout.iter().map(move |s| (layer, s)));
        slots.map(move |(layer, s)| {
            let (pair, tail) =
                std::mem::take(&mut rest).split_at_mut(rank * (s.inputs + s.outputs));
            rest = tail;
            let (a, b) = pair.split_at_mut(rank * s.inputs);
            Pair { layer, module: s.module, inputs: s.inputs, outputs: s.outputs, a, b }
        })
    }

    /// `A` and `B` of one module, to accumulate a gradient; `None` where there is no pair.
    pub(crate) fn pair_mut(
        &mut self,
        layer: usize,
        module: Module,
    ) -> Option<(&mut [f32], &mut [f32])> {
        let slot = *self.layout.iter().find(|s| s.module == module)?;
        let start = layer * self.layer_len + slot.offset;
        let rank = self.spec.rank;
        let pair = &mut self.values[start..][..rank * (slot.inputs + slot.outputs)];
        Some(pair.split_at_mut(rank * slot.inputs))
    }

    /// Whether two adapters store the same pairs at the same places.
    pub fn same_layout(&self, other: &Adapter) -> bool {
        self.layers == other.layers
            && self.spec.rank == other.spec.rank
            && self.layout == other.layout
    }

    /// Refuses an adapter that was made for another base, template or shape.
    pub(crate) fn check(
        &self,
        config: &DecoderConfig,
        base_hash: &str,
        template_hash: &str,
    ) -> Result<(), ModelError> {
        let mismatch = |what, expected: String, got: String| {
            Err(ModelError::AdapterMismatch { what, expected, got })
        };
        if let Some(hash) = self.spec.base_hash.as_ref().filter(|h| *h != base_hash) {
            return mismatch("base model (sha256)", base_hash.to_owned(), hash.clone());
        }
        if let Some(hash) = self.spec.template_hash.as_ref().filter(|h| *h != template_hash) {
            return mismatch("chat template (sha256)", template_hash.to_owned(), hash.clone());
        }
        if self.layers != config.layers {
            return mismatch(
                "number of layers",
                config.layers.to_string(),
                self.layers.to_string(),
            );
        }
        for slot in &self.layout {
            let (expected, got) = (config.shape(slot.module), (slot.inputs, slot.outputs));
            if expected != got {
                return mismatch(
                    slot.module.hf_name(),
                    format!("{expected:?}"),
                    format!("{got:?}"),
                );
            }
        }
        Ok(())
    }

    /// The pairs as the kernels want them; packed once until the values change.
    pub(crate) fn packed(&self, precision: Precision) -> Arc<PackedAdapter> {
        let packed = self.packed.get_or_init(|| Arc::new(PackedAdapter::new(self, precision)));
        if packed.precision == precision {
            return Arc::clone(packed);
        }
        Arc::new(PackedAdapter::new(self, precision))
    }
}

/// An adapter's pairs packed for [`assay_kernels::matmul`], with `alpha/rank` folded into `B`.
#[derive(Debug)]
pub(crate) struct PackedAdapter {
    /// Another one for each packing: whatever was computed with changed values is told apart.
    pub(crate) id: u64,
    precision: Precision,
    rank: usize,
    scale: f32,
    /// Per layer, by `Module as usize`.
    layers: Vec<[Option<PackedPair>; 7]>,
}

#[derive(Debug)]
pub(crate) struct PackedPair {
    /// `A [rank, inputs]`: `z = x·Aᵀ`.
    pub(crate) a: PackedMatrix,
    /// `s·B [outputs, rank]`: `y += z·(sB)ᵀ`.
    pub(crate) b: PackedMatrix,
    /// `Aᵀ` and `s·Bᵀ`, for the backward pass.
    transposed: OnceLock<(PackedMatrix, PackedMatrix)>,
}

impl PackedPair {
    /// `(Aᵀ [inputs, rank], s·Bᵀ [rank, outputs])`.
    pub(crate) fn transposed(&self) -> &(PackedMatrix, PackedMatrix) {
        self.transposed.get_or_init(|| (self.a.transposed(), self.b.transposed()))
    }
}

impl PackedAdapter {
    fn new(adapter: &Adapter, precision: Precision) -> Self {
        static PACKED: AtomicU64 = AtomicU64::new(0);
        let id = PACKED.fetch_add(1, Ordering::Relaxed);
        let (rank, scale) = (adapter.spec.rank, adapter.scale());
        let mut layers: Vec<[Option<PackedPair>; 7]> =
            (0..adapter.layers).map(|_| Default::default()).collect();
        let pack = |pair: &Pair<&[f32]>| {
            let a = PackedMatrix::pack(pair.a, rank, pair.inputs, precision);
            let b = PackedMatrix::pack_with(pair.outputs, rank, precision, |row, out| {
                for (out, b) in out.iter_mut().zip(&pair.b[row * rank..][..rank]) {
                    *out = scale * b;
                }
            });
            PackedPair { a, b, transposed: OnceLock::new() }
        };
        let pairs: Vec<Pair<&[f32]>> = adapter.pairs().collect();
        let packed: Vec<PackedPair> = pairs.par_iter().map(pack).collect();
        for (pair, packed) in pairs.iter().zip(packed) {
            layers[pair.layer][pair.module as usize] = Some(packed);
        }
        PackedAdapter { id, precision, rank, scale, layers }
    }

    pub(crate) fn layer(&self, layer: usize) -> LayerPairs<'_> {
        LayerPairs { layer, rank: self.rank, scale: self.scale, pairs: &self.layers[layer] }
    }
}

/// The pairs of one layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerPairs<'a> {
    pub(crate) layer: usize,
    pub(crate) rank: usize,
    pub(crate) scale: f32,
    pairs: &'a [Option<PackedPair>; 7],
}

impl<'a> LayerPairs<'a> {
    pub(crate) fn get(&self, module: Module) -> Option<&'a PackedPair> {
        self.pairs[module as usize].as_ref()
    }
}
