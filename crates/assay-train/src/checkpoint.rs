//! Where a run stands, on disk: written whole or not at all, checked when read, the last two kept.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::trainer::State;
use crate::{TrainError, learner::Learner};

/// Format and version of the file.
const MAGIC: &[u8; 8] = b"assayck1";
const HASH: usize = blake3::OUT_LEN;
/// A damaged newest file must leave one to fall back to.
const KEPT: usize = 2;

/// Where and how often a run is saved.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    /// Folder of this run alone; made if missing.
    pub dir: PathBuf,
    /// Time between two checkpoints. One is also written after each epoch and when the observer
    /// stops.
    pub every: Duration,
}

/// What a run is a function of, as hashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub settings: String,
    pub training_rows: String,
    pub dev_rows: String,
    pub base_model: String,
    pub chat_template: String,
}

impl Identity {
    fn differs(&self, other: &Identity) -> Vec<&'static str> {
        [
            ("settings", &self.settings, &other.settings),
            ("training rows", &self.training_rows, &other.training_rows),
            ("dev rows", &self.dev_rows, &other.dev_rows),
            ("base model", &self.base_model, &other.base_model),
            ("chat template", &self.chat_template, &other.chat_template),
        ]
        .into_iter()
        .filter_map(|(name, a, b)| (a != b).then_some(name))
        .collect()
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    identity: Identity,
    state: State,
    parameters: usize,
    has_best: bool,
}

/// Everything that a resumed run needs beyond its settings and rows.
pub(crate) struct Saved {
    pub state: State,
    pub weights: Vec<f32>,
    pub m: Vec<f32>,
    pub v: Vec<f32>,
    /// Weights of the best epoch so far.
    pub best: Option<Vec<f32>>,
}

impl Checkpoints {
    /// Writes the checkpoint of `state.step` and drops all but the last two.
    pub(crate) fn write(
        &self,
        identity: &Identity,
        state: &State,
        learner: &Learner,
        best: Option<&[f32]>,
    ) -> Result<PathBuf, TrainError> {
        fs::create_dir_all(&self.dir)?;
        let header = Header {
            identity: identity.clone(),
            state: state.clone(),
            parameters: learner.m.len(),
            has_best: best.is_some(),
        };
        let header = serde_json::to_vec(&header).map_err(std::io::Error::from)?;
        let length = (header.len() as u64).to_le_bytes();
        let weights = learner.adapter.parameters();
        let arrays = [weights, &learner.m, &learner.v].into_iter().chain(best);
        let parts: Vec<&[u8]> = [&length[..], &header]
            .into_iter()
            .chain(arrays.map(bytemuck::cast_slice::<f32, u8>))
            .collect();

        let mut hasher = blake3::Hasher::new();
        parts.iter().for_each(|p| {
            hasher.update(p);
        });
        // One name for all: what a killed run leaves behind is overwritten by the next.
        let partial = self.dir.join("partial");
        let mut file = fs::File::create(&partial)?;
        file.write_all(MAGIC)?;
        file.write_all(hasher.finalize().as_bytes())?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()?;
        let path = self.dir.join(format!("step-{:09}.checkpoint", state.step));
        fs::rename(&partial, &path)?;
        sync_folder(&self.dir)?;
        for old in self.files()?.iter().rev().skip(KEPT) {
            fs::remove_file(old)?;
        }
        Ok(path)
    }

    /// The newest readable checkpoint, or `None` where there is none.
    ///
    /// A damaged file is passed over: losing some steps is better than losing the run, and what is
    /// resumed is exact either way.
    pub(crate) fn read(&self, identity: &Identity) -> Result<Option<Saved>, TrainError> {
        for path in self.files()?.iter().rev() {
            let Some((header, arrays)) = parse(&fs::read(path)?) else { continue };
            let differs = header.identity.differs(identity);
            if !differs.is_empty() {
                return Err(TrainError::ForeignCheckpoint { path: path.clone(), differs });
            }
            let mut arrays = arrays.into_iter();
            let mut next = || arrays.next().unwrap_or_default();
            let (weights, m, v) = (next(), next(), next());
            let best = header.has_best.then(next);
            return Ok(Some(Saved { state: header.state, weights, m, v, best }));
        }
        Ok(None)
    }

    /// Checkpoints by step, ascending.
    fn files(&self) -> Result<Vec<PathBuf>, TrainError> {
        if !self.dir.exists() {
            return Ok(vec![]);
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "checkpoint") {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }
}

/// Header and arrays, or `None` if the file is not whole.
fn parse(bytes: &[u8]) -> Option<(Header, Vec<Vec<f32>>)> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (hash, rest) = rest.split_at_checked(HASH)?;
    if blake3::hash(rest).as_bytes() != hash {
        return None;
    }
    let (length, rest) = rest.split_first_chunk::<8>()?;
    let (header, rest) =
        rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let header: Header = serde_json::from_slice(header).ok()?;
    let arrays = 3 + usize::from(header.has_best);
    if rest.len() != arrays * header.parameters * size_of::<f32>() {
        return None;
    }
    let (words, _) = rest.as_chunks::<4>();
    let values: Vec<f32> = words.iter().map(|w| f32::from_ne_bytes(*w)).collect();
    Some((header, values.chunks(values.len() / arrays).map(<[f32]>::to_vec).collect()))
}

/// Makes a rename in `dir` durable, where the platform can.
fn sync_folder(dir: &Path) -> Result<(), TrainError> {
    if cfg!(unix) {
        fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}
