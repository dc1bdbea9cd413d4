//! `assay run`: build every candidate, score all on the same items, decide.
//!
//! Each step is filed under the hash of what it was made from; what is filed is not done again.

pub(crate) mod choose;
pub(crate) mod decide;
mod drift;
pub(crate) mod evaluate;
pub(crate) mod release;
pub(crate) mod tune;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use assay_candidate::{
    Blame, Candidate, CandidateError, CandidateSpec, ExampleIndex, Generator, PromptBudget,
    Refinement, Request, RetrieveFrom, Retriever, Searcher, Shot, Viewer,
};
use assay_decide::SkippedCandidate;
use assay_eval::Scorer;
use assay_index::{Embed, Index, IndexConfig, IndexError, IngestOutcome};
use assay_model::{Adapter, Decoder, Form};
use assay_store::{StepKey, Store};
use assay_types::{Item, Message, Output, Role, Score, Task};
use serde_json::Value;

use crate::base::{self, Base, Patience};
use crate::config::{BackendSearch, CandidateName, Config, Loaded, Retrieval};
use crate::interrupt::Interrupted;
use crate::parser::ParserLimits;
use crate::plan::{self, Room, Seconds, Taken};
use crate::project::{self, Data};
use crate::ui::Ui;
use crate::{check, interrupt, machine, refine};

/// Queries that are written anew together.
pub(crate) const WRITTEN_TOGETHER: usize = 16;

/// Everything that the steps of a run share.
pub(crate) struct Bench<'a> {
    pub(crate) loaded: &'a Loaded,
    pub(crate) config: &'a Config,
    pub(crate) ui: &'a Ui,
    pub(crate) store: Store,
    pub(crate) data: Data,
    pub(crate) generator: Generator,
    pub(crate) base_hash: String,
    pub(crate) embedder: Arc<dyn Embed>,
    pub(crate) index: Option<Arc<Index>>,
    /// The same with the models that refine what is found; `None` where documents are not retrieved.
    pub(crate) searcher: Option<Searcher>,
    /// What is refined.
    pub(crate) refine: Refinement,
    pub(crate) examples: Option<Arc<ExampleIndex>>,
    /// Folder of the example index, relative to the store.
    pub(crate) examples_folder: Option<String>,
    /// Hash of everything that retrieval reads.
    pub(crate) context_hash: String,
    pub(crate) scorer: Scorer,
    /// The form that answers are held to.
    pub(crate) form: Option<Form>,
}

/// A candidate, measured on the test items.
pub(crate) struct Measured {
    pub(crate) spec: CandidateSpec,
    pub(crate) answers: BTreeMap<String, evaluate::Answered>,
    /// Of the dev items; empty if no threshold is wanted.
    pub(crate) dev: BTreeMap<String, evaluate::Answered>,
    pub(crate) training: Option<tune::Summary>,
    /// What became of attacks; `None` for a candidate that reads no documents.
    pub(crate) attacked: Option<evaluate::Attacked>,
    /// Which items of the general suite are right with this candidate's weights; `None` if they are elsewhere.
    pub(crate) general: Option<Vec<bool>>,
    pub(crate) notes: Vec<String>,
}

/// A candidate to build.
pub(crate) enum Job {
    /// By a choice on dev.
    Chosen(choose::Variants),
    /// By training.
    Trained(Box<tune::Training>),
}

impl Job {
    /// Name of the candidate.
    pub(crate) fn name(&self) -> &str {
        match self {
            // All variants have the candidate's name.
            Job::Chosen(variants) => variants.specs.first().map_or("", |(_, spec)| &spec.name),
            Job::Trained(training) => &training.spec.name,
        }
    }
}

