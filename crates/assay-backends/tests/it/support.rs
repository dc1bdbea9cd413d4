//! A folder, indexes of it here and on a server, and an embedder without weights.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use assay_index::{
    Embed, EmbedError, Hit, Index, IndexConfig, IndexError, Query, SearchMode, VectorBackend,
};
use fs_err as fs;
use tempfile::TempDir;

pub(crate) const MODES: [SearchMode; 4] =
    [SearchMode::Vector, SearchMode::Hybrid, SearchMode::Reciprocal, SearchMode::Bm25];

/// Counts hashed words: texts that share words are similar.
pub(crate) struct Words {
    pub(crate) id: &'static str,
    pub(crate) dims: usize,
}

pub(crate) const WORDS: Words = Words { id: "words", dims: 24 };

impl Words {
    pub(crate) fn vector(&self, text: &str) -> Vec<f32> {
        let mut vector = vec![0.01f32; self.dims];
        for word in text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()) {
            for byte in &blake3::hash(word.to_lowercase().as_bytes()).as_bytes()[..2] {
                vector[usize::from(*byte) % self.dims] += 1.0;
            }
        }
        let norm = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
        vector.iter().map(|v| v / norm).collect()
    }
}

impl Embed for Words {
    fn id(&self) -> &str {
        self.id
    }

    fn dims(&self) -> usize {
        self.dims
    }

    fn max_tokens(&self) -> usize {
        64
    }

    fn count_tokens(&self, text: &str) -> usize {
        text.split_whitespace().count()
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        Ok(texts.iter().map(|text| self.vector(text)).collect())
    }
}

/// SplitMix64: Steele, Lea, Flood, Fast splittable pseudorandom number generators, 2014.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    pub(crate) fn words(&mut self, n: usize) -> String {
        const WORDS: &[&str] =
            &["lamp", "red", "door", "blue", "key", "tree", "cat", "stone", "river", "milk", "cup"];
        (0..n).map(|_| self.of(WORDS)).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn unit(&mut self, dims: usize) -> Vec<f32> {
        let values: Vec<f32> = (0..dims).map(|_| self.below(2001) as f32 - 1000.0).collect();
        let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt().max(1.0);
        values.into_iter().map(|v| v / norm).collect()
    }
}

pub(crate) struct Project {
    pub(crate) dir: TempDir,
}

impl Project {
    pub(crate) fn new() -> Self {
        let project = Project { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(project.docs()).unwrap();
        project
    }

    pub(crate) fn docs(&self) -> PathBuf {
        self.dir.path().join("docs")
    }

    /// The state of the index with its vectors here, or on a server.
    pub(crate) fn state(&self, there: bool) -> PathBuf {
        self.dir.path().join(if there { "there" } else { "here" })
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        fs::write(self.docs().join(path), text).unwrap();
    }

    pub(crate) fn open(
        &self,
        backend: Option<Arc<dyn VectorBackend>>,
    ) -> Result<Index, IndexError> {
        self.open_with(WORDS, backend)
    }

    pub(crate) fn open_with(
        &self,
        embedder: Words,
        backend: Option<Arc<dyn VectorBackend>>,
    ) -> Result<Index, IndexError> {
        let (state, embedder) = (self.state(backend.is_some()), Arc::new(embedder));
        let config = IndexConfig { chunk_tokens: 24, ..IndexConfig::default() };
        match backend {
            None => Index::open(&state, embedder, config),
            Some(backend) => Index::open_on(backend, &state, embedder, config, &mut |_, _| {
                ControlFlow::Continue(())
            }),
        }
    }

    /// Opens and ingests.
    pub(crate) fn ingested(&self, backend: Option<Arc<dyn VectorBackend>>) -> Index {
        let mut index = self.open(backend).unwrap();
        ingest(&mut index, self).unwrap();
        index
    }
}

pub(crate) fn ingest(index: &mut Index, project: &Project) -> Result<(), IndexError> {
    index.ingest(&project.docs(), &mut |_| ControlFlow::Continue(())).map(|_| ())
}

pub(crate) fn search(index: &Index, text: &str, k: usize, mode: SearchMode) -> Vec<Hit> {
    index.search(&Query::new(text, k, mode)).unwrap().hits
}
