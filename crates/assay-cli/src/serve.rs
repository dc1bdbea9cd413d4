//! `assay serve` and `assay rollback`: releases behind HTTP, and back to the one before.

use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use assay_candidate::{Blame, CandidateError, Options, Request, Viewer};
use assay_index::{Filter, IndexError, Query};
use assay_model::{Form, ModelError, Sampling};
use assay_serve::{
    AnswerForm, AnswerRequest, Caller, CallerHeaders, Embeddings, ModelInfo, ModelUse, SearchHit,
    SearchRequest, SearchResponse, ServeError, Service, ServiceError,
};
use assay_store::Store;
use assay_types::{Output, Pages, Role};
use serde::Deserialize as _;

use crate::config::Loaded;
use crate::refine;
use crate::run::release::{self, Opened};
use crate::ui::Ui;

pub(crate) fn serve(
    loaded: &Loaded,
    host: Option<String>,
    port: Option<u16>,
    candidate: Option<&str>,
) -> Result<ExitCode> {
    let host = host.unwrap_or_else(|| loaded.config.serve.host.clone());
    let ip: IpAddr =
        host.parse().with_context(|| format!("`{host}` is no IP address; try 127.0.0.1"))?;
    let address = SocketAddr::new(ip, port.unwrap_or(loaded.config.serve.port));
    let release = release::open(loaded, candidate)?;
    if let Some(drift) = &release.drift {
        eprintln!("note: {drift}; `assay run` measures again");
    }
    let name = loaded.config.project.name.clone();
    let kind = release.candidate.spec().name.clone();
    let id = release.id.clone();
    let service = Released { release, name: name.clone() };
    let ready = |at: SocketAddr| {
        eprintln!("serving `{name}` ({kind}, release {id}) at http://{at}/v1");
        eprintln!("  chat, embeddings, search, models; Ctrl-C ends");
    };
    let headers = CallerHeaders {
        principals: loaded.config.serve.principals_header.clone(),
        tenant: loaded.config.serve.tenant_header.clone(),
    };
    assay_serve::serve(Arc::new(service), address, headers, ready).map_err(
        |e: ServeError| match e.hint() {
            Some(hint) => anyhow!("{e}\nhint: {hint}"),
            None => anyhow!("{e}"),
        },
    )?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn rollback(loaded: &Loaded) -> Result<ExitCode> {
    let store = Store::open(&loaded.state_dir())?;
    let release = store.rollback()?;
    println!("{}", release.id);
    eprintln!("`assay serve` now serves {} (release {})", release.manifest.candidate, release.id);
    Ok(ExitCode::SUCCESS)
}

/// One release as a service. The project's name is the name of the chat model.
struct Released {
    release: Opened,
    name: String,
}

impl Released {
    fn embedder(&self) -> String {
        format!("{}-embedder", self.name)
    }

    /// On standard error: the answer is given all the same.
    fn tell_unwritten(&self) {
        let search = self.release.search.as_ref();
        refine::tell_unwritten(search.map(|s| &s.searcher), &Ui::default());
    }
}

impl Service for Released {
    fn models(&self) -> Vec<ModelInfo> {
        let created_s = u64::try_from(self.release.made_ms / 1000).unwrap_or(0);
        vec![
            ModelInfo { id: self.name.clone(), created_s, used_for: ModelUse::Chat },
            ModelInfo { id: self.embedder(), created_s, used_for: ModelUse::Embeddings },
        ]
    }

    fn answer(
        &self,
        request: &AnswerRequest,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Output, ServiceError> {
        // The release's own instructions were measured; the client's system turns come behind them.
        let (last, history) = request
            .messages
            .split_last()
            .ok_or_else(|| ServiceError::Internal("no messages".into()))?;
        if last.role != Role::User {
            return Err(ServiceError::Unsupported("way to continue a turn of the assistant"));
        }
        let o = &request.options;
        let greedy = Sampling::GREEDY;
        let options = Options {
            max_new_tokens: o.max_new_tokens,
            sampling: Sampling {
                temperature: o.temperature.unwrap_or(greedy.temperature),
                top_k: o.top_k.unwrap_or(greedy.top_k),
                top_p: o.top_p.unwrap_or(greedy.top_p),
                min_p: o.min_p.unwrap_or(greedy.min_p),
                repetition_penalty: o.repetition_penalty.unwrap_or(greedy.repetition_penalty),
                presence_penalty: o.presence_penalty.unwrap_or(greedy.presence_penalty),
                frequency_penalty: o.frequency_penalty.unwrap_or(greedy.frequency_penalty),
                seed: o.seed.unwrap_or(greedy.seed),
            },
            stop: o.stop.clone(),
            log_probs: o.log_probs,
            form: o.form.clone().map(|form| match form {
                AnswerForm::JsonObject => Form::JsonObject,
                AnswerForm::JsonSchema(schema) => Form::JsonSchema(schema),
                AnswerForm::Regex(regex) => Form::Regex(regex),
                AnswerForm::OneOf(texts) => Form::OneOf(texts),
            }),
        };
        let bad_form = match &options.form {
            Some(Form::Regex(_) | Form::OneOf(_)) => ServiceError::BadPattern,
            Some(Form::JsonObject | Form::JsonSchema(_)) | None => ServiceError::BadSchema,
        };
        let viewer = viewer(&request.caller);
        let request = Request { history, viewer, ..Request::new(&last.content) };
        let answer = self.release.candidate.answer(&request, &options, on_text);
        self.tell_unwritten();
        answer.map_err(|e| match e {
            CandidateError::Model(ModelError::TooLong { tokens, limit }) => {
                ServiceError::ContextTooLong { tokens, limit }
            }
            CandidateError::Model(e @ ModelError::Form { .. }) => bad_form(e.to_string()),
            e @ CandidateError::RemoteForm => bad_form(e.to_string()),
            CandidateError::Remote(e) if e.blame() == Blame::Request => {
                ServiceError::Refused(e.to_string())
            }
            e @ CandidateError::RemoteSampling => ServiceError::Refused(e.to_string()),
            CandidateError::Remote(e) => ServiceError::Upstream(e.to_string()),
            CandidateError::Index(IndexError::Backend(e)) => {
                ServiceError::Unavailable(e.to_string())
            }
            other => ServiceError::Internal(other.to_string()),
        })
    }

    fn embed(&self, _model: &str, texts: &[&str]) -> Result<Embeddings, ServiceError> {
        let internal = |e: assay_index::EmbedError| ServiceError::Internal(e.to_string());
        let embedder = &self.release.embedder;
        let vectors = embedder.embed(texts).map_err(internal)?;
        let tokens = texts.iter().map(|t| embedder.count_tokens(t)).sum();
        Ok(Embeddings { vectors, tokens })
    }

    fn search(&self, request: &SearchRequest) -> Result<SearchResponse, ServiceError> {
        let search = self.release.search.as_ref().ok_or(ServiceError::Unsupported("documents"))?;
        let filter = request.filter.as_ref().map(Filter::deserialize).transpose();
        let filter = filter.map_err(|e| ServiceError::BadFilter(e.to_string()))?;
        let query = Query {
            filter: filter.as_ref(),
            viewer: viewer(&request.caller),
            ..Query::new(&request.query, request.k, search.ranked_by.search_mode())
        };
        let found = search.searcher.search(&search.refine, &query);
        self.tell_unwritten();
        let found = found.map_err(|e| match e {
            CandidateError::Index(IndexError::Filter(e)) => {
                ServiceError::BadFilter(match e.hint() {
                    Some(hint) => format!("{e}; {hint}"),
                    None => e.to_string(),
                })
            }
            CandidateError::Remote(e) => ServiceError::Upstream(e.to_string()),
            CandidateError::Index(IndexError::Backend(e)) => {
                ServiceError::Unavailable(e.to_string())
            }
            other => ServiceError::Internal(other.to_string()),
        })?;
        let hits = found
            .hits
            .into_iter()
            .map(|h| SearchHit {
                document: h.document,
                start: h.span.start,
                end: h.span.end,
                pages: h.pages.map(Pages::from),
                text: h.text,
                score: h.score,
            })
            .collect();
        Ok(SearchResponse { hits, truncated_to: found.truncated.map(|cut| cut.read) })
    }
}

/// Requests are read as whom they say, never as whom the project's own commands are.
fn viewer(caller: &Caller) -> Viewer<'_> {
    Viewer { principals: &caller.principals, tenant: caller.tenant.as_deref() }
}
