//! kill -9 while ingesting, in a process of its own.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use assay_index::{Embed, EmbedError, Index, IndexConfig, SearchMode};
use fs_err as fs;

use crate::support::{Project, Words, ingest, search};

const FOLDER: &str = "ASSAY_INDEX_TEST_KILLED";
const FILES: usize = 300;

/// [`Words`], slow enough to be killed at work.
struct Slow(Arc<Words>);

impl Embed for Slow {
    fn id(&self) -> &str {
        self.0.id()
    }

    fn dims(&self) -> usize {
        self.0.dims()
    }

    fn max_tokens(&self) -> usize {
        self.0.max_tokens()
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.0.count_tokens(text)
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        std::thread::sleep(Duration::from_millis(30));
        self.0.embed(texts)
    }
}

fn config() -> IndexConfig {
    IndexConfig { chunk_tokens: 24, ..IndexConfig::default() }
}

#[test]
#[ignore = "the process that `a_killed_ingest_goes_on` starts and kills"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let slow = Arc::new(Slow(Words::new("words")));
    let mut index = Index::open(&folder.join("index"), slow, config()).unwrap();
    let mut progress = fs::File::create(folder.join("progress")).unwrap();
    index
        .ingest(&folder.join("docs"), &mut |_| {
            progress.write_all(b".").unwrap();
            ControlFlow::Continue(())
        })
        .unwrap();
}

#[test]
fn a_killed_ingest_goes_on() {
    let files: Vec<(String, String)> = (0..FILES)
        .map(|i| (format!("{i:03}.txt"), format!("number{i} lamp{} door{}", i % 7, i % 11)))
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
    let (project, clean) = (Project::new(&files), Project::new(&files));

    // In the first batches, between batches and documents, and while reading again.
    for calls in [258, 3, 259] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::child", "--ignored"])
            .env(FOLDER, project.dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let progress = project.dir.path().join("progress");
        // On a busy machine it may end before it is killed, which is no less a state to go on from.
        while fs::metadata(&progress).map_or(0, |m| m.len()) < calls
            && child.try_wait().unwrap().is_none()
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_file(&progress).unwrap();
        // What is there can be searched at any time.
        let index = project.open();
        assert!(search(&index, "lamp1", 99, SearchMode::Hybrid).len() <= FILES);
    }
    let mut index = project.open();
    let report = ingest(&mut index, &project.docs()).unwrap();
    assert!(report.embeddings_computed < FILES, "what was committed is kept");
    let expected = clean.ingested();
    assert_eq!(index.snapshot_hash(), expected.snapshot_hash());
    for query in ["number7 door3", "lamp5"] {
        let all = |index| search(index, query, FILES, SearchMode::Hybrid);
        assert_eq!(all(&index), all(&expected));
    }
}
