//! Tensors of a safetensors file, widened to `f32`, and the two layers that are made of them.

use std::path::PathBuf;

use assay_kernels::{
    Int8Linear, Int8Matrix, PackedMatrix, Precision, Values, layer_norm, linear, linear_int8,
};
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use super::EncoderPrecision;
use super::error::{EncoderError, unsupported};

/// Tensors by name, checked against the expected shape.
pub(super) struct Weights<'a> {
    path: PathBuf,
    tensors: SafeTensors<'a>,
    precision: EncoderPrecision,
}

impl<'a> Weights<'a> {
    /// Over the bytes of a safetensors file; matrices are packed in `precision`.
    pub(super) fn new(
        path: PathBuf,
        bytes: &'a [u8],
        precision: EncoderPrecision,
    ) -> Result<Self, EncoderError> {
        match SafeTensors::deserialize(bytes) {
            Ok(tensors) => Ok(Weights { path, tensors, precision }),
            Err(error) => Err(EncoderError::Weights { path, error }),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.tensor(name).is_ok()
    }

    /// Rows of a matrix.
    pub(super) fn rows(&self, name: &str) -> Result<usize, EncoderError> {
        let tensor = self.tensors.tensor(name).map_err(|error| self.error(error))?;
        Ok(tensor.shape().first().copied().unwrap_or(0))
    }

    pub(super) fn values(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, EncoderError> {
        let tensor = self.tensors.tensor(name).map_err(|error| self.error(error))?;
        if tensor.shape() != expected {
            return Err(EncoderError::Shape {
                path: self.path.clone(),
                name: name.into(),
                expected: expected.into(),
                got: tensor.shape().into(),
            });
        }
        let halves = |f: fn(u16) -> f32| {
            tensor.data().chunks_exact(2).map(|b| f(u16::from_le_bytes([b[0], b[1]]))).collect()
        };
        match tensor.dtype() {
            Dtype::F32 => {
                let words = tensor.data().chunks_exact(4);
                Ok(words.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
            }
            Dtype::F16 => Ok(halves(|bits| half::f16::from_bits(bits).to_f32())),
            Dtype::BF16 => Ok(halves(|bits| half::bf16::from_bits(bits).to_f32())),
            other => {
                let got = format!("{other:?} ({name})");
                Err(unsupported(&self.path, "dtype", got, "F32, F16, BF16"))
            }
        }
    }

    /// `NAME.weight [rows, cols]` and `NAME.bias [rows]`.
    pub(super) fn linear(
        &self,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Linear, EncoderError> {
        let bias = self.values(&format!("{name}.bias"), &[rows])?;
        self.linear_with(name, bias, cols)
    }

    /// `NAME.weight [rows, cols]` and no bias.
    pub(super) fn unbiased(
        &self,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Linear, EncoderError> {
        self.linear_with(name, vec![0.0; rows], cols)
    }

    fn linear_with(&self, name: &str, bias: Vec<f32>, cols: usize) -> Result<Linear, EncoderError> {
        let weight = self.values(&format!("{name}.weight"), &[bias.len(), cols])?;
        let pack = |precision| PackedMatrix::pack(&weight, bias.len(), cols, precision);
        let weight = match self.precision {
            EncoderPrecision::F32 => Matrix::Floats(pack(Precision::F32)),
            EncoderPrecision::Bf16 => Matrix::Floats(pack(Precision::Bf16)),
            EncoderPrecision::Int8 => Matrix::Integers(Int8Matrix::pack(&weight, bias.len(), cols)),
        };
        Ok(Linear { weight, bias, cols })
    }

    pub(super) fn norm(&self, name: &str, size: usize) -> Result<Norm, EncoderError> {
        let weight = self.values(&format!("{name}.weight"), &[size])?;
        Ok(Norm { weight, bias: self.values(&format!("{name}.bias"), &[size])? })
    }

    fn error(&self, error: SafeTensorError) -> EncoderError {
        EncoderError::Weights { path: self.path.clone(), error }
    }
}

/// A matrix and its bias.
pub(super) struct Linear {
    weight: Matrix,
    bias: Vec<f32>,
    cols: usize,
}

enum Matrix {
    Floats(PackedMatrix),
    Integers(Int8Matrix),
}

impl Linear {
    /// `out = x · Wᵀ + b`, with `x [rows, in]` and `out [rows, out]`.
    pub(super) fn apply(&self, x: &[f32], out: &mut [f32]) {
        Self::products(x, vec![(self, out)], false);
    }

    /// [`Self::apply`] of several matrices of one model to the same input.
    pub(super) fn apply_all<const N: usize>(x: &[f32], all: [(&Linear, &mut [f32]); N]) {
        Self::products(x, all.into(), false);
    }

    /// `out += x · Wᵀ + b`.
    pub(super) fn add(&self, x: &[f32], out: &mut [f32]) {
        Self::products(x, vec![(self, out)], true);
    }

    fn products(x: &[f32], all: Vec<(&Linear, &mut [f32])>, add: bool) {
        let rows = all.first().map_or(0, |(linear, _)| x.len() / linear.cols);
        let (mut floats, mut integers) = (Vec::new(), Vec::new());
        for (Linear { weight, bias, .. }, out) in all {
            let bias = Some(bias.as_slice());
            match weight {
                Matrix::Floats(w) => {
                    floats.push(assay_kernels::Linear { w, pair: None, bias, out });
                }
                Matrix::Integers(w) => integers.push(Int8Linear { w, bias, out }),
            }
        }
        linear(Values::F32(x), rows, &mut floats, add);
        linear_int8(x, rows, &mut integers, add);
    }

    /// Of what attention multiplies.
    pub(super) fn attention_precision(&self) -> Precision {
        match &self.weight {
            Matrix::Floats(weight) => weight.precision(),
            Matrix::Integers(_) => Precision::Bf16,
        }
    }

    /// Values of a result.
    pub(super) fn outputs(&self) -> usize {
        self.bias.len()
    }
}

/// A LayerNorm.
pub(super) struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Norm {
    pub(super) fn apply(&self, x: &[f32], eps: f32, out: &mut [f32]) {
        layer_norm(x, &self.weight, &self.bias, eps, out);
    }
}

pub(super) fn add(to: &mut [f32], values: &[f32]) {
    to.iter_mut().zip(values).for_each(|(t, v)| *t += v);
}
