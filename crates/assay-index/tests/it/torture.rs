//! The delete guarantee, under everything that can go wrong.
//!
//! Two processes have the same index open and ingest, delete, restore, change access and search, in an order drawn
//! from a seed. They are killed (SIGKILL) at random moments; some live under a limit on the size of files, at
//! which every write fails as on a full disk; between two lives, files of the projections are damaged. This
//! process keeps a model of what was acknowledged. It proves of every search that nothing deleted, forbidden
//! or outside the filter came back and that nothing was missing, and after every life that no acknowledged
//! write is lost.
//!
//! A short run belongs to the tests. A long one:
//!
//!     ASSAY_TORTURE_OPERATIONS=1000000 ASSAY_TORTURE_SEED=1 \
//!         cargo test --release -p assay-index --test it torture -- --nocapture
//!
//! `TMPDIR` says where; without a disk behind it, it is much quicker.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::ControlFlow;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use assay_index::{Filter, Index, IndexConfig, Properties, Query, SearchMode, Viewer};
use fs_err as fs;
use serde_json::{Value, json};

use crate::support::Words;

const FOLDER: &str = "ASSAY_TORTURE_FOLDER";
const OPERATIONS: &str = "ASSAY_TORTURE_OPERATIONS";
const SEED: &str = "ASSAY_TORTURE_SEED";

const PATHS: &[&str] = &["a.md", "b.md", "c.txt", "d/a.md", "d/b.txt", "e.md", "f.txt", "g.md"];
const WORDS: &[&str] = &["lamp", "red", "door", "blue", "key", "tree"];
const PRINCIPALS: &[&str] = &["anna", "bert", "staff"];
const TENANTS: &[&str] = &["x", "y"];
const FILTERS: &[&str] =
    &["year >= 2021", "year = 2020 or year = 2022", "not year < 2022", "year in [2021]"];
/// Blocks of 512 bytes; a database, its log or a projection that would become larger is a full disk.
const LIMITS: std::ops::Range<u64> = 60..3000;

// ---- the process that has the index open

fn config() -> IndexConfig {
    IndexConfig { chunk_tokens: 24, ..IndexConfig::default() }
}

#[test]
#[ignore = "the process that `nothing_deleted_comes_back` starts and kills"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = PathBuf::from(folder);
    let mut socket = UnixStream::connect(folder.join("socket")).unwrap();
    let mut orders = BufReader::new(socket.try_clone().unwrap());
    let open = || Index::open(&folder.join("index"), Words::new("words"), config());
    let mut tell = |reply: Value| writeln!(socket, "{reply}").is_ok();
    let mut index = match open() {
        Ok(index) => index,
        Err(error) => {
            tell(json!({ "error": error.to_string() }));
            return;
        }
    };
    if !tell(json!({ "ok": null })) {
        return;
    }
    let mut line = String::new();
    while orders.read_line(&mut line).is_ok_and(|n| n > 0) {
        let order: Value = serde_json::from_str(&line).unwrap();
        let reply = match obey(&mut index, &folder, &order) {
            Ok(done) => json!({ "ok": done }),
            Err(error) => json!({ "error": format!("{error:#}") }),
        };
        if !tell(reply) {
            return;
        }
        line.clear();
    }
}

