//! Quantised tensors as their files hold them, for products that never expand them.
//!
//! Block layouts are those of ggml (`ggml-quants.h`): integers with a scale, and a minimum in the formats that
//! have one, per 32 or 16 weights of a row.

use assay_kernels::{QuantFormat, QuantMatrix, QuantRow};
use candle_core::quantized::GgmlDType;
use half::f16;

/// A tensor `[rows, cols]` in the bytes of its file.
pub(crate) struct QuantTensor {
    bytes: Vec<u8>,
    kind: GgmlDType,
    rows: usize,
    cols: usize,
}

impl QuantTensor {
    /// `None` for formats without integers, for the coarsest ones, and for rows of broken blocks.
    pub(crate) fn new(bytes: Vec<u8>, kind: GgmlDType, rows: usize, cols: usize) -> Option<Self> {
        format(kind)?;
        let whole = cols.is_multiple_of(kind.block_size())
            && bytes.len() == rows * cols / kind.block_size() * kind.type_size();
        whole.then_some(QuantTensor { bytes, kind, rows, cols })
    }

    /// Packs the rows, row `i` of the result being row `order(i)` of the file.
    pub(crate) fn pack(&self, order: impl Fn(usize) -> usize + Sync) -> Option<QuantMatrix> {
        let format = format(self.kind)?;
        let row_bytes = self.cols / self.kind.block_size() * self.kind.type_size();
        Some(QuantMatrix::pack_with(self.rows, self.cols, format, |row, mut out| {
            let bytes = &self.bytes[order(row) * row_bytes..][..row_bytes];
            read_row(self.kind, bytes, format.block(), &mut out);
        }))
    }
}

fn format(kind: GgmlDType) -> Option<QuantFormat> {
    match kind {
        GgmlDType::Q4_0 | GgmlDType::Q4_1 | GgmlDType::Q4K => Some(QuantFormat::Four),
        GgmlDType::Q5_0 | GgmlDType::Q5_1 | GgmlDType::Q5K | GgmlDType::Q8_0 => {
            Some(QuantFormat::Eight)
        }
        GgmlDType::Q6K => Some(QuantFormat::EightBy16),
        _ => None,
    }
}

/// Bytes of a packed matrix of that format, without padding; 0 where it is not kept quantised. Each block of a row
/// has a scale and a minimum of two bytes each.
pub(crate) fn packed_bytes(kind: GgmlDType, rows: usize, cols: usize) -> usize {
    let Some(format) = format(kind).filter(|_| cols.is_multiple_of(kind.block_size())) else {
        return 0;
    };
    let weights = if format == QuantFormat::Four { format.block() / 2 } else { format.block() };
    rows * cols / format.block() * (4 + weights)
}

fn read_row(kind: GgmlDType, bytes: &[u8], block: usize, out: &mut QuantRow<'_>) {
    let per_file_block = kind.block_size() / block;
    for (i, bytes) in bytes.chunks_exact(kind.type_size()).enumerate() {
        let q = &mut out.q[i * kind.block_size()..][..kind.block_size()];
        let at = i * per_file_block..(i + 1) * per_file_block;
        let (scale, min) = (&mut out.scale[at.clone()], &mut out.min[at]);
        match kind {
            GgmlDType::Q4_0 => {
                (scale[0], min[0]) = (float(bytes, 0), -8.0 * float(bytes, 0));
                nibbles(&bytes[2..], q);
            }
            GgmlDType::Q4_1 => {
                (scale[0], min[0]) = (float(bytes, 0), float(bytes, 2));
                nibbles(&bytes[4..], q);
            }
            GgmlDType::Q5_0 => {
                (scale[0], min[0]) = (float(bytes, 0), -16.0 * float(bytes, 0));
                nibbles(&bytes[6..], q);
                fifth_bits(&bytes[2..6], q);
            }
            GgmlDType::Q5_1 => {
                (scale[0], min[0]) = (float(bytes, 0), float(bytes, 2));
                nibbles(&bytes[8..], q);
                fifth_bits(&bytes[4..8], q);
            }
            GgmlDType::Q8_0 => {
                (scale[0], min[0]) = (float(bytes, 0), -128.0 * float(bytes, 0));
                for (q, byte) in q.iter_mut().zip(&bytes[2..]) {
                    // From -128..128 to 0..256.
                    *q = byte ^ 0x80;
                }
            }
            GgmlDType::Q4K => {
                k_scales(bytes, scale, min);
                for (q, bytes) in q.chunks_exact_mut(64).zip(bytes[16..].chunks_exact(32)) {
                    for (l, byte) in bytes.iter().enumerate() {
                        (q[l], q[32 + l]) = (byte & 15, byte >> 4);
                    }
                }
            }
            GgmlDType::Q5K => {
                k_scales(bytes, scale, min);
                let (high, low) = bytes[16..].split_at(32);
                for (i, (q, bytes)) in q.chunks_exact_mut(64).zip(low.chunks_exact(32)).enumerate()
                {
                    for (l, byte) in bytes.iter().enumerate() {
                        let bits = high[l] >> (2 * i);
                        q[l] = (byte & 15) | ((bits & 1) << 4);
                        q[32 + l] = (byte >> 4) | ((bits & 2) << 3);
                    }
                }
            }
            GgmlDType::Q6K => six_bits(bytes, q, scale, min),
            other => unreachable!("{other:?} has no integers"),
        }
    }
}