pub(crate) fn run(loaded: &Loaded) -> Result<ExitCode> {
    interrupt::install()?;
    let ui = Ui::default();
    let store = Store::open(&loaded.state_dir())?;
    let _only_one = store.lock_run()?;
    let room = Room::look(loaded)?;
    let Some(bench) = prepare(loaded, &ui, store, &room)? else { return Ok(ExitCode::from(1)) };
    let (jobs, skipped) = jobs(&bench)?;
    let forecast = plan::before_run(&bench, &jobs, &room)?;
    let fits = &forecast.fits;

    let mut taken = Vec::new();
    let began = Instant::now();
    let base_general = match &bench.generator {
        Generator::Local(_) => Some(evaluate::general(&bench, "base", None)?),
        Generator::Remote(_) => None,
    };
    let seconds = Seconds { general: began.elapsed().as_secs_f64(), ..Seconds::default() };
    taken.push(Taken { name: None, seconds, memory_bytes: None });
    let mut measured = Vec::new();
    for (i, job) in jobs.iter().enumerate() {
        machine::restart_peak();
        let mut stage = Stopwatch(Instant::now());
        if let (Generator::Local(decoder), Some(fit)) = (&bench.generator, fits.get(i)) {
            decoder.set_cache_bytes(usize::try_from(fit.cache_bytes)?);
        }
        let (spec, adapter, training, notes) = match job {
            Job::Chosen(variants) => {
                let choice = choose::best(&bench, variants)?;
                let note = choice.note();
                (choice.spec, None, None, vec![note])
            }
            Job::Trained(training) => {
                let checkpointing = fits.get(i).is_some_and(|fit| fit.checkpointing);
                let tuned = tune::tune(&bench, training, checkpointing)?;
                let folder = Some(tuned.folder.clone());
                let spec = CandidateSpec { adapter: folder, ..training.spec.clone() };
                let mut notes = vec![tune::describe(&tuned.summary)];
                if let Some(first) = tuned.summary.skipped.first() {
                    let n = tuned.summary.skipped.len();
                    notes.push(format!("{n} rows were left out of training; the first: {first}"));
                }
                (spec, Some(tuned.adapter), Some(tuned.summary), notes)
            }
        };
        let build = stage.lap_s();
        let general = match (&adapter, &spec.adapter) {
            (Some(adapter), Some(folder)) => {
                Some(evaluate::general(&bench, &spec.name, Some((adapter, folder)))?)
            }
            _ => base_general.clone(),
        };
        let general_s = if adapter.is_some() { stage.lap_s() } else { 0.0 };
        let candidate = bench.candidate(spec.clone(), adapter)?;
        let answers = evaluate::answers(&bench, &candidate)?;
        let attacked = evaluate::attacked(&bench, &candidate)?;
        let dev = match bench.config.serve.max_risk {
            Some(_) => evaluate::dev_answers(&bench, &candidate)?,
            None => BTreeMap::new(),
        };
        taken.push(Taken {
            name: Some(spec.name.clone()),
            seconds: Seconds { build, answers: stage.lap_s(), general: general_s },
            memory_bytes: machine::peak_memory(),
        });
        measured.push(Measured { spec, answers, attacked, dev, training, general, notes });
    }
    if let Some(table) = forecast.against(&taken) {
        ui.note(table.trim_end());
    }
    decide::decide(&bench, &measured, skipped, base_general.as_deref())
}

/// The time since the last look at it.
struct Stopwatch(Instant);

impl Stopwatch {
    fn lap_s(&mut self) -> f64 {
        let now = Instant::now();
        (now - std::mem::replace(&mut self.0, now)).as_secs_f64()
    }
}

/// How the wanted candidates are built, and which cannot be.
pub(crate) fn jobs(bench: &Bench<'_>) -> Result<(Vec<Job>, Vec<SkippedCandidate>)> {
    let (wanted, skipped) = buildable(bench)?;
    let trained = |spec| Ok(Job::Trained(Box::new(tune::training(bench, spec)?)));
    let job = |name: &CandidateName| match name {
        CandidateName::Prompt => Ok(Job::Chosen(choose::prompt(bench))),
        CandidateName::Rag => Ok(Job::Chosen(choose::rag(bench)?)),
        CandidateName::Tuned => trained(choose::tuned(bench)),
        CandidateName::Hybrid => trained(choose::hybrid(bench)),
    };
    Ok((wanted.iter().map(job).collect::<Result<_>>()?, skipped))
}

