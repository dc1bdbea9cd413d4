//! `assay.toml`: what a project may say, with the built-in values.
//!
//! Unknown keys are errors with a suggestion. A value can be overridden by the user's own file, by
//! the environment (`ASSAY_SECTION__KEY`) and by `--set section.key=value`, the last one strongest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use assay_backends::Precision;
use assay_candidate::{Guard, RankedBy, Viewer};
use assay_model::EncoderPrecision;
use assay_types::Task;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Name of the project file.
pub(crate) const FILE: &str = "assay.toml";

/// A whole project file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) project: Project,
    #[serde(default)]
    pub(crate) data: Data,
    #[serde(default)]
    pub(crate) model: Model,
    #[serde(default)]
    pub(crate) prompt: Prompt,
    #[serde(default)]
    pub(crate) retrieval: Retrieval,
    #[serde(default)]
    pub(crate) training: Training,
    #[serde(default)]
    pub(crate) decision: DecisionRules,
    #[serde(default)]
    pub(crate) constraints: Constraints,
    #[serde(default)]
    pub(crate) needs: Needs,
    #[serde(default)]
    pub(crate) prices: Prices,
    #[serde(default)]
    pub(crate) limits: Limits,
    #[serde(default)]
    pub(crate) serve: Serve,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Project {
    pub(crate) name: String,
    pub(crate) task: Task,
    #[serde(default = "seed")]
    pub(crate) seed: u64,
    /// Candidates to build.
    #[serde(default = "candidates")]
    pub(crate) candidates: Vec<CandidateName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CandidateName {
    Prompt,
    Rag,
    Tuned,
    Hybrid,
}

impl CandidateName {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            CandidateName::Prompt => "prompt",
            CandidateName::Rag => "rag",
            CandidateName::Tuned => "tuned",
            CandidateName::Hybrid => "hybrid",
        }
    }
}

fn seed() -> u64 {
    7
}

fn candidates() -> Vec<CandidateName> {
    use CandidateName::{Hybrid, Prompt, Rag, Tuned};
    vec![Prompt, Rag, Tuned, Hybrid]
}

/// Every section below has built-in values for all its keys.
macro_rules! section {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty = $default:expr),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct $name {
            $($(#[$field_meta])* pub(crate) $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $default,)* }
            }
        }
    };
}

/// How chunks are ranked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RankBy {
    /// Words and meaning together.
    #[default]
    Hybrid,
    /// The same by reciprocal ranks.
    Rrf,
    /// Words only.
    Bm25,
    /// Meaning only.
    Vector,
}

impl From<RankBy> for RankedBy {
    fn from(mode: RankBy) -> RankedBy {
        match mode {
            RankBy::Hybrid => RankedBy::Hybrid,
            RankBy::Rrf => RankedBy::Rrf,
            RankBy::Bm25 => RankedBy::Bm25,
            RankBy::Vector => RankedBy::Vector,
        }
    }
}

/// How queries are written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RewriteBy {
    /// Other words for the query.
    MultiQuery,
    /// A passage that could answer it.
    Hyde,
}

/// How a server that holds the vectors searches them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BackendSearch {
    /// Comparing all.
    #[default]
    Exact,
    /// Along an HNSW graph, which may miss some; one search in 64 is compared with an exact one.
    Hnsw,
}

impl From<BackendSearch> for Precision {
    fn from(search: BackendSearch) -> Precision {
        match search {
            BackendSearch::Exact => Precision::Exact,
            BackendSearch::Hnsw => Precision::Approximate,
        }
    }
}

/// How the embedder's weights are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EmbedderPrecision {
    F32,
    Bf16,
    #[default]
    Int8,
}

impl From<EmbedderPrecision> for EncoderPrecision {
    fn from(precision: EmbedderPrecision) -> EncoderPrecision {
        match precision {
            EmbedderPrecision::F32 => EncoderPrecision::F32,
            EmbedderPrecision::Bf16 => EncoderPrecision::Bf16,
            EmbedderPrecision::Int8 => EncoderPrecision::Int8,
        }
    }
}

