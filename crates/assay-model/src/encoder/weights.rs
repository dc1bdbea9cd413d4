//! Tensors of a safetensors file, widened to `f32`, and the two layers that are made of them.

use std::path::PathBuf;

use assay_kernels::{PackedMatrix, Precision, Values, layer_norm, linear};
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use super::error::{EncoderError, unsupported};

/// Tensors by name, checked against the expected shape.
pub(super) struct Weights<'a> {
    path: PathBuf,
    tensors: SafeTensors<'a>,
    precision: Precision,
}

impl<'a> Weights<'a> {
    /// Over the bytes of a safetensors file; matrices are packed in `precision`.
    pub(super) fn new(
        path: PathBuf,
        bytes: &'a [u8],
        precision: Precision,
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
        let weight = PackedMatrix::pack(&weight, bias.len(), cols, self.precision);
        Ok(Linear { weight, bias })
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
    weight: PackedMatrix,
    bias: Vec<f32>,
}

impl Linear {
    /// `out = x · Wᵀ + b`, with `x [rows, in]` and `out [rows, out]`.
    pub(super) fn apply(&self, x: &[f32], out: &mut [f32]) {
        Self::apply_all(x, [(self, out)]);
    }

    /// [`Self::apply`] of several matrices to the same input.
    pub(super) fn apply_all<const N: usize>(x: &[f32], all: [(&Linear, &mut [f32]); N]) {
        let rows = all.first().map_or(0, |(linear, _)| x.len() / linear.weight.cols());
        let mut products = all.map(|(linear, out)| linear.product(out));
        linear(Values::F32(x), rows, &mut products, false);
    }

    /// Of the weights, and of what is multiplied with them.
    pub(super) fn precision(&self) -> Precision {
        self.weight.precision()
    }

    /// `out += x · Wᵀ + b`.
    pub(super) fn add(&self, x: &[f32], out: &mut [f32]) {
        linear(Values::F32(x), x.len() / self.weight.cols(), &mut [self.product(out)], true);
    }

    fn product<'a>(&'a self, out: &'a mut [f32]) -> assay_kernels::Linear<'a> {
        assay_kernels::Linear { w: &self.weight, pair: None, bias: Some(&self.bias), out }
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