/// The wanted candidates that this base model can be made into, and the others with the reason.
fn buildable(bench: &Bench<'_>) -> Result<(Vec<CandidateName>, Vec<SkippedCandidate>)> {
    let wanted = &bench.config.project.candidates;
    if matches!(bench.generator, Generator::Local(_)) {
        return Ok((wanted.clone(), Vec::new()));
    }
    let needs_weights =
        |n: &&CandidateName| matches!(n, CandidateName::Tuned | CandidateName::Hybrid);
    let reason =
        "training needs the base model's weights on this machine, and they are behind a server";
    let skipped =
        |n: &CandidateName| SkippedCandidate { name: n.as_str().into(), reason: reason.into() };
    let skipped: Vec<_> = wanted.iter().filter(needs_weights).map(skipped).collect();
    for s in &skipped {
        bench.ui.note(&format!("{:<18} skipped: {reason}", s.name));
    }
    let wanted: Vec<_> = wanted.iter().filter(|n| !needs_weights(n)).copied().collect();
    if wanted.is_empty() {
        bail!(
            "no candidate of project.candidates can be built: {reason}\nhint: prompt and rag can"
        );
    }
    Ok((wanted, skipped))
}

/// Reads, lints, loads and indexes; `None` when the data are not fit.
pub(crate) fn prepare<'a>(
    loaded: &'a Loaded,
    ui: &'a Ui,
    store: Store,
    room: &Room,
) -> Result<Option<Bench<'a>>> {
    let config = &loaded.config;
    room.check_weights(loaded)?;
    let Base { generator, hash } = base::open(loaded, &config.model.base, Patience::Run)?;
    let tokens = |item: &Item| input_tokens(&generator, item);
    let fits = context_tokens(&generator).map(|context| {
        let limit = context.saturating_sub(config.max_new_tokens());
        assay_data::Context { limit, tokens: &tokens }
    });
    let (data, problems) = project::load(loaded, fits)?;
    eprint!("{}", check::render(&problems));
    let Some(data) = data.filter(|_| check::errors(&problems) == 0) else {
        eprintln!(
            "the data are not fit for a decision; `assay check` says the same without loading models"
        );
        return Ok(None);
    };
    let embedder = release::embedder(&config.model)?;
    let index = ingest(loaded, ui, embedder.clone())?;
    if index.is_none() && config.project.task == Task::Qa {
        bail!("{}: no document could be used", loaded.path(&config.data.documents).display());
    }
    let schema = read_schema(loaded)?;
    let scorer = Scorer::new(config.project.task, data.labels.clone(), schema.as_ref())?;
    let form = form(config, &data, schema)?;
    if let Some(form) = &form {
        check_form(&generator, form)?;
    }
    let mut bench = Bench {
        loaded,
        config,
        ui,
        store,
        base_hash: hash,
        generator,
        embedder,
        index,
        searcher: None,
        refine: Refinement::default(),
        examples: None,
        examples_folder: None,
        context_hash: String::new(),
        data,
        scorer,
        form,
    };
    match choose::retrieves(&bench) {
        RetrieveFrom::Documents => {
            let index = bench.index.as_ref().context("documents are not indexed")?;
            let retrieval = &config.retrieval;
            bench.context_hash = match retrieval.viewer() {
                Viewer::ANYONE => index.snapshot_hash(),
                viewer => assay_store::hash_json(&(
                    index.snapshot_hash(),
                    viewer.principals,
                    viewer.tenant,
                )),
            };
            // Only then may other chunks be found than those that are nearest.
            if retrieval.backend.is_some() && retrieval.backend_search == BackendSearch::Hnsw {
                bench.context_hash = assay_store::hash_json(&(&bench.context_hash, "hnsw"));
            }
            let reranker = refine::reranker(retrieval)?;
            bench.refine = refine::refinement(retrieval, reranker.as_deref());
            let rewriter = match bench.refine.rewrite {
                Some(_) => {
                    let store = Store::open(bench.store.root())?;
                    Some(refine::filed_rewriter(store, &bench.generator, &bench.base_hash))
                }
                None => None,
            };
            bench.searcher = Some(refine::searcher(index.clone(), reranker, rewriter)?);
        }
        RetrieveFrom::Examples => index_examples(&mut bench)?,
    }
    Ok(Some(bench))
}

/// Tokens that the base model takes, where they can be counted.
fn context_tokens(generator: &Generator) -> Option<usize> {
    match generator {
        Generator::Local(decoder) => Some(decoder.config().context_length),
        Generator::Remote(remote) => match &remote.budget {
            PromptBudget::Tokenizer(_) => remote.context_tokens,
            // A bound cannot say that something is too long.
            PromptBudget::Bound => None,
        },
    }
}

