//! The base model of a project: weights on this machine, or a server.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use assay_candidate::{Generator, PromptBudget, RemoteGenerator};
use assay_model::{ModelKind, Precision, PromptCounter};
use assay_remote::{ApiKey, RemoteError, RemoteModel, RemoteSpec, Settings};

use crate::config::{Config, Loaded, Remote};
use crate::{interrupt, model};

/// Failed questions in a row after which a run gives the server up.
const GIVE_UP_AFTER: u32 = 5;

/// A base model, ready to generate.
pub(crate) struct Base {
    pub(crate) generator: Generator,
    /// What outputs depend on: the hash of the weights, or of the server's name for them with all settings that reach it.
    /// The key, timeouts and the number of questions at once are none of them.
    pub(crate) hash: String,
}

/// How long a server that fails is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It is given up after some failures in a row: a run has many questions.
    Run,
    /// Every question is asked: the server may come back.
    Serve,
}

pub(crate) fn open(loaded: &Loaded, spec: &str, patience: Patience) -> Result<Base> {
    if !RemoteSpec::is_remote(spec) {
        let decoder = model::open_decoder(spec, Precision::Bf16)?;
        let hash = decoder.file_hash().to_owned();
        return Ok(Base { generator: decoder.into(), hash });
    }
    let spec: RemoteSpec = spec.parse().map_err(|e: RemoteError| with_hint(&e))?;
    let remote = &loaded.config.model.remote;
    let budget = match &remote.tokenizer {
        Some(tokenizer) => PromptBudget::Tokenizer(Arc::new(PromptCounter::open(
            &tokenizer_file(loaded, tokenizer)?,
        )?)),
        None => PromptBudget::Bound,
    };
    let counted_by = match &budget {
        PromptBudget::Tokenizer(counter) => counter.id(),
        PromptBudget::Bound => "bound",
    };
    let hash = assay_store::hash_json(&(
        "remote model",
        1,
        &spec.model,
        &spec.base_url,
        counted_by,
        remote.context_tokens,
    ));
    let settings = Settings {
        key: key(remote)?,
        concurrency: remote.concurrency,
        read_timeout: std::time::Duration::from_secs(remote.timeout_s),
        deadline: std::time::Duration::from_secs(remote.deadline_s),
        give_up_after: (patience == Patience::Run).then_some(GIVE_UP_AFTER),
        stopped: interrupt::asked,
        ..Settings::new(spec)
    };
    let model = RemoteModel::new(settings).map_err(|e| with_hint(&e))?;
    let context_tokens = remote.context_tokens;
    Ok(Base {
        generator: Generator::Remote(RemoteGenerator { model, budget, context_tokens }),
        hash,
    })
}

/// How prompts are kept within `retrieval.prompt_tokens`, in words.
pub(crate) fn budget(config: &Config) -> String {
    match &config.model.remote.tokenizer {
        Some(name) => format!("tokens of {name}"),
        None => "an upper bound from bytes (no tokenizer is named)".to_owned(),
    }
}

fn key(remote: &Remote) -> Result<Option<ApiKey>> {
    let key = secret("model.remote.api_key_env", remote.api_key_env.as_deref())?;
    Ok(key.map(|key| ApiKey::new(&key)))
}

/// A key, from the one place where it may stand. No error quotes the configured name: it could be the key itself.
pub(crate) fn secret(setting: &str, name: Option<&str>) -> Result<Option<String>> {
    let Some(name) = name else { return Ok(None) };
    let value = std::env::var(name).ok().filter(|v| !v.trim().is_empty()).ok_or_else(|| {
        anyhow!(
            "the environment variable that {setting} names is not set\n\
             hint: export it in this shell; the key itself never stands in assay.toml"
        )
    })?;
    Ok(Some(value))
}

/// A `tokenizer.json` or GGUF file: a path in the project, or what a model of the catalog or the Hub brings.
fn tokenizer_file(loaded: &Loaded, spec: &str) -> Result<std::path::PathBuf> {
    let here = loaded.path(Path::new(spec));
    let found = if here.is_file() {
        here
    } else {
        let found = model::resolve(spec).context("model.remote.tokenizer")?;
        match found.kind {
            ModelKind::Gguf => found.path,
            _ => found.path.join("tokenizer.json"),
        }
    };
    if !found.is_file() {
        bail!("model.remote.tokenizer: {} does not exist", found.display());
    }
    Ok(found)
}

fn with_hint(error: &RemoteError) -> anyhow::Error {
    match error.hint() {
        Some(hint) => anyhow!("{error}\nhint: {hint}"),
        None => anyhow!("{error}"),
    }
}