fn obey(index: &mut Index, folder: &Path, order: &Value) -> anyhow::Result<Value> {
    let text = |key: &str| order[key].as_str().unwrap_or_default();
    let names =
        |key: &str| -> Option<Vec<String>> { serde_json::from_value(order[key].clone()).unwrap() };
    let paths = [text("path")];
    match text("do") {
        "ingest" => {
            index.ingest(&folder.join("docs"), &mut |_| ControlFlow::Continue(()))?;
        }
        "delete" => index.corpus().delete(&paths)?,
        "restore" => index.corpus().restore(&paths).map(|_| ())?,
        "allow" => index.corpus().set_access(&paths, names("allow").as_deref())?,
        "reset" => index.corpus().reset_access(&paths)?,
        "rebuild" => index.rebuild()?,
        "snapshot" => return Ok(serde_json::to_value(index.corpus().snapshot()?)?),
        "verify" => return Ok(serde_json::to_value(index.corpus().verify()?)?),
        "search" => {
            let principals = names("principals").unwrap_or_default();
            let filter = order["filter"].as_str().map(Filter::parse).transpose()?;
            let query = Query {
                filter: filter.as_ref(),
                viewer: Viewer { principals: &principals, tenant: order["tenant"].as_str() },
                ..Query::new(
                    text("text"),
                    order["k"].as_u64().unwrap() as usize,
                    mode(text("mode")),
                )
            };
            let hits = match index.search(&query) {
                // No document that is seen has a year just now.
                Err(assay_index::IndexError::Filter(_)) => return Ok(Value::Null),
                other => other?.hits,
            };
            return Ok(hits.into_iter().map(|h| json!([h.document, h.text])).collect());
        }
        other => anyhow::bail!("what is {other:?}?"),
    }
    Ok(Value::Null)
}

fn mode(name: &str) -> SearchMode {
    match name {
        "bm25" => SearchMode::Bm25,
        "vector" => SearchMode::Vector,
        _ => SearchMode::Hybrid,
    }
}

// ---- what must be true

/// What may be stored under a path.
#[derive(Clone, Debug, Default, PartialEq)]
struct Stored {
    /// The document, and which of those that ever were under this path.
    present: Option<(String, u64)>,
    /// What the folder said of it when it was last ingested.
    said: Properties,
    /// Access that was set by hand.
    by_hand: Option<Option<Vec<String>>>,
    deleted: Vec<String>,
}

impl Stored {
    fn properties(&self) -> Properties {
        let allow = self.by_hand.clone().unwrap_or_else(|| self.said.allow.clone());
        Properties { allow, ..self.said.clone() }
    }

    /// Whether a search may return `text` of this document.
    fn may_be_hit(&self, text: &str, viewer: Viewer<'_>, filter: Option<&Filter>) -> bool {
        let properties = self.properties();
        self.present.as_ref().is_some_and(|(present, _)| present == text)
            && viewer.sees(&properties)
            && filter.is_none_or(|f| f.matches(&properties.metadata).unwrap())
    }
}

/// What the folder says now.
#[derive(Default)]
struct Folder {
    files: BTreeMap<&'static str, String>,
    said: BTreeMap<&'static str, Properties>,
}

struct Life {
    process: Child,
    socket: UnixStream,
    replies: BufReader<UnixStream>,
    limited: bool,
    /// Which documents its projections hold; `None` where that is not known.
    loaded: BTreeMap<&'static str, Option<u64>>,
}

struct Model {
    dir: PathBuf,
    listener: UnixListener,
    random: u64,
    folder: Folder,
    /// Usually one state; more after an order that was not acknowledged.
    may_be: BTreeMap<&'static str, Vec<Stored>>,
    documents: u64,
    lives: [Option<Life>; 2],
    counts: BTreeMap<&'static str, u64>,
}

impl Drop for Model {
    fn drop(&mut self) {
        for life in self.lives.iter_mut().flatten() {
            // It may be dead already.
            let _ = life.process.kill();
            let _ = life.process.wait();
        }
    }
}

impl Model {
    fn new(dir: &Path, seed: u64) -> Self {
        fs::create_dir_all(dir.join("docs/d")).unwrap();
        let listener = UnixListener::bind(dir.join("socket")).unwrap();
        let may_be = PATHS.iter().map(|p| (*p, vec![Stored::default()])).collect();
        Model {
            dir: dir.to_owned(),
            listener,
            random: seed,
            folder: Folder::default(),
            may_be,
            documents: 0,
            lives: [None, None],
            counts: BTreeMap::new(),
        }
    }