fn input_tokens(generator: &Generator, item: &Item) -> usize {
    let counted = match generator {
        Generator::Local(decoder) => decoder.tokenizer().encode(&item.input).map(|t| t.len()),
        Generator::Remote(remote) => {
            remote.budget.count(&[Message::new(Role::User, item.input.clone())])
        }
    };
    // An input that the tokenizer refuses is too long for every model.
    counted.unwrap_or(usize::MAX)
}

fn read_schema(loaded: &Loaded) -> Result<Option<Value>> {
    let Some(file) = &loaded.config.prompt.schema else { return Ok(None) };
    let text = fs_err::read_to_string(loaded.path(file))?;
    let schema =
        serde_json::from_str(&text).with_context(|| format!("{}: not JSON", file.display()))?;
    Ok(Some(schema))
}

/// The form that answers are held to, where the project wants it.
fn form(config: &Config, data: &Data, schema: Option<Value>) -> Result<Option<Form>> {
    if !config.prompt.constrained {
        return Ok(None);
    }
    match (config.project.task, schema) {
        (Task::Classify, _) => {
            let declines = data.train.iter().any(|i| i.answerable == Some(false));
            let abstain = declines.then(|| config.prompt.abstain.clone());
            Ok(Some(Form::OneOf(data.labels.iter().cloned().chain(abstain).collect())))
        }
        (Task::Extract, Some(schema)) => Ok(Some(Form::JsonSchema(schema))),
        (Task::Extract, None) => bail!(
            "prompt.constrained holds answers to a schema, and there is none\nhint: name its file in prompt.schema"
        ),
        (task @ (Task::Qa | Task::Generate), _) => {
            bail!("prompt.constrained is for classify and extract, and this is a {task} project")
        }
    }
}

/// Refuses a form that the base model cannot be held to, before anything is asked.
fn check_form(generator: &Generator, form: &Form) -> Result<()> {
    let hint = "hint: prompt.constrained = false measures the answers as they come";
    match (generator, form) {
        (Generator::Local(decoder), form) => {
            decoder.check_form(form).map_err(|e| anyhow!("prompt.constrained: {e}\n{hint}"))
        }
        (Generator::Remote(_), Form::OneOf(_) | Form::Regex(_)) => {
            bail!("prompt.constrained: {}\n{hint}", CandidateError::RemoteForm)
        }
        (Generator::Remote(_), Form::JsonSchema(_) | Form::JsonObject) => Ok(()),
    }
}

/// The settings of the document index that `ask` and `serve` must share with `run`.
pub(crate) fn index_config(config: &Config) -> IndexConfig {
    let Retrieval { chunk_tokens, contextual_headers, .. } = config.retrieval;
    IndexConfig { chunk_tokens, contextual_headers, ..IndexConfig::default() }
}

/// Opens the documents' index, with its vectors on the server that the configuration names, if it names one.
pub(crate) fn open_index(
    loaded: &Loaded,
    embedder: Arc<dyn Embed>,
    ui: Option<&Ui>,
) -> Result<Index> {
    let (dir, config) = (loaded.state_dir().join("index"), index_config(&loaded.config));
    let retrieval = &loaded.config.retrieval;
    let Some(address) = &retrieval.backend else { return Ok(Index::open(&dir, embedder, config)?) };
    let name = retrieval.backend_key_env.as_deref();
    let key = base::secret("retrieval.backend_key_env", name)?;
    let backend = assay_backends::connect(address, key.as_deref(), retrieval.backend_search.into())
        .map_err(IndexError::Backend)?;
    let mut step = None;
    let index = Index::open_on(backend, &dir, embedder, config, &mut |done, total| {
        if let Some(ui) = ui {
            step.get_or_insert_with(|| ui.step("send vectors", total as u64)).tick(done as u64);
        }
        match interrupt::asked() {
            true => std::ops::ControlFlow::Break(()),
            false => std::ops::ControlFlow::Continue(()),
        }
    });
    if let Some(step) = step {
        step.abandon();
    }
    interrupt::check()?;
    Ok(index?)
}