section!(Data {
    documents: PathBuf = "docs".into(),
    train: PathBuf = "data/train.jsonl".into(),
    test: PathBuf = "data/test.jsonl".into(),
    /// Without one, `dev_fraction` of train is held out, whole documents at a time.
    dev: Option<PathBuf> = None,
    dev_fraction: f64 = 0.1,
    /// JSON Lines with `text` that is planted in documents and the `goal` that an answer holds which fell for it, in
    /// the place of the built-in instructions.
    attacks: Option<PathBuf> = None,
});

section!(Model {
    base: String = "smollm2-135m-instruct".into(),
    embedder: String = "all-minilm-l6-v2".into(),
    embedder_precision: EmbedderPrecision = EmbedderPrecision::default(),
    /// Put before what is searched for; without one, the prompt that the embedder's files name.
    query_prefix: Option<String> = None,
    /// The same before documents.
    document_prefix: Option<String> = None,
    remote: Remote = Remote::default(),
    /// What a model costs that is rented by the token; without one its costs are unknown.
    price: Option<Price> = None,
});

section!(
    /// How to talk to the server of a base model `openai:<model>@<base-url>`.
    Remote {
        /// Environment variable that holds the key; without one, none is sent.
        api_key_env: Option<String> = None,
        /// Questions under way at once.
        concurrency: usize = 8,
        /// Longest silence of the server.
        timeout_s: u64 = 120,
        /// For one question, all tries and waits together.
        deadline_s: u64 = 600,
        /// What counts the tokens of prompts: a tokenizer.json, a GGUF file, or a name as for `base`. Without one, an
        /// upper bound from bytes.
        tokenizer: Option<String> = None,
        /// Tokens of prompt and answer together that the server takes.
        context_tokens: Option<usize> = None,
    }
);

/// Prices of a rented model.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Price {
    /// US dollars for a million tokens of prompts.
    pub(crate) input_per_million: f64,
    /// US dollars for a million generated tokens.
    pub(crate) output_per_million: f64,
}

section!(Prompt {
    /// The system message; without one, a plain one for the task.
    instructions: Option<String> = None,
    abstain: String = "I can't find that in the documents.".into(),
    /// Numbers of solved examples that are tried on dev.
    shots: Vec<usize> = vec![0, 3, 8],
    /// Without one, 64 for qa and generate, 32 for classify, 128 for extract.
    max_new_tokens: Option<usize> = None,
    /// JSON Schema file that answers of an `extract` project must satisfy.
    schema: Option<PathBuf> = None,
    /// Whether answers of a `classify` project can be nothing but a label, and those of an `extract` project nothing
    /// but JSON of `schema`.
    constrained: bool = false,
    /// What is done so that text in a document is not taken for an instruction.
    guard: Guard = Guard::default(),
});