    /// Below `n`. SplitMix64.
    fn below(&mut self, n: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn some(&mut self, of: &[&str]) -> Vec<String> {
        of.iter().filter(|_| self.below(2) == 0).map(|s| (*s).to_owned()).collect()
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Starts a process, until one opens the index.
    fn start(&mut self, n: usize) {
        loop {
            let limited = self.below(4) == 0;
            let blocks = LIMITS.start + self.below(LIMITS.end - LIMITS.start);
            let exe = std::env::current_exe().unwrap();
            let mut command = Command::new("sh");
            // Ignored, the signal leaves the failing write to the program.
            let limit = if limited { "trap '' XFSZ; ulimit -f \"$1\"; shift" } else { "shift" };
            command.args(["-c", &format!("{limit}; exec \"$@\""), "sh", &blocks.to_string()]);
            command.arg(exe).args(["--exact", "torture::child", "--ignored", "--nocapture"]);
            let process = command.env(FOLDER, &self.dir).stdout(Stdio::null()).spawn().unwrap();
            let (socket, _) = self.listener.accept().unwrap();
            let replies = BufReader::new(socket.try_clone().unwrap());
            let mut life = Life { process, socket, replies, limited, loaded: BTreeMap::new() };
            let opened = life.reply();
            self.lives[n] = Some(life);
            match opened {
                Some(Ok(_)) => {
                    self.loaded(n);
                    return;
                }
                Some(Err(error)) => {
                    assert!(limited, "the index does not open: {error}");
                    self.count("full while opening");
                }
                None => panic!("a process ended while it opened the index: {:?}", self.ended(n)),
            }
            self.kill(n);
        }
    }

    fn kill(&mut self, n: usize) {
        if let Some(mut life) = self.lives[n].take() {
            life.process.kill().unwrap();
            life.process.wait().unwrap();
            self.count("kills");
        }
    }

    /// How a process ended, and whether it was limited.
    fn ended(&mut self, n: usize) -> Option<(std::process::ExitStatus, bool)> {
        let life = self.lives[n].as_mut()?;
        Some((life.process.wait().ok()?, life.limited))
    }

    /// Process `n` has just loaded what is stored.
    fn loaded(&mut self, n: usize) {
        let known = |states: &Vec<Stored>| match &states[..] {
            [only] => only.present.as_ref().map(|(_, document)| *document),
            _ => None,
        };
        let loaded = self.may_be.iter().map(|(path, states)| (*path, known(states))).collect();
        // It may have been killed just after it had said so.
        if let Some(life) = self.lives[n].as_mut() {
            life.loaded = loaded;
        }
    }

    /// Gives an order and kills the process now and then before it answers. `None` if it did not.
    fn order(&mut self, n: usize, order: &Value) -> Option<Result<Value, String>> {
        if self.lives[n].is_none() {
            self.start(n);
        }
        let deadly = self.below(250) == 0;
        // Most orders are done in less than a millisecond.
        let longest = 1 << self.below(14);
        let wait = Duration::from_micros(self.below(longest));
        let life = self.lives[n].as_mut().unwrap();
        writeln!(life.socket, "{order}").unwrap();
        if deadly {
            std::thread::sleep(wait);
            life.process.kill().unwrap();
            // What it said before it died is said.
            let reply = life.reply();
            self.kill(n);
            if reply.is_none() {
                self.count("unanswered");
            }
            return reply;
        }
        let limited = life.limited;
        let reply = life.reply();
        let Some(reply) = reply else { panic!("a process ended on its own: {:?}", self.ended(n)) };
        if let Err(error) = &reply {
            assert!(limited, "{order}: {error}");
            self.count("full disks");
        }
        Some(reply)
    }

    /// Gives an order that changes what is stored under some paths.
    fn change(
        &mut self,
        n: usize,
        order: &Value,
        change: impl Fn(&mut Self, &'static str, &Stored) -> Stored,
        paths: &[&'static str],
    ) -> bool {
        let reply = self.order(n, order);
        let done = matches!(reply, Some(Ok(_)));
        for &path in paths {
            let before = self.may_be[path].clone();
            let mut after: Vec<Stored> = before.iter().map(|s| change(self, path, s)).collect();
            if !done {
                // Perhaps.
                after.extend(before);
            }
            self.may_be.insert(path, distinct(after));
        }
        if !done {
            self.settle();
        }
        done
    }

    /// Finds out what became of unacknowledged orders, and that nothing became of acknowledged ones.
    fn settle(&mut self) {
        let told = loop {
            if let Some(Ok(told)) = self.order(0, &json!({ "do": "snapshot" })) {
                break told;
            }
        };
        let mut there: BTreeMap<&str, (&Value, Properties)> = BTreeMap::new();
        for document in told["documents"].as_array().unwrap() {
            let properties = Properties {
                metadata: serde_json::from_value(document["metadata"].clone()).unwrap(),
                allow: serde_json::from_value(document["allow"].clone()).unwrap(),
                tenant: serde_json::from_value(document["tenant"].clone()).unwrap(),
            };
            let path = document["path"].as_str().unwrap();
            there.insert(path, (&document["content_hash"], properties));
        }
        for (path, states) in &mut self.may_be {
            let before = states.clone();
            states.retain(|state| match (&state.present, there.get(path)) {
                (None, None) => true,
                (Some((text, _)), Some((hash, properties))) => {
                    let own = blake3::hash(text.as_bytes()).to_hex().to_string();
                    **hash == json!(own) && *properties == state.properties()
                }
                _ => false,
            });
            let found = there.get(path);
            assert!(!states.is_empty(), "{path}: {found:?} is stored, of {before:?}");
        }
        self.count("settled");
    }

    fn ingest(&mut self, n: usize) {
        let change = |model: &mut Self, path: &'static str, stored: &Stored| {
            let mut stored = stored.clone();
            let text = model.folder.files.get(path).filter(|text| !stored.deleted.contains(text));
            match (text, &stored.present) {
                (None, _) => stored.present = None,
                (Some(text), Some((present, _))) if present == text => {}
                (Some(text), _) => {
                    model.documents += 1;
                    stored.present = Some((text.clone(), model.documents));
                }
            }
            stored.said = match stored.present {
                None => Properties::default(),
                Some(_) => model.folder.said.get(path).cloned().unwrap_or_default(),
            };
            stored
        };
        if self.folder.files.is_empty() {
            return;
        }
        if self.change(n, &json!({ "do": "ingest" }), change, PATHS) {
            self.loaded(n);
        }
    }

    /// Writes, changes or removes a file, or says something else of it.
    fn edit(&mut self) {
        let path = self.one(PATHS);
        let file = self.dir.join("docs").join(path);
        match self.below(5) {
            0 => {
                if self.folder.files.remove(path).is_some() {
                    fs::remove_file(file).unwrap();
                }
            }
            1 | 2 => {
                // Few contents, so that old ones come back.
                let text = format!("{} {} {}", self.one(WORDS), self.one(WORDS), self.below(4));
                fs::write(file, &text).unwrap();
                self.folder.files.insert(path, text);
            }
            _ => {
                let mut said = Properties::default();
                if self.below(3) > 0 {
                    said.metadata.insert(
                        "year".into(),
                        assay_index::Value::Integer(2020 + self.below(3) as i64),
                    );
                }
                if self.below(3) == 0 {
                    said.allow = Some(self.some(PRINCIPALS));
                }
                if self.below(3) == 0 {
                    said.tenant = Some(self.one(TENANTS).to_owned());
                }
                self.folder.said.insert(path, said);
                let mut sidecar = String::new();
                for (path, said) in &self.folder.said {
                    sidecar += &format!("[[documents]]\nmatch = {path:?}\n");
                    if let Some(allow) = &said.allow {
                        sidecar += &format!("allow = {allow:?}\n");
                    }
                    if let Some(tenant) = &said.tenant {
                        sidecar += &format!("tenant = {tenant:?}\n");
                    }
                    if let Some(year) = said.metadata.get("year") {
                        sidecar += &format!("metadata = {{ year = {year} }}\n");
                    }
                }
                fs::write(self.dir.join("docs/assay-docs.toml"), sidecar).unwrap();
            }
        }
    }

    /// Paths that are certainly of a document, or certainly were.
    fn known(&mut self, or_deleted: bool) -> Option<&'static str> {
        let path = self.one(PATHS);
        let known = |s: &Stored| s.present.is_some() || (or_deleted && !s.deleted.is_empty());
        self.may_be[path].iter().all(known).then_some(path)
    }

    fn delete(&mut self, n: usize) {
        let Some(path) = self.known(true) else { return };
        let change = |_: &mut Self, _: &'static str, stored: &Stored| {
            let mut stored = stored.clone();
            if let Some((text, _)) = stored.present.take()
                && !stored.deleted.contains(&text)
            {
                stored.deleted.push(text);
                stored.deleted.sort();
            }
            stored.said = Properties::default();
            stored
        };
        self.change(n, &json!({ "do": "delete", "path": path }), change, &[path]);
    }

    fn restore(&mut self, n: usize) {
        let path = self.one(PATHS);
        let change = |_: &mut Self, _: &'static str, stored: &Stored| Stored {
            deleted: Vec::new(),
            ..stored.clone()
        };
        self.change(n, &json!({ "do": "restore", "path": path }), change, &[path]);
    }