/// Brings the index to the state of the documents' folder; `None` if there is nothing in it to be found.
pub(crate) fn ingest(
    loaded: &Loaded,
    ui: &Ui,
    embedder: Arc<dyn Embed>,
) -> Result<Option<Arc<Index>>> {
    let folder = loaded.path(&loaded.config.data.documents);
    if !folder.is_dir() {
        return Ok(None);
    }
    let index = open_index(loaded, embedder, Some(ui))?;
    let mut index = crate::ingest::guarded(index, ParserLimits::default());
    let step = ui.step("ingest", 1);
    let ingested = index.ingest(&folder, &mut |p| {
        step.length(p.total as u64);
        step.tick(p.done as u64);
        if interrupt::asked() {
            std::ops::ControlFlow::Break(())
        } else {
            std::ops::ControlFlow::Continue(())
        }
    });
    let report = match ingested {
        // `assay init` makes the folder for every task; only qa needs something in it.
        Err(IndexError::NoDocuments { .. }) if loaded.config.project.task != Task::Qa => {
            step.abandon();
            return Ok(None);
        }
        other => other?,
    };
    interrupt::check()?;
    let bad: Vec<String> = report
        .ledger
        .iter()
        .filter_map(|e| match &e.outcome {
            IngestOutcome::Parsed { .. } => None,
            other => Some(format!("{}: {other}", e.path)),
        })
        .collect();
    for line in bad.iter().take(10) {
        ui.note(&format!("warning: {line}"));
    }
    if bad.len() > 10 {
        ui.note(&format!("  … and {} more documents that were not used", bad.len() - 10));
    }
    let what = format!(
        "{} documents, {} chunks, {} embeddings computed",
        index.documents().len(),
        index.chunk_count(),
        report.embeddings_computed
    );
    if report.added
        + report.changed
        + report.removed
        + report.described
        + report.embeddings_computed
        == 0
    {
        step.abandon();
        ui.fresh("ingest", &what);
    } else {
        step.done(&what);
    }
    Ok((index.chunk_count() > 0).then(|| Arc::new(index)))
}

/// Training rows as solved examples to retrieve.
fn index_examples(bench: &mut Bench<'_>) -> Result<()> {
    let train = &bench.data.train;
    let ids: Vec<String> = train.iter().map(|i| i.id.0.clone()).collect();
    let rows: Vec<Shot> = train
        .iter()
        .filter_map(|i| {
            let output = i.references.first()?.clone();
            Some(Shot { input: i.input.clone(), output, shown: Vec::new() })
        })
        .collect();
    if rows.len() != ids.len() {
        bail!("{} training rows have no output to show as an example", ids.len() - rows.len());
    }
    let key = StepKey::new("examples", 1)
        .input("embedder", bench.embedder.id())
        .setting("ids", &ids)
        .setting("rows", &rows)
        .finish();
    if bench.store.has_dir(&key) {
        bench.ui.fresh("index examples", &format!("{} rows", rows.len()));
    } else {
        let step = bench.ui.step("index examples", rows.len() as u64);
        let mut vectors = Vec::with_capacity(rows.len());
        for part in rows.chunks(64) {
            interrupt::check()?;
            let texts: Vec<&str> = part.iter().map(|r| r.input.as_str()).collect();
            vectors.extend(bench.embedder.embed(&texts)?);
            step.tick(vectors.len() as u64);
        }
        let work = bench.store.work_dir(&key)?;
        release::write_examples(&work, &ids, &rows, &vectors)?;
        bench.store.commit_dir(&key)?;
        step.done(&format!("{} rows embedded", rows.len()));
    }
    let folder = bench.store.dir_for(&key);
    bench.examples = Some(Arc::new(release::read_examples(&folder, bench.embedder.clone())?));
    bench.examples_folder = Some(relative(&folder, bench.store.root())?);
    bench.context_hash = key.hash().to_owned();
    Ok(())
}

/// `path` below `root`, with `/`.
fn relative(path: &Path, root: &Path) -> Result<String> {
    let parts: Vec<_> = path
        .strip_prefix(root)
        .with_context(|| format!("{} is not in the store", path.display()))?
        .components()
        .map(|c| c.as_os_str().to_string_lossy())
        .collect();
    Ok(parts.join("/"))
}