section!(Retrieval {
    /// Tokens of the embedder in one chunk.
    chunk_tokens: usize = 128,
    /// Whether chunks are found also by the title and the headings above them.
    contextual_headers: bool = true,
    /// How chunks are ranked.
    mode: RankBy = RankBy::default(),
    /// Cross-encoder that orders the best chunks anew: a name as for `embedder`. Without one, they stay as ranked.
    reranker: Option<String> = None,
    reranker_precision: EmbedderPrecision = EmbedderPrecision::default(),
    /// Chunks that the reranker reads for a query.
    rerank_depth: usize = 30,
    /// Lambda of maximal marginal relevance, which moves repetitions behind: 1 and none at all change nothing.
    mmr: Option<f64> = None,
    /// Queries are written anew by the base model before they are searched for; without, as they are.
    rewrite: Option<RewriteBy> = None,
    /// Variants of a query that `multi_query` writes at most.
    rewrite_queries: usize = 3,
    /// Chunks on each side that a prompt shows with one that was found, if they fit.
    window: usize = 0,
    /// Numbers of chunks (or of examples, for classify and extract) that are tried on dev.
    top_k: Vec<usize> = vec![2, 4],
    /// Tokens of a whole prompt with context, in the base model's own tokens.
    prompt_tokens: usize = 1024,
    /// As whom `run`, `ask` and `search` read documents: names of users and groups. Without any, they read what everyone may.
    principals: Vec<String> = Vec::new(),
    /// The tenant whose documents they read beside those of none.
    tenant: Option<String> = None,
    /// The server that holds the vectors: postgres://user@host/database, or qdrant://host:6334; without one, they are here.
    backend: Option<String> = None,
    /// Environment variable that holds its password or API key.
    backend_key_env: Option<String> = None,
    /// How that server searches.
    backend_search: BackendSearch = BackendSearch::default(),
});

section!(Training {
    rank: usize = 16,
    alpha: f32 = 32.0,
    learning_rate: f64 = 5e-4,
    epochs: usize = 3,
    batch_size: usize = 16,
    warmup_steps: usize = 20,
    weight_decay: f64 = 0.0,
    /// Rows longer than this are refused, in the base model's tokens.
    max_tokens: usize = 1024,
    /// Tokens of one forward pass, which bound its memory: about 1.2 GB of activations for a 135M model.
    micro_batch_tokens: usize = 1024,
    /// Share of training prompts of the hybrid that hold the answer.
    golden_share: f64 = 0.8,
    /// Dev items on which the task metric is measured after every epoch.
    dev_items: usize = 64,
});

section!(DecisionRules {
    /// Without one: f1 for qa, accuracy for classify, slot_f1 for extract, rougeL for generate.
    metric: Option<String> = None,
    alpha: f64 = 0.05,
    /// Differences up to this count as equal, in units of the metric.
    margin: f64 = 0.03,
    bootstrap_samples: usize = 10_000,
    /// What would be good enough, in units of the metric.
    target: Option<f64> = None,
});

section!(Constraints {
    max_p95_latency_ms: Option<f64> = None,
    max_cost_per_query_usd: Option<f64> = None,
    max_training_usd: Option<f64> = None,
    /// Points of accuracy that the general suite may lose.
    max_forgetting_points: Option<f64> = Some(5.0),
    min_quality: Option<f64> = None,
});

section!(Needs {
    knowledge_changes_per_month: Option<f64> = None,
    queries_per_month: Option<f64> = None,
    citations: Option<bool> = None,
    strict_format: Option<bool> = None,
});

section!(Prices {
    /// An on-demand 2-core cloud machine, about; put your own figure here.
    hardware_usd_per_hour: f64 = 0.10,
    label_usd: f64 = 0.50,
});

section!(
    /// What a run may take of this machine.
    Limits {
        /// Without one, what the system says is free.
        memory_gb: Option<f64> = None,
    }
);

section!(Serve {
    host: String = "127.0.0.1".into(),
    port: u16 = 8080,
    /// Most risk (1 − the deciding metric) that answers may carry on average: a threshold on the model's confidence is
    /// made from the dev items, and what is less sure is declined.
    max_risk: Option<f64> = None,
    /// Header in which a proxy names the users and groups that ask, with commas. It is believed: the proxy must set or
    /// remove it. Without one, every request reads what everyone may.
    principals_header: Option<String> = None,
    /// The same for the tenant.
    tenant_header: Option<String> = None,
});

impl Retrieval {
    /// As whom this machine's own commands read documents.
    pub(crate) fn viewer(&self) -> Viewer<'_> {
        Viewer { principals: &self.principals, tenant: self.tenant.as_deref() }
    }
}

