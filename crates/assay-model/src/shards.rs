//! Weights of a Hugging Face folder: one safetensors file, or several with an index.

use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::Deserialize;

use crate::error::ModelError;

const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The tensors of a folder; their values stay in the files.
pub(crate) struct Shards {
    files: Vec<PathBuf>,
    tensors: HashMap<String, Entry>,
}

struct Entry {
    /// In `files`.
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// From the start of the file.
    offset: u64,
    bytes: usize,
}

#[derive(Deserialize)]
struct IndexJson {
    weight_map: HashMap<String, String>,
}

impl Shards {
    /// Reads the headers and checks that all announced tensor data is there.
    pub(crate) fn open(dir: &Path) -> Result<Self, ModelError> {
        let index = dir.join(INDEX);
        let names: BTreeSet<String> = match index.is_file() {
            true => read_json::<IndexJson>(&index)?.weight_map.into_values().collect(),
            false => BTreeSet::from([WHOLE.to_owned()]),
        };
        let files: Vec<PathBuf> = names.iter().map(|name| dir.join(name)).collect();
        let mut tensors = HashMap::new();
        for (file, path) in files.iter().enumerate() {
            tensors.extend(header(path, file)?);
        }
        Ok(Shards { files, tensors })
    }

    /// The files, sorted by name.
    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor widened to `f32`, row-major, after checking its shape. Opens its file anew, so that
    /// several threads may read.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let Some(entry) = self.tensors.get(name) else {
            let path = self.files[0].clone();
            return Err(ModelError::MissingTensor { path, name: name.into() });
        };
        let path = &self.files[entry.file];
        if entry.shape != shape {
            return Err(ModelError::TensorShape {
                path: path.clone(),
                name: name.into(),
                expected: shape.to_vec(),
                got: entry.shape.clone(),
            });
        }
        let mut file = fs_err::File::open(path)?;
        file.seek(SeekFrom::Start(entry.offset))?;
        let mut bytes = vec![0; entry.bytes];
        file.read_exact(&mut bytes)?;
        let mut values = vec![0.0; shape.iter().product()];
        if widen(entry.dtype, &bytes, &mut values) {
            return Ok(values);
        }
        Err(ModelError::UnsupportedQuantisation {
            path: path.clone(),
            tensor: format!("`{name}`"),
            quantisation: format!("{:?}, expected F32, F16 or BF16", entry.dtype),
        })
    }
}

fn header(path: &Path, file: usize) -> Result<Vec<(String, Entry)>, ModelError> {
    let mut reader = fs_err::File::open(path)?;
    let size = reader.metadata()?.len();
    let malformed = |detail: String| ModelError::Malformed { path: path.to_owned(), detail };
    let mut length = [0; 8];
    reader.read_exact(&mut length).map_err(|_| malformed("no length of the header".into()))?;
    let end = u64::from_le_bytes(length).saturating_add(8);
    if end > size {
        return Err(malformed(format!("a header of {end} bytes in a file of {size}")));
    }
    reader.rewind()?;
    let mut bytes = vec![0; end as usize];
    reader.read_exact(&mut bytes)?;
    let metadata: Metadata =
        serde_json::from_slice(&bytes[8..]).map_err(|error| malformed(error.to_string()))?;
    let expected_bytes = end + metadata.data_len() as u64;
    if expected_bytes > size {
        return Err(ModelError::Truncated { path: path.into(), expected_bytes, got_bytes: size });
    }
    let entry = |(name, info): (String, &TensorInfo)| {
        let (start, stop) = info.data_offsets;
        let (dtype, shape) = (info.dtype, info.shape.clone());
        (name, Entry { file, dtype, shape, offset: end + start as u64, bytes: stop - start })
    };
    Ok(metadata.tensors().into_iter().map(entry).collect())
}

/// Turns little-endian F32, F16 or BF16 into `f32`; false for another type.
pub(crate) fn widen(dtype: Dtype, bytes: &[u8], out: &mut [f32]) -> bool {
    let mut fill = |values: &mut dyn Iterator<Item = f32>| {
        out.iter_mut().zip(values).for_each(|(o, v)| *o = v);
        true
    };
    let (words, _) = bytes.as_chunks::<4>();
    let (halves, _) = bytes.as_chunks::<2>();
    match dtype {
        Dtype::F32 => fill(&mut words.iter().map(|b| f32::from_le_bytes(*b))),
        Dtype::F16 => fill(&mut halves.iter().map(|b| half::f16::from_le_bytes(*b).to_f32())),
        Dtype::BF16 => fill(&mut halves.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32())),
        _ => false,
    }
}

pub(crate) fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, ModelError> {
    serde_json::from_slice(&fs_err::read(path)?)
        .map_err(|source| ModelError::Json { path: path.into(), source })
}
