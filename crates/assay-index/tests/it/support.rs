//! A folder, an index of it, and an embedder without weights.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use assay_index::{
    Embed, EmbedError, Hit, Index, IndexConfig, IndexError, IngestReport, Query, SearchMode,
};
use fs_err as fs;
use tempfile::TempDir;

pub(crate) const DIMS: usize = 32;

/// Counts hashed words: texts that share words are similar. Each word adds to two of the dimensions.
pub(crate) struct Words {
    pub(crate) id: &'static str,
    pub(crate) embedded: AtomicUsize,
}

impl Words {
    pub(crate) fn new(id: &'static str) -> Arc<Self> {
        Arc::new(Words { id, embedded: AtomicUsize::new(0) })
    }

    pub(crate) fn vector(text: &str) -> Vec<f32> {
        let mut vector = [0.01f32; DIMS];
        for word in text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()) {
            let hash = blake3::hash(word.to_lowercase().as_bytes());
            for byte in &hash.as_bytes()[..2] {
                vector[usize::from(*byte) % DIMS] += 1.0;
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
        DIMS
    }

    fn max_tokens(&self) -> usize {
        64
    }

    fn count_tokens(&self, text: &str) -> usize {
        text.split_whitespace().count()
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.embedded.fetch_add(texts.len(), Ordering::Relaxed);
        Ok(texts.iter().map(|text| Words::vector(text)).collect())
    }
}

pub(crate) struct Project {
    pub(crate) dir: TempDir,
}

impl Project {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let project = Project { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(project.docs()).unwrap();
        for (path, text) in files {
            project.write(path, text);
        }
        project
    }

    pub(crate) fn docs(&self) -> PathBuf {
        self.dir.path().join("docs")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("index")
    }

    pub(crate) fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.docs().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(crate) fn remove(&self, path: &str) {
        fs::remove_file(self.docs().join(path)).unwrap();
    }

    pub(crate) fn open(&self) -> Index {
        self.open_with(Words::new("words"), 24).unwrap()
    }

    pub(crate) fn open_with(
        &self,
        embedder: Arc<Words>,
        chunk_tokens: usize,
    ) -> Result<Index, IndexError> {
        let config =
            IndexConfig { chunk_tokens, max_file_bytes: 100_000, ..IndexConfig::default() };
        Index::open(&self.state(), embedder, config)
    }

    pub(crate) fn ingest(&self, index: &mut Index) -> IngestReport {
        ingest(index, &self.docs()).unwrap()
    }

    /// A new index of the folder.
    pub(crate) fn ingested(&self) -> Index {
        let mut index = self.open();
        self.ingest(&mut index);
        index
    }
}

pub(crate) fn ingest(index: &mut Index, folder: &Path) -> Result<IngestReport, IndexError> {
    index.ingest(folder, &mut |_| ControlFlow::Continue(()))
}

pub(crate) fn search(index: &Index, query: &str, k: usize, mode: SearchMode) -> Vec<Hit> {
    index.search(&Query::new(query, k, mode)).unwrap().hits
}

/// `path: outcome` of each file.
pub(crate) fn ledger(report: &IngestReport) -> Vec<String> {
    assert_eq!(report.ledger.len(), report.files);
    report.ledger.iter().map(|e| format!("{}: {}", e.path, e.outcome)).collect()
}