impl Config {
    /// The system message.
    pub(crate) fn instructions(&self) -> String {
        self.prompt.instructions.clone().unwrap_or_else(|| {
            match self.project.task {
                Task::Qa => "Answer the question with a short phrase.",
                Task::Classify => "Classify the message. Reply with the label only.",
                Task::Extract => "Extract the fields from the text. Reply with JSON only.",
                Task::Generate => "Follow the instruction.",
            }
            .to_owned()
        })
    }

    pub(crate) fn max_new_tokens(&self) -> usize {
        self.prompt.max_new_tokens.unwrap_or(match self.project.task {
            Task::Qa | Task::Generate => 64,
            Task::Classify => 32,
            Task::Extract => 128,
        })
    }

    pub(crate) fn metric(&self) -> String {
        self.decision.metric.clone().unwrap_or_else(|| {
            match self.project.task {
                Task::Qa => "f1",
                Task::Classify => "accuracy",
                Task::Extract => "slot_f1",
                Task::Generate => "rougeL",
            }
            .to_owned()
        })
    }
}

/// Where a value came from, weakest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    User(PathBuf),
    Project,
    Environment(String),
    Flag,
}

/// A project folder and its configuration.
pub(crate) struct Loaded {
    /// The folder of `assay.toml`; relative paths of the file start here.
    pub(crate) root: PathBuf,
    pub(crate) config: Config,
    /// Dotted key to where its value came from; keys not listed are built in.
    pub(crate) origins: BTreeMap<String, Origin>,
}

impl Loaded {
    pub(crate) fn path(&self, relative: &Path) -> PathBuf {
        self.root.join(relative)
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.root.join(".assay")
    }
}

/// Reads the project in `start` or the nearest folder above it.
pub(crate) fn load(start: &Path, sets: &[String]) -> Result<Loaded> {
    let root = start
        .ancestors()
        .find(|d| d.join(FILE).is_file())
        .ok_or_else(|| {
            anyhow!(
                "no {FILE} in {} or above it\nhint: `assay init NAME --task qa` makes a project",
                start.display()
            )
        })?
        .to_path_buf();
    let file = root.join(FILE);
    let text = fs_err::read_to_string(&file)?;
    // The file alone first: its own errors carry line and column.
    toml::from_str::<Config>(&text).map_err(|e| explain(&file, &e))?;

    let mut merged = toml::Table::new();
    let mut origins = BTreeMap::new();
    if let Some(user) = user_file().filter(|f| f.is_file()) {
        let table = fs_err::read_to_string(&user)?
            .parse::<toml::Table>()
            .map_err(|e| explain(&user, &e))?;
        merge(&mut merged, table, "", &Origin::User(user), &mut origins);
    }
    let table = text.parse::<toml::Table>().map_err(|e| explain(&file, &e))?;
    merge(&mut merged, table, "", &Origin::Project, &mut origins);
    for (name, value) in std::env::vars() {
        let Some(key) = name.strip_prefix("ASSAY_").filter(|k| k.contains("__")) else { continue };
        let key = key.to_lowercase().replace("__", ".");
        set(&mut merged, &key, &value, Origin::Environment(name), &mut origins)?;
    }
    for pair in sets {
        let (key, value) = pair
            .split_once('=')
            .with_context(|| format!("--set {pair}: expected section.key=value"))?;
        set(&mut merged, key.trim(), value.trim(), Origin::Flag, &mut origins)?;
    }
    let config = Config::deserialize(merged)
        .map_err(|e| anyhow!("{}", suggest(&e.to_string())))
        .context("the configuration after the environment and --set")?;
    validate(&config)?;
    Ok(Loaded { root, config, origins })
}

