//! A backend in memory, honest or not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use assay_index::{
    Among, BackendDocument, BackendError, Collection, DocumentKey, Mark, Near, Query, SearchMode,
    VectorBackend,
};

use crate::contract::{self, Make};
use crate::support::{Draw, MODES, Project};

#[derive(Default)]
struct Held {
    of: Option<Collection>,
    mark: Option<Mark>,
    keys: HashMap<i64, DocumentKey>,
    /// Document and vector of each chunk.
    chunks: HashMap<i64, (i64, Vec<f32>)>,
}

#[derive(Default)]
pub(crate) struct Memory {
    collections: Mutex<HashMap<String, Held>>,
    /// Answers with what it should not, from the seed.
    lies: Option<u64>,
    approximate: bool,
}

impl Memory {
    fn with<T>(&self, of: &Collection, body: impl FnOnce(&mut Held) -> T) -> T {
        body(self.collections.lock().unwrap().entry(of.name.clone()).or_default())
    }
}

impl VectorBackend for Memory {
    fn server(&self) -> &str {
        "memory"
    }

    fn is_approximate(&self) -> bool {
        self.approximate
    }

    fn open(&self, of: &Collection) -> Result<Option<Mark>, BackendError> {
        self.with(of, |held| {
            let known = held.of.get_or_insert_with(|| of.clone());
            if known != of {
                return Err(BackendError::Mismatch {
                    server: "memory".into(),
                    collection: of.name.clone(),
                    found: format!("{} values of {}", known.dims, known.embedder),
                    expected: format!("{} values of {}", of.dims, of.embedder),
                });
            }
            Ok(held.mark)
        })
    }

    fn clear(&self, of: &Collection) -> Result<(), BackendError> {
        self.with(of, |held| *held = Held::default());
        Ok(())
    }

    fn documents(
        &self,
        of: &Collection,
        ids: Option<&[i64]>,
    ) -> Result<HashMap<i64, DocumentKey>, BackendError> {
        let asked = |id: &i64| ids.is_none_or(|ids| ids.contains(id));
        Ok(self
            .with(of, |held| held.keys.clone().into_iter().filter(|(id, _)| asked(id)).collect()))
    }

    fn put(&self, of: &Collection, documents: &[BackendDocument]) -> Result<(), BackendError> {
        self.with(of, |held| {
            for d in documents {
                let replaced = |chunk: &i64, owner: i64| owner == d.id || d.chunks.contains(chunk);
                for (_, (owner, _)) in held.chunks.iter().filter(|(c, (o, _))| replaced(c, *o)) {
                    held.keys.remove(owner);
                }
                held.chunks.retain(|chunk, (owner, _)| !replaced(chunk, *owner));
                held.keys.insert(d.id, d.key);
                let rows = d.vectors.chunks_exact(of.dims);
                held.chunks
                    .extend(d.chunks.iter().zip(rows).map(|(c, row)| (*c, (d.id, row.to_vec()))));
            }
        });
        Ok(())
    }

    fn remove(&self, of: &Collection, documents: &[i64]) -> Result<(), BackendError> {
        self.with(of, |held| {
            held.keys.retain(|id, _| !documents.contains(id));
            held.chunks.retain(|_, (id, _)| !documents.contains(id));
        });
        Ok(())
    }

    fn set_mark(&self, of: &Collection, mark: Mark) -> Result<(), BackendError> {
        self.with(of, |held| held.mark = Some(mark));
        Ok(())
    }

    fn search(
        &self,
        of: &Collection,
        query: &[f32],
        n: usize,
        among: Among<'_>,
        exact: bool,
    ) -> Result<Vec<Near>, BackendError> {
        let fits = |id: i64| match among {
            Among::All => true,
            Among::Only(ids) => ids.contains(&id),
            Among::Except(ids) => !ids.contains(&id),
        };
        let dot = |row: &[f32]| row.iter().zip(query).map(|(a, b)| a * b).sum();
        let mut near: Vec<Near> = self.with(of, |held| {
            let chunks = held.chunks.iter().filter(|(_, (id, _))| fits(*id) || self.lies.is_some());
            chunks.map(|(&chunk, (_, row))| Near { chunk, similarity: dot(row) }).collect()
        });
        near.sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
        if self.approximate && !exact {
            // Misses every other one.
            near = near.into_iter().step_by(2).collect();
        }
        near.truncate(n);
        if let Some(seed) = self.lies {
            let mut draw = Draw(seed ^ near.len() as u64);
            for near in &mut near {
                match draw.below(4) {
                    0 => near.chunk = draw.below(60) as i64,
                    1 => near.similarity = draw.of(&[f32::NAN, f32::INFINITY, -7.0, 7.0]),
                    _ => {}
                }
            }
        }
        Ok(near)
    }
}

#[test]
fn memory_holds_the_contract() {
    let memory = Arc::new(Memory::default());
    contract::holds(&|| -> Make { Some(memory.clone()) });
}

#[test]
fn segments_hold_the_contract() {
    contract::holds(&|| -> Make { None });
}

/// Whatever a server answers, a hit is a chunk that the viewer may find, each once, with its own score.
#[test]
fn a_lying_server_can_only_hide() {
    for seed in 0..30 {
        let project = Project::new();
        let mut draw = Draw(seed);
        let known = contract::folder(&project, &mut draw);
        let here = project.ingested(None);
        let lying = Memory { lies: Some(seed), ..Memory::default() };
        let there = project.ingested(Some(Arc::new(lying)));
        for _ in 0..20 {
            let question = contract::Question::draw(&mut draw);
            for mode in MODES {
                let (Ok(all), Ok(hits)) =
                    (question.ask(&here, mode, usize::MAX), question.ask(&there, mode, 5))
                else {
                    continue;
                };
                for hit in &hits {
                    assert!(question.sees(&known[&hit.document]), "seed {seed}: {hit:?}");
                    let own = all.iter().find(|other| other.chunk_id == hit.chunk_id);
                    let own = own.unwrap_or_else(|| panic!("seed {seed}: {mode:?} {hit:?}"));
                    if mode == SearchMode::Vector {
                        assert_eq!(own.score, hit.score, "seed {seed}");
                    }
                    assert_eq!(hits.iter().filter(|h| h.chunk_id == hit.chunk_id).count(), 1);
                }
            }
        }
    }
}

/// What an approximate search finds is counted against an exact one, and one that comes short is made up for.
#[test]
fn approximate_searches_are_audited() {
    let project = Project::new();
    let mut draw = Draw(5);
    for n in 0..40 {
        project.write(&format!("{n:02}.txt"), &draw.words(9));
    }
    let there = Memory { approximate: true, ..Memory::default() };
    let index = project.ingested(Some(Arc::new(there)));
    assert_eq!(index.recall().and_then(|r| r.share()), None);
    for _ in 0..65 {
        let query = draw.words(3);
        let hits = index.search(&Query::new(&query, 40, SearchMode::Vector)).unwrap().hits;
        assert_eq!(hits.len(), 40);
    }
    let recall = index.recall().unwrap();
    // The first search and the 65th; of the first ten, every other one.
    assert_eq!((recall.searches, recall.found, recall.expected), (2, 10, 20));
    let checked = index.check_backend(10).unwrap().unwrap();
    assert_eq!((checked.documents, checked.missing, checked.unknown), (40, 0, 0));
    assert_eq!(checked.recall.unwrap().share(), Some(0.5));
    assert_eq!(project.ingested(None).check_backend(10).unwrap(), None);
}
