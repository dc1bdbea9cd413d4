//! The best prompt and the best retrieval depth, chosen on dev.

use anyhow::{Context as _, Result};
use assay_candidate::{
    CandidateSpec, Golden, Guard, Refinement, RetrievalSpec, RetrieveFrom, Shot, ShownChunk,
    Source, user_turn,
};
use assay_store::{Key, StepKey};
use assay_types::{Item, Task};
use serde::{Deserialize, Serialize};

use super::{Bench, tune};
use crate::config::CandidateName;
use crate::interrupt;

/// Version of this step: raise it when prompts or the choice change.
const VERSION: u32 = 4;

/// Solved examples with sources that `rag` tries.
const CITED_SHOTS: usize = 2;

/// What was tried on dev, and which of it is used.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Choice {
    pub(crate) spec: CandidateSpec,
    /// Every variant in words, with its mean on dev.
    pub(crate) tried: Vec<(String, f64)>,
}

impl Choice {
    /// One sentence for the report.
    pub(crate) fn note(&self) -> String {
        let tried: Vec<String> =
            self.tried.iter().map(|(what, mean)| format!("{what}: {mean:.3}")).collect();
        format!("chosen on dev among {}", tried.join("; "))
    }
}

/// What may be chosen from on dev.
pub(crate) struct Variants {
    /// Name of the step.
    pub(crate) step: &'static str,
    /// Every variant in words, and as a candidate.
    pub(crate) specs: Vec<(String, CandidateSpec)>,
    key: Key,
}

impl Variants {
    fn new(bench: &Bench<'_>, step: &'static str, specs: Vec<(String, CandidateSpec)>) -> Self {
        let key = StepKey::new("choose", VERSION)
            .input("base", &bench.base_hash)
            .input("context", &bench.context_hash)
            .setting("variants", &specs)
            .setting("probe", bench.dev_probe())
            .setting("metric", &bench.config.metric())
            .finish();
        Variants { step, specs, key }
    }

    /// What was chosen earlier.
    pub(crate) fn chosen(&self, bench: &Bench<'_>) -> Result<Option<Choice>> {
        Ok(bench.store.get::<Choice>(&self.key)?)
    }
}

/// Numbers of solved examples.
pub(crate) fn prompt(bench: &Bench<'_>) -> Variants {
    let specs = bench
        .config
        .prompt
        .shots
        .iter()
        .map(|n| {
            let spec =
                CandidateSpec { shots: shots(bench, *n), ..base(bench, CandidateName::Prompt) };
            (format!("{n} shots"), spec)
        })
        .collect();
    Variants::new(bench, "choose prompt", specs)
}

/// Numbers of retrieved chunks (or examples).
pub(crate) fn rag(bench: &Bench<'_>) -> Result<Variants> {
    let from = retrieves(bench);
    let what = if from == RetrieveFrom::Documents { "chunks" } else { "examples" };
    let mut variants = Vec::new();
    for k in &bench.config.retrieval.top_k {
        let mut spec = base(bench, CandidateName::Rag);
        spec.retrieval = Some(retrieval(bench, from, *k));
        variants.push((format!("{k} {what}"), spec.clone()));
        if from == RetrieveFrom::Documents {
            spec.shots = cited_shots(bench, &spec, *k)?;
            variants.push((format!("{k} {what} and {CITED_SHOTS} solved examples"), spec));
        }
    }
    Ok(Variants::new(bench, "choose rag", variants))
}

/// A tuned candidate before training: the plain instructions, without the list of labels it learns.
pub(crate) fn tuned(bench: &Bench<'_>) -> CandidateSpec {
    base(bench, CandidateName::Tuned)
}

/// A hybrid before training. It retrieves the largest of the depths that `rag` may choose from: a model that is
/// trained on distractors can use context that confuses the base model.
pub(crate) fn hybrid(bench: &Bench<'_>) -> CandidateSpec {
    let k = bench.config.retrieval.top_k.iter().copied().max().unwrap_or(1);
    CandidateSpec {
        retrieval: Some(retrieval(bench, retrieves(bench), k)),
        ..base(bench, CandidateName::Hybrid)
    }
}

fn retrieval(bench: &Bench<'_>, from: RetrieveFrom, top_k: usize) -> RetrievalSpec {
    let retrieval = &bench.config.retrieval;
    RetrievalSpec {
        from,
        ranked_by: retrieval.mode.into(),
        refine: match from {
            RetrieveFrom::Documents => bench.refine.clone(),
            RetrieveFrom::Examples => Refinement::default(),
        },
        top_k,
        prompt_tokens: retrieval.prompt_tokens,
    }
}

/// Labels and fields are shown by solved examples, knowledge by documents.
pub(crate) fn retrieves(bench: &Bench<'_>) -> RetrieveFrom {
    match bench.config.project.task {
        Task::Classify | Task::Extract => RetrieveFrom::Examples,
        Task::Qa => RetrieveFrom::Documents,
        Task::Generate if bench.index.is_some() => RetrieveFrom::Documents,
        Task::Generate => RetrieveFrom::Examples,
    }
}

