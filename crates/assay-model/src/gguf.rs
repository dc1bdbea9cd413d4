//! Reading GGUF files: header by candle, expansion of tensors to `f32`.

use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, Value};
use sha2::{Digest, Sha256};

use crate::error::ModelError;
use crate::quant::QuantTensor;

/// An open GGUF file.
pub(crate) struct Gguf {
    path: PathBuf,
    content: Content,
}

impl Gguf {
    /// Reads the header and checks that all announced tensor data is there.
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        let mut reader = BufReader::new(fs_err::File::open(path)?);
        let size = reader.get_ref().metadata()?.len();
        let mut magic = [0; 4];
        let short = reader.read_exact(&mut magic).is_err();
        if short || &magic != b"GGUF" {
            return Err(ModelError::NotGguf { path: path.to_owned() });
        }
        reader.seek(SeekFrom::Start(0))?;
        let content = Content::read(&mut reader).map_err(|e| header_error(path, &e.to_string()))?;
        let gguf = Gguf { path: path.to_owned(), content };
        let end = gguf.content.tensor_infos.values().map(|info| gguf.end_of(info)).max();
        match end.filter(|&end| end > size) {
            Some(end) => Err(ModelError::Truncated {
                path: path.to_owned(),
                expected_bytes: end,
                got_bytes: size,
            }),
            None => Ok(gguf),
        }
    }

    fn end_of(&self, info: &candle_core::quantized::gguf_file::TensorInfo) -> u64 {
        let blocks = info.shape.elem_count() / info.ggml_dtype.block_size();
        let bytes = (blocks * info.ggml_dtype.type_size()) as u64;
        self.content.tensor_data_offset.saturating_add(info.offset).saturating_add(bytes)
    }

    pub(crate) fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.content.tensor_infos.keys().map(String::as_str)
    }

    pub(crate) fn has_tensor(&self, name: &str) -> bool {
        self.content.tensor_infos.contains_key(name)
    }

    /// Expands a tensor to `f32`, row-major, after checking its shape (rows first). Opens the file
    /// anew, so that several threads may read.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let missing = || ModelError::MissingTensor { path: self.path.clone(), name: name.into() };
        let info = self.content.tensor_infos.get(name).ok_or_else(missing)?;
        if info.shape.dims() != shape {
            return Err(ModelError::TensorShape {
                path: self.path.clone(),
                name: name.into(),
                expected: shape.to_vec(),
                got: info.shape.dims().to_vec(),
            });
        }
        let unsupported = |quantisation: String| ModelError::UnsupportedQuantisation {
            path: self.path.clone(),
            tensor: format!("`{name}`"),
            quantisation,
        };
        // These two are formats of intermediate results; no file should hold them.
        if matches!(info.ggml_dtype, GgmlDType::Q8_1 | GgmlDType::Q8K) {
            return Err(unsupported(format!("{:?}", info.ggml_dtype)));
        }
        let mut file = fs_err::File::open(&self.path)?;
        let cpu = Device::Cpu;
        let tensor = info
            .read(&mut file, self.content.tensor_data_offset, &cpu)
            .and_then(|quantised| quantised.dequantize(&cpu)?.flatten_all()?.to_vec1::<f32>());
        tensor.map_err(|e| unsupported(e.to_string()))
    }

    /// The blocks of a matrix as the file holds them, where its format is one of integers.
    pub(crate) fn quantised(
        &self,
        name: &str,
        [rows, cols]: [usize; 2],
    ) -> Result<Option<QuantTensor>, ModelError> {
        let Some(info) = self.content.tensor_infos.get(name) else { return Ok(None) };
        if info.shape.dims() != [rows, cols] {
            return Ok(None);
        }
        let start = self.content.tensor_data_offset.saturating_add(info.offset);
        let mut bytes = vec![0; usize::try_from(self.end_of(info) - start).unwrap_or(0)];
        let mut file = fs_err::File::open(&self.path)?;
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut bytes)?;
        Ok(QuantTensor::new(bytes, info.ggml_dtype, rows, cols))
    }

    /// Bytes of [`Self::quantised`] once it is packed, without padding.
    pub(crate) fn quantised_bytes(&self, name: &str, [rows, cols]: [usize; 2]) -> usize {
        let kind = self.content.tensor_infos.get(name).map(|info| info.ggml_dtype);
        kind.map_or(0, |kind| crate::quant::packed_bytes(kind, rows, cols))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn metadata_error(&self, key: &str, expected: &'static str) -> ModelError {
        ModelError::Metadata { path: self.path.clone(), key: key.to_owned(), expected }
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.content.metadata.get(key)
    }

    pub(crate) fn text(&self, key: &str) -> Result<&str, ModelError> {
        self.text_or_none(key).ok_or_else(|| self.metadata_error(key, "a string"))
    }

    pub(crate) fn text_or_none(&self, key: &str) -> Option<&str> {
        match self.value(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        match self.value(key) {
            Some(Value::Bool(flag)) => Some(*flag),
            _ => None,
        }
    }

    /// A positive size.
    pub(crate) fn size(&self, key: &str) -> Result<usize, ModelError> {
        let size = self.size_or_none(key).filter(|&n| n > 0);
        size.ok_or_else(|| self.metadata_error(key, "a positive integer"))
    }

    pub(crate) fn size_or_none(&self, key: &str) -> Option<usize> {
        self.value(key).and_then(integer).and_then(|n| usize::try_from(n).ok())
    }

    pub(crate) fn id(&self, key: &str) -> Option<u32> {
        self.value(key).and_then(integer).and_then(|n| u32::try_from(n).ok())
    }

    pub(crate) fn float(&self, key: &str) -> Result<f32, ModelError> {
        self.value(key).and_then(float).ok_or_else(|| self.metadata_error(key, "a float"))
    }

    pub(crate) fn floats(&self, key: &str) -> Result<Vec<f32>, ModelError> {
        let floats = match self.value(key) {
            Some(Value::Array(values)) => values.iter().map(float).collect(),
            _ => None,
        };
        floats.ok_or_else(|| self.metadata_error(key, "an array of floats"))
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Vec<String>, ModelError> {
        let texts = match self.value(key) {
            Some(Value::Array(values)) => values
                .iter()
                .map(|v| match v {
                    Value::String(text) => Some(text.clone()),
                    _ => None,
                })
                .collect(),
            _ => None,
        };
        texts.ok_or_else(|| self.metadata_error(key, "an array of strings"))
    }

    pub(crate) fn integers(&self, key: &str) -> Result<Vec<i64>, ModelError> {
        let integers = match self.value(key) {
            Some(Value::Array(values)) => values.iter().map(integer).collect(),
            _ => None,
        };
        integers.ok_or_else(|| self.metadata_error(key, "an array of integers"))
    }

    /// SHA-256 of the whole file, in hex.
    pub(crate) fn sha256(&self) -> Result<String, ModelError> {
        let mut file = fs_err::File::open(&self.path)?;
        let mut hasher = Sha256::new();
        let mut chunk = vec![0; 1 << 20];
        loop {
            match file.read(&mut chunk)? {
                0 => return Ok(crate::fetch::hex(hasher.finalize())),
                n => hasher.update(&chunk[..n]),
            }
        }
    }
}

fn float(value: &Value) -> Option<f32> {
    match value {
        Value::F32(v) => Some(*v),
        Value::F64(v) => Some(*v as f32),
        _ => None,
    }
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::U8(v) => Some(i64::from(*v)),
        Value::I8(v) => Some(i64::from(*v)),
        Value::U16(v) => Some(i64::from(*v)),
        Value::I16(v) => Some(i64::from(*v)),
        Value::U32(v) => Some(i64::from(*v)),
        Value::I32(v) => Some(i64::from(*v)),
        Value::U64(v) => i64::try_from(*v).ok(),
        Value::I64(v) => Some(*v),
        _ => None,
    }
}

fn header_error(path: &Path, message: &str) -> ModelError {
    let path = path.to_owned();
    // candle names the number of a format that it does not know, and the tensor no more.
    match message.split_once("unknown dtype for tensor ") {
        Some((_, code)) => ModelError::UnsupportedQuantisation {
            path,
            tensor: "a tensor".into(),
            quantisation: format!(
                "GGML type {}",
                code.chars().take_while(char::is_ascii_digit).collect::<String>()
            ),
        },
        None => ModelError::Malformed { path, detail: message.lines().next().unwrap_or("").into() },
    }
}

#[cfg(test)]
mod tests {
    use super::Gguf;

    /// See `tests/golden/make_blocks.py`.
    #[test]
    fn quantised_blocks_equal_the_gguf_package() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/blocks.gguf");
        let gguf = Gguf::open(path.as_ref()).unwrap();
        let formats = [
            "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
            "Q6_K",
        ];
        for format in formats {
            let read = |kind: &str| gguf.tensor(&format!("{kind}.{format}"), &[2, 256]).unwrap();
            let (got, expected) = (read("q"), read("f"));
            assert!(expected.iter().any(|&v| v != 0.0));
            for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let error = (got - expected).abs();
                assert!(error <= 1e-6 * (1.0 + expected.abs()), "{format}[{i}]: {got}, {expected}");
            }
        }
        assert_eq!(gguf.tensor_names().count(), 2 * formats.len());
    }
}