    fn set_access(&mut self, n: usize) {
        let Some(path) = self.known(false) else { return };
        let (order, by_hand) = match self.below(4) {
            0 => (json!({ "do": "reset", "path": path }), None),
            1 => (json!({ "do": "allow", "path": path, "allow": null }), Some(None)),
            _ => {
                let allow = self.some(PRINCIPALS);
                (json!({ "do": "allow", "path": path, "allow": allow }), Some(Some(allow)))
            }
        };
        let change = move |_: &mut Self, _: &'static str, stored: &Stored| Stored {
            by_hand: by_hand.clone(),
            ..stored.clone()
        };
        self.change(n, &order, change, &[path]);
    }

    fn search(&mut self, n: usize) {
        let principals = self.some(PRINCIPALS);
        let tenant = (self.below(2) == 0).then(|| self.one(TENANTS));
        let filter = (self.below(2) == 0).then(|| self.one(FILTERS));
        let text = format!("{} {}", self.one(WORDS), self.one(WORDS));
        let (mode, k) = (self.one(&["bm25", "vector", "hybrid"]), self.one(&[1, 2, 3, 99]));
        let order = json!({ "do": "search", "text": text, "k": k, "mode": mode, "principals": principals,
            "tenant": tenant, "filter": filter });
        let Some(Ok(hits)) = self.order(n, &order) else { return };
        if hits.is_null() {
            self.count("refused filters");
            return;
        }
        let hits: Vec<(String, String)> = serde_json::from_value(hits).unwrap();
        let filter = filter.map(|text| Filter::parse(text).unwrap());
        let viewer = Viewer { principals: &principals, tenant };
        for (path, text) in &hits {
            let states = &self.may_be[path.as_str()];
            let right = states.iter().any(|s| s.may_be_hit(text, viewer, filter.as_ref()));
            assert!(right, "{order} returned {path} {text:?}, and there is {states:?}");
        }
        // Every chunk is a hit of the vectors.
        if mode != "bm25"
            && let Some(life) = &self.lives[n]
        {
            let due = |path: &&str| match (&self.may_be[*path][..], life.loaded.get(*path)) {
                ([only], Some(Some(loaded))) => {
                    only.present.as_ref().is_some_and(|(text, document)| {
                        document == loaded && only.may_be_hit(text, viewer, filter.as_ref())
                    })
                }
                _ => false,
            };
            let due = PATHS.iter().filter(|p| due(p)).count();
            assert!(hits.len() >= due.min(k), "{order} returned {hits:?}, and {due} are due");
        }
        self.count("searches");
    }

    /// Kills both processes and damages a file of the projections, if there is one.
    fn damage(&mut self) {
        self.kill(0);
        self.kill(1);
        let folders = fs::read_dir(self.dir.join("index")).unwrap().map(|e| e.unwrap().path());
        let mut files: Vec<PathBuf> = Vec::new();
        for path in folders {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                files.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            } else if !name.starts_with("index.sqlite") && name != "ingest.lock" {
                files.push(path);
            }
        }
        files.sort();
        if files.is_empty() {
            return;
        }
        let file = files[self.below(files.len() as u64) as usize].clone();
        let mut bytes = fs::read(&file).unwrap();
        match self.below(4) {
            0 => fs::remove_file(&file).unwrap(),
            1 => fs::write(&file, &bytes[..bytes.len() / 2]).unwrap(),
            _ if bytes.is_empty() => {}
            _ => {
                let place = self.below(bytes.len() as u64) as usize;
                bytes[place] ^= 1 << self.below(8);
                fs::write(&file, bytes).unwrap();
            }
        }
        self.count("damaged files");
    }

    fn verify(&mut self, n: usize) {
        if let Some(Ok(found)) = self.order(n, &json!({ "do": "verify" })) {
            assert_eq!(found["damage"], json!([]));
            self.count("verified");
        }
    }

    fn step(&mut self) {
        let n = self.below(2) as usize;
        match self.below(1000) {
            0..3 => self.damage(),
            3..6 => self.verify(n),
            6..9 => {
                if let Some(Ok(_)) = self.order(n, &json!({ "do": "rebuild" })) {
                    self.loaded(n);
                }
            }
            9..15 => self.settle(),
            15..45 => {
                for _ in 0..=self.below(3) {
                    self.edit();
                }
                self.ingest(n);
                self.count("ingests");
            }
            45..95 => {
                self.delete(n);
                self.count("deletes");
            }
            95..110 => self.restore(n),
            110..180 => {
                self.set_access(n);
                self.count("changes of access");
            }
            _ => self.search(n),
        }
    }
}