/// Ranges that types cannot say.
fn validate(config: &Config) -> Result<()> {
    let share = |key: &str, v: f64| {
        if v > 0.0 && v < 1.0 {
            Ok(())
        } else {
            Err(anyhow!("{key} is {v}: expected between 0 and 1"))
        }
    };
    share("data.dev_fraction", config.data.dev_fraction)?;
    share("decision.alpha", config.decision.alpha)?;
    config.serve.max_risk.map_or(Ok(()), |risk| share("serve.max_risk", risk))?;
    let positive = [
        ("training.rank", config.training.rank),
        ("training.epochs", config.training.epochs),
        ("training.batch_size", config.training.batch_size),
        ("training.micro_batch_tokens", config.training.micro_batch_tokens),
        ("retrieval.chunk_tokens", config.retrieval.chunk_tokens),
        ("retrieval.rerank_depth", config.retrieval.rerank_depth),
        ("retrieval.rewrite_queries", config.retrieval.rewrite_queries),
        ("decision.bootstrap_samples", config.decision.bootstrap_samples),
        ("model.remote.concurrency", config.model.remote.concurrency),
        ("model.remote.timeout_s", config.model.remote.timeout_s as usize),
        ("model.remote.deadline_s", config.model.remote.deadline_s as usize),
    ];
    if let Some((key, _)) = positive.into_iter().find(|(_, v)| *v == 0) {
        bail!("{key} is 0: expected at least 1");
    }
    validate_retrieval(&config.retrieval)?;
    let named = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let keys = [
        ("model.remote.api_key_env", &config.model.remote.api_key_env),
        ("retrieval.backend_key_env", &config.retrieval.backend_key_env),
    ];
    for (key, name) in keys {
        if name.as_ref().is_some_and(|n| n.is_empty() || !n.chars().all(named)) {
            // Not quoted: it may be the key.
            bail!(
                "{key} is no name of an environment variable: it names the one that holds the key"
            );
        }
    }
    let headers = [
        ("serve.principals_header", &config.serve.principals_header),
        ("serve.tenant_header", &config.serve.tenant_header),
    ];
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    for (key, name) in headers {
        // A name that no header can have would make every caller a stranger.
        if name.as_ref().is_some_and(|n| n.is_empty() || !n.chars().all(token)) {
            bail!("{key} is no name of a header");
        }
    }
    let free = |p: &Price| p.input_per_million >= 0.0 && p.output_per_million >= 0.0;
    if config.model.price.is_some_and(|p| !free(&p)) {
        bail!("model.price: a price is below 0 or no number");
    }
    if config.limits.memory_gb.is_some_and(|gb| gb <= 0.0 || !gb.is_finite()) {
        bail!("limits.memory_gb is no positive number");
    }
    if config.prompt.shots.is_empty() || config.retrieval.top_k.is_empty() {
        bail!("prompt.shots and retrieval.top_k need at least one value each");
    }
    if config.project.candidates.is_empty() {
        bail!("project.candidates is empty: name at least one of prompt, rag, tuned, hybrid");
    }
    Ok(())
}

/// Most that may be asked for; more takes minutes for a query, or fills no prompt.
const RERANK_DEPTH: usize = 1000;
const REWRITE_QUERIES: usize = 10;
const WINDOW: usize = 10;

fn validate_retrieval(retrieval: &Retrieval) -> Result<()> {
    if let Some(lambda) = retrieval.mmr.filter(|lambda| !(0.0..=1.0).contains(lambda)) {
        bail!(
            "retrieval.mmr is {lambda}: expected 0 to 1\n\
             hint: 1 is relevance alone; 0.9 moves near repetitions behind"
        );
    }
    let most = [
        ("retrieval.rerank_depth", retrieval.rerank_depth, RERANK_DEPTH),
        ("retrieval.rewrite_queries", retrieval.rewrite_queries, REWRITE_QUERIES),
        ("retrieval.window", retrieval.window, WINDOW),
    ];
    if let Some((key, v, most)) = most.into_iter().find(|(_, v, most)| v > most) {
        bail!(
            "{key} is {v}: expected at most {most}\nhint: `assay retrieval tune` tells what it is worth"
        );
    }
    if retrieval.rewrite == Some(RewriteBy::Hyde) && retrieval.mode == RankBy::Bm25 {
        bail!(
            "retrieval.rewrite is hyde, which changes the ranking by meaning, and retrieval.mode is bm25\n\
             hint: set mode to hybrid, rrf or vector, or rewrite to multi_query"
        );
    }
    Ok(())
}