fn float(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Sixteen bytes: the low halves are the first sixteen weights, the high halves the others.
fn nibbles(bytes: &[u8], q: &mut [u8]) {
    for (l, byte) in bytes[..16].iter().enumerate() {
        (q[l], q[16 + l]) = (byte & 15, byte >> 4);
    }
}

fn fifth_bits(bytes: &[u8], q: &mut [u8]) {
    for (l, q) in q.iter_mut().enumerate() {
        *q |= (bytes[l / 8] >> (l % 8) & 1) << 4;
    }
}

/// Eight scales and minima of six bits, in units of the block's own two.
fn k_scales(bytes: &[u8], scale: &mut [f32], min: &mut [f32]) {
    let (unit, min_unit, packed) = (float(bytes, 0), float(bytes, 2), &bytes[4..16]);
    for j in 0..8 {
        let (s, m) = if j < 4 {
            (packed[j] & 63, packed[j + 4] & 63)
        } else {
            let high = |byte: u8| byte >> 6 << 4;
            let both = packed[j + 4];
            ((both & 15) | high(packed[j - 4]), (both >> 4) | high(packed[j]))
        };
        (scale[j], min[j]) = (unit * f32::from(s), -min_unit * f32::from(m));
    }
}

fn six_bits(bytes: &[u8], q: &mut [u8], scale: &mut [f32], min: &mut [f32]) {
    let (low, rest) = bytes.split_at(128);
    let (high, rest) = rest.split_at(64);
    let unit = float(rest, 16);
    for (j, (scale, min)) in scale.iter_mut().zip(min).enumerate() {
        *scale = unit * f32::from(rest[j] as i8);
        *min = -32.0 * *scale;
    }
    let halves = q.chunks_exact_mut(128).zip(low.chunks_exact(64)).zip(high.chunks_exact(32));
    for ((q, low), high) in halves {
        for l in 0..32 {
            let bits = |shift: u32| (high[l] >> shift & 3) << 4;
            q[l] = (low[l] & 15) | bits(0);
            q[32 + l] = (low[32 + l] & 15) | bits(2);
            q[64 + l] = (low[l] >> 4) | bits(4);
            q[96 + l] = (low[32 + l] >> 4) | bits(6);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::QTensor;
    use candle_core::{Device, Tensor};

    #[test]
    fn integers_scales_and_minima_give_the_values_of_the_reference() {
        let kinds = [
            GgmlDType::Q4_0,
            GgmlDType::Q4_1,
            GgmlDType::Q5_0,
            GgmlDType::Q5_1,
            GgmlDType::Q8_0,
            GgmlDType::Q4K,
            GgmlDType::Q5K,
            GgmlDType::Q6K,
        ];
        let (rows, cols) = (3, 512);
        let values: Vec<f32> =
            (0..rows * cols).map(|i| ((i * 7919 + 13) % 2003) as f32 / 1000.0 - 0.8).collect();
        let tensor = Tensor::from_vec(values, (rows, cols), &Device::Cpu).unwrap();
        for kind in kinds {
            let quantised = QTensor::quantize(&tensor, kind).unwrap();
            let want = quantised.dequantize(&Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
            let bytes = quantised.data().unwrap().into_owned();
            let block = format(kind).unwrap().block();
            for (row, bytes) in bytes.chunks(bytes.len() / rows).enumerate() {
                let mut q = vec![0; cols];
                let (mut scale, mut min) = (vec![0.0; cols / block], vec![0.0; cols / block]);
                let mut out = QuantRow { q: &mut q, scale: &mut scale, min: &mut min };
                read_row(kind, bytes, block, &mut out);
                for (k, want) in want[row].iter().enumerate() {
                    let got = scale[k / block] * f32::from(q[k]) + min[k / block];
                    assert!((got - want).abs() < 2e-6, "{kind:?} [{row}, {k}]: {got} and {want}");
                }
            }
            assert!(QuantTensor::new(bytes.clone(), kind, rows, cols).is_some());
            assert!(QuantTensor::new(bytes, kind, rows, cols / 2).is_none());
        }
        assert!(QuantTensor::new(vec![0; 64], GgmlDType::F32, 1, 16).is_none());
    }
}
