//! The BM25 projection: a tantivy index of one segment whose n-th document is the n-th chunk.
//!
//! It is never updated. A changed set of chunks gets a new folder, built aside and renamed into place, named
//! by the snapshot it was made from: a folder that exists under the right name is complete and current, and
//! its statistics know no deleted documents. A damaged one is built again.
//!
//! The score is Lucene's BM25 with k1 = 1.2 and b = 0.75, which tantivy fixes, over Unicode words, lower-cased,
//! without English stop words, stemmed by the English Snowball stemmer. A query is the disjunction of its
//! words.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use fs_err as fs;
use tantivy::collector::{Collector, SegmentCollector};
use tantivy::query::{BooleanQuery, Occur, Query, TermQuery};
use tantivy::schema::{
    Field, IndexRecordOption, Schema, TantivyDocument, TextFieldIndexing, TextOptions,
};
use tantivy::tokenizer::{
    Language, LowerCaser, RemoveLongFilter, SimpleTokenizer, Stemmer, StopWordFilter, TextAnalyzer,
};
use tantivy::{DocId, ReloadPolicy, Score, Searcher, SegmentReader, TantivyError, Term};

use crate::IndexError;

/// Changes with the analysis or tantivy's format.
const VERSION: u32 = 1;
const ANALYZER: &str = "assay-english";
/// Longer words are not words: encoded data, paths, hashes.
const MAX_WORD_BYTES: usize = 100;
/// Sizes the term table; the segment may grow beyond it.
const WRITER_BYTES: usize = 32 << 20;

pub(crate) struct Lexical {
    dir: PathBuf,
    searcher: Searcher,
    body: Field,
}

impl Lexical {
    /// Opens the projection of `snapshot` under `parent`, or builds it from the chunks' texts, document by document.
    /// Projections of other snapshots are removed.
    pub(crate) fn open(
        parent: &Path,
        snapshot: &str,
        chunks: usize,
        texts: impl Iterator<Item = Result<Vec<String>, IndexError>>,
    ) -> Result<Self, IndexError> {
        let name = Self::name(snapshot);
        let dir = parent.join(&name);
        if let Some(lexical) = Self::open_existing(&dir, chunks) {
            return Ok(lexical);
        }
        let aside = parent.join(format!("{name}.{}.tmp", std::process::id()));
        remove(&aside)?;
        fs::create_dir_all(&aside)?;
        build(&aside, texts)?;
        remove(&dir)?;
        if let Err(error) = fs::rename(&aside, &dir) {
            // Another process was faster.
            if !dir.is_dir() {
                return Err(error.into());
            }
            remove(&aside)?;
        }
        for entry in fs::read_dir(parent)? {
            let path = entry?.path();
            let other = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("bm25-"));
            if other && path != dir {
                // Another process may be removing it too.
                let _ = fs::remove_dir_all(&path);
            }
        }
        Self::open_existing(&dir, chunks).ok_or_else(|| IndexError::Damaged {
            path: dir,
            what: "the BM25 index cannot be read back".into(),
        })
    }

    fn name(snapshot: &str) -> String {
        format!("bm25-{VERSION}-{}", &snapshot[..32])
    }

    /// Whether the projection of `snapshot` is there and whole; `None` if it is not there.
    pub(crate) fn is_whole(parent: &Path, snapshot: &str, chunks: usize) -> Option<bool> {
        let dir = parent.join(Self::name(snapshot));
        dir.is_dir().then(|| Self::open_existing(&dir, chunks).is_some())
    }

    /// The index in `dir`, if it is there, whole, and of the right size.
    fn open_existing(dir: &Path, chunks: usize) -> Option<Self> {
        if !dir.is_dir() {
            return None;
        }
        let open = || -> tantivy::Result<Self> {
            let index = tantivy::Index::open_in_dir(dir)?;
            // Before anything else is read of it: tantivy panics on what it does not expect.
            if !index.validate_checksum()?.is_empty() {
                return Err(TantivyError::InternalError("damaged".into()));
            }
            let body = index.schema().get_field("body")?;
            index.tokenizers().register(ANALYZER, analyzer());
            let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
            let searcher = reader.searcher();
            let single = chunks == 0 || searcher.segment_readers().len() == 1;
            if !single || searcher.num_docs() != chunks as u64 {
                return Err(TantivyError::InternalError("damaged".into()));
            }
            Ok(Lexical { dir: dir.to_owned(), searcher, body })
        };
        // The checksums do not cover the list of files.
        std::panic::catch_unwind(AssertUnwindSafe(open)).ok()?.ok()
    }

    /// Number and score of every chunk that has a word of the query, in chunk order. Scores are above 0.
    pub(crate) fn scores(&self, query: &str) -> Result<Vec<(u32, f32)>, IndexError> {
        let mut clauses: Vec<(Occur, Box<dyn Query>)> = Vec::new();
        analyzer().token_stream(query).process(&mut |token| {
            let term = Term::from_field_text(self.body, &token.text);
            clauses.push((
                Occur::Should,
                Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs)),
            ));
        });
        if clauses.is_empty() {
            return Ok(Vec::new());
        }
        self.searcher
            .search(&BooleanQuery::new(clauses), &Everything)
            .map_err(|source| IndexError::Lexical { path: self.dir.clone(), source })
    }
}