fn base(bench: &Bench<'_>, name: CandidateName) -> CandidateSpec {
    let config = bench.config;
    let mut instructions = config.instructions();
    let trained = matches!(name, CandidateName::Tuned | CandidateName::Hybrid);
    let cites = matches!(name, CandidateName::Rag | CandidateName::Hybrid)
        && retrieves(bench) == RetrieveFrom::Documents;
    if config.project.task == Task::Classify && !trained {
        instructions += &format!("\nLabels: {}", bench.data.labels.join(", "));
    }
    if cites {
        instructions += " Answer from the sources.";
    }
    // With sources there is always something to decline: a training prompt without its golden chunk says so.
    let abstains = cites || bench.data.train.iter().any(|i| i.answerable == Some(false));
    if abstains {
        let when = if cites { "no source holds the answer" } else { "you do not know the answer" };
        instructions += &format!(" If {when}, reply: {}", config.prompt.abstain);
    }
    CandidateSpec {
        name: name.as_str().to_owned(),
        task: config.project.task,
        instructions,
        shots: Vec::new(),
        retrieval: None,
        guard: if cites { config.prompt.guard } else { Guard::None },
        adapter: None,
        abstain: if abstains { config.prompt.abstain.clone() } else { String::new() },
        abstain_below: None,
        max_new_tokens: config.max_new_tokens(),
        form: bench.form.clone(),
    }
}

/// `n` solved examples of train, spread over labels or documents, in an order that the seed decides.
fn shots(bench: &Bench<'_>, n: usize) -> Vec<Shot> {
    let spec = base(bench, CandidateName::Prompt);
    spread(bench)
        .take(n)
        .map(|i| {
            let output = spec.target(i, Golden::Unused);
            Shot { input: i.input.clone(), output, shown: Vec::new() }
        })
        .collect()
}

/// Training items, one of each label or document first, in an order that the seed decides.
fn spread<'a>(bench: &'a Bench<'_>) -> impl Iterator<Item = &'a Item> {
    let mut order: Vec<&Item> = bench.data.train.iter().collect();
    let seed = bench.config.project.seed;
    order.sort_by_cached_key(|i| assay_store::hash_json(&(seed, &i.id)));
    let group = |i: &Item| match i.references.first() {
        Some(label) if bench.config.project.task == Task::Classify => label.clone(),
        _ => i.cluster().to_owned(),
    };
    let mut seen = std::collections::BTreeSet::new();
    let (first, rest): (Vec<&Item>, Vec<&Item>) =
        order.into_iter().partition(|i| seen.insert(group(i)));
    first.into_iter().chain(rest)
}

/// Solved examples with their sources in front, which show a small model how to answer from context and to cite.
fn cited_shots(bench: &Bench<'_>, spec: &CandidateSpec, top_k: usize) -> Result<Vec<Shot>> {
    let mut found = Vec::new();
    for item in spread(bench) {
        if found.len() == CITED_SHOTS {
            break;
        }
        let (context, golden) = tune::raft(bench, spec, top_k, 1.0, item)?;
        if matches!(golden, Golden::At(_)) {
            let input = user_turn(&item.input, &context.sources, spec.guard);
            let shown = shown(bench, &context.sources)?;
            found.push(Shot { input, output: spec.target(item, golden), shown });
        }
    }
    Ok(found)
}

/// The chunks that sources are, so that an example is given up with the documents that it shows.
fn shown(bench: &Bench<'_>, sources: &[Source]) -> Result<Vec<ShownChunk>> {
    let index = bench.index.as_ref().context("documents are not indexed")?;
    let viewer = bench.config.retrieval.viewer();
    let mut shown = Vec::new();
    for source in sources {
        // Chunks that touch were joined to one source.
        let span = source.start..source.start + source.text.len();
        let chunks = index.chunks(&source.document, viewer)?;
        let inside =
            chunks.into_iter().filter(|c| c.span.start < span.end && span.start < c.span.end);
        let document = &source.document;
        shown.extend(
            inside.map(|c| ShownChunk { document: document.clone(), chunk_id: c.chunk_id }),
        );
    }
    Ok(shown)
}

/// Measures all variants on dev and takes the best.
pub(crate) fn best(bench: &Bench<'_>, variants: &Variants) -> Result<Choice> {
    let (step, probe) = (variants.step, bench.dev_probe());
    if let Some(choice) = variants.chosen(bench)? {
        bench.ui.fresh(step, &choice.note());
        return Ok(choice);
    }
    let work = bench.ui.step(step, variants.specs.len() as u64);
    let mut tried = Vec::new();
    for (what, spec) in &variants.specs {
        interrupt::check()?;
        work.message(what.clone());
        // A variant that cannot run here (examples longer than the context, say) is no candidate.
        let candidate = bench.candidate(spec.clone(), None)?;
        match bench.mean_on(&candidate, probe) {
            Ok(mean) => tried.push((what.clone(), mean, spec)),
            Err(e) if variants.specs.len() > 1 && !super::says_nothing(&e) => {
                bench.ui.note(&format!("{step}: {what} left out: {e:#}"));
            }
            Err(e) => return Err(e),
        }
        work.tick(tried.len() as u64);
    }
    // Of equals the first: the user lists the cheaper one first.
    let Some(top) = tried.iter().rev().max_by(|a, b| a.1.total_cmp(&b.1)) else {
        anyhow::bail!("{step}: no variant could be run on dev");
    };
    let choice = Choice {
        spec: top.2.clone(),
        tried: tried.iter().map(|(what, mean, _)| (what.clone(), *mean)).collect(),
    };
    bench.store.put(&variants.key, &choice)?;
    work.done(&choice.note());
    bench.tell_unwritten();
    Ok(choice)
}