fn user_file() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".config")))?;
    Some(base.join("assay/config.toml"))
}

fn merge(
    into: &mut toml::Table,
    from: toml::Table,
    prefix: &str,
    origin: &Origin,
    origins: &mut BTreeMap<String, Origin>,
) {
    for (key, value) in from {
        let dotted = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => {
                merge(old, new, &dotted, origin, origins);
            }
            (_, toml::Value::Table(new)) => {
                let mut fresh = toml::Table::new();
                merge(&mut fresh, new, &dotted, origin, origins);
                into.insert(key, toml::Value::Table(fresh));
            }
            (_, value) => {
                origins.insert(dotted, origin.clone());
                into.insert(key, value);
            }
        }
    }
}

/// Sets a dotted key. The text is TOML where it parses as such, else a string.
fn set(
    table: &mut toml::Table,
    key: &str,
    text: &str,
    origin: Origin,
    origins: &mut BTreeMap<String, Origin>,
) -> Result<()> {
    let (sections, name) =
        key.rsplit_once('.').with_context(|| format!("`{key}`: expected section.key"))?;
    let value = format!("v = {text}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()));
    let mut table = table;
    for section in sections.split('.') {
        let entry = table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let toml::Value::Table(inner) = entry else { bail!("`{section}` is not a section") };
        table = inner;
    }
    table.insert(name.to_owned(), value);
    origins.insert(key.to_owned(), origin);
    Ok(())
}

fn explain(file: &Path, error: &toml::de::Error) -> anyhow::Error {
    anyhow!("{}: {}", file.display(), suggest(&error.to_string()))
}

/// Adds "did you mean" to serde's list of expected names.
fn suggest(message: &str) -> String {
    let quoted: Vec<&str> = message
        .lines()
        .filter(|l| l.contains("unknown field") || l.contains("unknown variant"))
        .flat_map(|l| l.split('`').skip(1).step_by(2))
        .collect();
    let Some((unknown, expected)) = quoted.split_first() else { return message.to_owned() };
    let best = expected
        .iter()
        .map(|e| (strsim::jaro_winkler(unknown, e), e))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((_, name)) => format!("{}\nhint: did you mean `{name}`?", message.trim_end()),
        None => message.to_owned(),
    }
}

/// Every value, one `key = value  # origin` per line.
pub(crate) fn show(loaded: &Loaded) -> Result<String> {
    let mut out = String::new();
    for (section, values) in &toml::Table::try_from(&loaded.config)? {
        if let toml::Value::Table(values) = values {
            show_section(loaded, section, values, &mut out);
        }
    }
    Ok(out)
}

fn show_section(loaded: &Loaded, section: &str, values: &toml::Table, out: &mut String) {
    *out += &format!("[{section}]\n");
    let is_table = |v: &toml::Value| v.is_table();
    for (key, value) in values.iter().filter(|(_, v)| !is_table(v)) {
        let origin = match loaded.origins.get(&format!("{section}.{key}")) {
            None => "built in".to_owned(),
            Some(Origin::User(file)) => file.display().to_string(),
            Some(Origin::Project) => FILE.to_owned(),
            Some(Origin::Environment(name)) => format!("environment {name}"),
            Some(Origin::Flag) => "--set".to_owned(),
        };
        *out += &format!("{:<40}# {origin}\n", format!("{key} = {value}"));
    }
    out.push('\n');
    for (key, value) in values {
        if let toml::Value::Table(inner) = value {
            show_section(loaded, &format!("{section}.{key}"), inner, out);
        }
    }
}