impl Bench<'_> {
    /// A candidate of this project.
    pub(crate) fn candidate(
        &self,
        spec: CandidateSpec,
        adapter: Option<Arc<Adapter>>,
    ) -> Result<Candidate> {
        let retriever = match spec.retrieval.as_ref().map(|r| r.from) {
            None => None,
            Some(RetrieveFrom::Documents) => {
                Some(Retriever::Documents(self.searcher.clone().context("no documents")?))
            }
            Some(RetrieveFrom::Examples) => {
                Some(Retriever::Examples(self.examples.clone().context("no examples")?))
            }
        };
        Ok(Candidate::new(spec, self.generator.clone(), adapter, retriever)?)
    }

    /// Writes the queries of items anew, many at a time, if the project wants that: what is filed needs no model later.
    pub(crate) fn write_queries(&self, items: &[Item]) -> Result<()> {
        let Some(searcher) = self.searcher.as_ref().filter(|_| self.refine.rewrite.is_some())
        else {
            return Ok(());
        };
        for part in items.chunks(WRITTEN_TOGETHER) {
            interrupt::check()?;
            let queries: Vec<&str> = part.iter().map(|item| item.input.as_str()).collect();
            searcher.write(&self.refine, &queries)?;
        }
        Ok(())
    }

    /// Tokens of a rendered prompt, or so many at most.
    pub(crate) fn prompt_tokens(&self, messages: &[Message]) -> Result<usize> {
        Ok(match &self.generator {
            Generator::Local(decoder) => decoder.prompt_tokens(messages)?.len(),
            Generator::Remote(remote) => remote.budget.count(messages)?,
        })
    }

    /// Says so when queries were searched for as they are though they should have been written anew.
    pub(crate) fn tell_unwritten(&self) {
        refine::tell_unwritten(self.searcher.as_ref(), self.ui);
    }

    /// An item as a question, asked as whom the project reads documents.
    pub(crate) fn request<'i>(&'i self, item: &'i Item) -> Request<'i> {
        Request::new(&item.input).seen_by(self.config.retrieval.viewer())
    }

    /// Whether the base model is behind a server.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.generator, Generator::Remote(_))
    }

    /// The base model's weights, which training and the general suite need.
    pub(crate) fn decoder(&self) -> Result<&Decoder> {
        match &self.generator {
            Generator::Local(decoder) => Ok(decoder),
            Generator::Remote(remote) => bail!("{} is not on this machine", remote.model.spec()),
        }
    }

    /// Dev items on which choices are made.
    pub(crate) fn dev_probe(&self) -> &[Item] {
        let n = self.config.training.dev_items.min(self.data.dev.len());
        &self.data.dev[..n]
    }

    /// Mean of the primary metric on `items`, for choices on dev. An item that cannot be answered is an error.
    pub(crate) fn mean_on(&self, candidate: &Candidate, items: &[Item]) -> Result<f64> {
        let requests: Vec<_> = items.iter().map(|item| self.request(item)).collect();
        self.mean_of(items, candidate.answer_batch(&requests)?)
    }

    /// The same of answers that are there.
    pub(crate) fn mean_of(
        &self,
        items: &[Item],
        outputs: Vec<Result<Output, CandidateError>>,
    ) -> Result<f64> {
        let metric = self.config.metric();
        let mut sum = 0.0;
        for (item, output) in items.iter().zip(outputs) {
            let output = output.map_err(|e| match e.blame() {
                Blame::Stopped => Interrupted.into(),
                _ => anyhow!(e).context(item.source.to_string()),
            })?;
            sum += self.one(item, &output, &metric)?;
        }
        Ok(sum / items.len().max(1) as f64)
    }

    fn one(&self, item: &Item, output: &Output, metric: &str) -> Result<f64> {
        match self.scorer.score(item, Ok(output)).get(metric) {
            Some(Score::Scored(value)) => Ok(*value),
            Some(Score::Failed(why) | Score::Skipped(why)) => {
                bail!("{}: {metric}: {why}", item.source)
            }
            None => bail!(
                "decision.metric is `{metric}`, which a {} project does not have\nhint: it has {}",
                self.config.project.task,
                self.scorer.metrics().collect::<Vec<_>>().join(", ")
            ),
        }
    }
}

/// Whether an error is of the moment or of the server, and not of what was asked: then nothing follows from it.
pub(crate) fn says_nothing(error: &anyhow::Error) -> bool {
    error.is::<Interrupted>()
        || error.downcast_ref::<CandidateError>().is_some_and(|e| e.blame() != Blame::Request)
}
