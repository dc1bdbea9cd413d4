//! The files of a model folder, and their hash.

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::error::EncoderError;
use crate::fetch::hex;

/// A folder whose files are hashed as they are read.
pub(super) struct Files<'a> {
    pub(super) dir: &'a Path,
    hasher: Sha256,
}

impl<'a> Files<'a> {
    pub(super) fn new(dir: &'a Path) -> Self {
        Files { dir, hasher: Sha256::new() }
    }

    pub(super) fn read(&mut self, name: &str) -> Result<Vec<u8>, EncoderError> {
        let bytes = fs::read(self.dir.join(name))?;
        self.hasher.update(format!("{name} {}\n", bytes.len()));
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    /// A JSON file that has to be there.
    pub(super) fn json<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, EncoderError> {
        parse(self.dir.join(name), &self.read(name)?)
    }

    /// A JSON file, or nothing if there is none.
    pub(super) fn json_if_any<T: DeserializeOwned>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, EncoderError> {
        if self.dir.join(name).is_file() { self.json(name).map(Some) } else { Ok(None) }
    }

    /// A JSON file of which only a part matters; not hashed, so that the rest of it changes nothing.
    pub(super) fn peek<T: DeserializeOwned + Default>(
        &self,
        name: &str,
    ) -> Result<T, EncoderError> {
        let path = self.dir.join(name);
        if path.is_file() { parse(path.clone(), &fs::read(&path)?) } else { Ok(T::default()) }
    }

    /// Lower-case hexadecimal sha256 of all that was read.
    pub(super) fn hash(self) -> String {
        hex(self.hasher.finalize())
    }
}

fn parse<T: DeserializeOwned>(path: PathBuf, bytes: &[u8]) -> Result<T, EncoderError> {
    serde_json::from_slice(bytes).map_err(|error| EncoderError::Json { path, error })
}