impl Life {
    /// What it answers; `None` if it is dead.
    fn reply(&mut self) -> Option<Result<Value, String>> {
        let mut line = String::new();
        match self.replies.read_line(&mut line) {
            Ok(_) if line.ends_with('\n') => {}
            Ok(_) | Err(_) => return None,
        }
        let mut reply: Value = serde_json::from_str(&line).unwrap();
        match reply.get("error") {
            Some(error) => Some(Err(error.to_string())),
            None => Some(Ok(reply["ok"].take())),
        }
    }
}

fn distinct(states: Vec<Stored>) -> Vec<Stored> {
    let mut distinct: Vec<Stored> = Vec::new();
    for state in states {
        if !distinct.contains(&state) {
            distinct.push(state);
        }
    }
    distinct
}

#[test]
#[expect(clippy::print_stderr, reason = "seeds and progress of a long run")]
fn nothing_deleted_comes_back() {
    let number = |name: &str| -> Option<u64> { std::env::var_os(name)?.to_str()?.parse().ok() };
    let operations = number(OPERATIONS).unwrap_or(3000);
    let seed = number(SEED).unwrap_or(1);
    eprintln!("{operations} operations, {SEED}={seed}");
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::new(dir.path(), seed);
    let began = Instant::now();
    for n in 1..=operations {
        model.step();
        if n.is_multiple_of(10_000) || n == operations {
            eprintln!(
                "{n} operations in {:.0?}, 0 violations: {:?}",
                began.elapsed(),
                model.counts
            );
        }
    }
    let counted = |what: &str| model.counts.get(what).copied().unwrap_or(0);
    // What never happened proves nothing.
    for what in ["kills", "full disks", "damaged files", "deletes", "searches", "verified"] {
        assert!(counted(what) > 0, "{what} in {operations} operations");
    }
}