fn analyzer() -> TextAnalyzer {
    let builder = TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(MAX_WORD_BYTES))
        .filter(LowerCaser);
    match StopWordFilter::new(Language::English) {
        Some(stop_words) => {
            builder.filter(stop_words).filter(Stemmer::new(Language::English)).build()
        }
        None => builder.filter(Stemmer::new(Language::English)).build(),
    }
}

fn build(
    dir: &Path,
    texts: impl Iterator<Item = Result<Vec<String>, IndexError>>,
) -> Result<(), IndexError> {
    let failed = |source: TantivyError| IndexError::Lexical { path: dir.to_owned(), source };
    let mut schema = Schema::builder();
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(ANALYZER)
        .set_index_option(IndexRecordOption::WithFreqs);
    let body = schema.add_text_field("body", TextOptions::default().set_indexing_options(indexing));
    let tokenizers = tantivy::tokenizer::TokenizerManager::new();
    tokenizers.register(ANALYZER, analyzer());
    let directory = tantivy::directory::MmapDirectory::open(dir).map_err(|e| failed(e.into()))?;
    let mut writer = tantivy::Index::builder()
        .schema(schema.build())
        .tokenizers(tokenizers)
        .single_segment_index_writer::<TantivyDocument>(directory, WRITER_BYTES)
        .map_err(failed)?;
    for document in texts {
        for text in document? {
            let mut chunk = TantivyDocument::default();
            chunk.add_text(body, text);
            writer.add_document(chunk).map_err(failed)?;
        }
    }
    writer.finalize().map_err(failed)?;
    Ok(())
}

fn remove(dir: &Path) -> Result<(), IndexError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Collects every match: fusion needs all scores, and adding up all words in the same order gives equal
/// chunks equal scores, which pruning does not.
struct Everything;

impl Collector for Everything {
    type Fruit = Vec<(u32, f32)>;
    type Child = EverythingInSegment;

    fn for_segment(&self, _: u32, _: &SegmentReader) -> tantivy::Result<EverythingInSegment> {
        Ok(EverythingInSegment(Vec::new()))
    }

    fn requires_scoring(&self) -> bool {
        true
    }

    fn merge_fruits(&self, fruits: Vec<Vec<(u32, f32)>>) -> tantivy::Result<Vec<(u32, f32)>> {
        Ok(fruits.concat())
    }
}

struct EverythingInSegment(Vec<(u32, f32)>);

impl SegmentCollector for EverythingInSegment {
    type Fruit = Vec<(u32, f32)>;

    fn collect(&mut self, doc: DocId, score: Score) {
        self.0.push((doc, score));
    }

    fn harvest(self) -> Vec<(u32, f32)> {
        self.0
    }
}
