//! The `assay` command: should it be a better prompt, retrieval, fine-tuning, or both?
//!
//! Standard output is data, standard error is talk. Exit codes: 0 yes or done, 1 the measured answer
//! is no, 2 could not measure or bad usage, 130 interrupted.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "this is the edge: it owns the terminal, the environment and the exit code"
)]

mod ask;
mod base;
mod bench;
mod check;
mod config;
mod doctor;
mod documents;
mod ingest;
mod init;
mod interrupt;
mod machine;
mod model;
mod parser;
mod plan;
mod project;
mod refine;
mod retrieval;
mod run;
mod search;
mod serve;
mod ui;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use assay_types::Task;
use clap::{Parser, Subcommand, ValueEnum};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Prompt, RAG, fine-tuning, or both? Measure it on your data, then serve the answer.
#[derive(Parser)]
#[command(name = "assay", version, arg_required_else_help = true)]
struct Cli {
    /// Project folder, or a folder inside it.
    #[arg(long, global = true, default_value = ".", value_name = "DIR")]
    project: PathBuf,
    /// Overrides a value of assay.toml, e.g. `training.epochs=1`.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a new project: a commented assay.toml, folders, next steps.
    Init {
        /// Folder to make.
        dir: PathBuf,
        /// What the feature does.
        #[arg(long)]
        task: TaskArg,
    },
    /// Are the data fit for a decision? Names file and row of what is not; exit 1 if not.
    Check {
        /// Print findings as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Index the documents, and say what became of each file and page; exit 1 if one failed.
    Ingest(ingest::IngestArgs),
    /// What the last ingest said about each file and page.
    Ledger {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// The text of files as an ingest reads it; exit 1 if one failed.
    Parse(ingest::ParseArgs),
    /// Parses files for another process of this program.
    #[command(name = parser::COMMAND, hide = true)]
    ParserProcess(parser::ParserLimits),
    /// How long each candidate will take here, how much memory and money; indexes the documents for that.
    Plan {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Measure this machine's speeds again.
        #[arg(long)]
        calibrate: bool,
    },
    /// Build every candidate, score all on the same items, decide: report.html and decision.json.
    Run,
    /// Ask the decided release a question.
    Ask {
        /// The question.
        question: String,
        /// Ask this candidate instead of the decided one.
        #[arg(long, value_name = "NAME")]
        candidate: Option<String>,
        /// Print the whole answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// What retrieval finds in the documents: for a query, or for a file of them as a TREC run.
    Search(search::SearchArgs),
    /// Serve the decided release: OpenAI-compatible HTTP.
    Serve {
        /// Address, else the one of assay.toml.
        #[arg(long)]
        host: Option<String>,
        /// Port, else the one of assay.toml; 0 takes a free one.
        #[arg(long)]
        port: Option<u16>,
        /// Serve this candidate instead of the decided one.
        #[arg(long, value_name = "NAME")]
        candidate: Option<String>,
    },
    /// The indexed documents: delete them, say who may read them, check them.
    Index {
        #[command(subcommand)]
        command: documents::IndexCommand,
    },
    /// Go back to the release before the present one.
    Rollback,
    /// The configuration, each value with where it comes from.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// What this machine has, what will be used, what is missing; exit 1 if something will fail.
    Doctor {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// What this machine computes per second: training, reading, writing, embedding.
    Bench(bench::BenchArgs),
    /// Retrieval: which settings find the most.
    Retrieval {
        #[command(subcommand)]
        command: retrieval::RetrievalCommand,
    },
    /// Models: fetch, and look inside.
    Model {
        #[command(subcommand)]
        command: model::ModelCommand,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print every value with its origin.
    Show,
}

#[derive(Clone, Copy, ValueEnum)]
enum TaskArg {
    Qa,
    Classify,
    Extract,
    Generate,
}

impl From<TaskArg> for Task {
    fn from(task: TaskArg) -> Task {
        match task {
            TaskArg::Qa => Task::Qa,
            TaskArg::Classify => Task::Classify,
            TaskArg::Extract => Task::Extract,
            TaskArg::Generate => Task::Generate,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("ASSAY_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")),
        )
        .init();
    match dispatch(cli) {
        Ok(code) => code,
        Err(e) if e.is::<interrupt::Interrupted>() => {
            eprintln!("interrupted; what was finished is kept, run the same command to continue");
            ExitCode::from(130)
        }
        Err(e) => {
            eprintln!("error: {}", describe(&e));
            if let Some(hint) = hint(&e) {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(2)
        }
    }
}

/// The chain of causes, each once: a cause that the message above already tells is left out.
fn describe(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            text += if text.is_empty() { "" } else { ": " };
            text += &cause;
        }
    }
    text
}

/// The hint of the innermost of our own errors that has one.
fn hint(error: &anyhow::Error) -> Option<String> {
    error
        .chain()
        .filter_map(|cause| {
            let index = match cause.downcast_ref::<assay_candidate::CandidateError>() {
                Some(assay_candidate::CandidateError::Index(e)) => Some(e),
                Some(_) | None => cause.downcast_ref::<assay_index::IndexError>(),
            };
            if let Some(hint) = index.and_then(assay_index::IndexError::hint) {
                return Some(hint.into_owned());
            }
            let hint = None
                .or_else(|| cause.downcast_ref::<assay_store::StoreError>()?.hint())
                .or_else(|| match cause.downcast_ref::<assay_candidate::CandidateError>()? {
                    assay_candidate::CandidateError::Remote(e) => e.hint(),
                    _ => None,
                })
                .or_else(|| cause.downcast_ref::<assay_train::TrainError>()?.hint())
                .or_else(|| {
                    cause.downcast_ref::<assay_kernels::UnknownKernels>()?;
                    Some("unset it, or set it to one of these names")
                })
                .or_else(|| cause.downcast_ref::<assay_model::AdapterError>()?.hint());
            hint.map(str::to_owned)
        })
        .last()
}

fn dispatch(cli: Cli) -> Result<ExitCode> {
    assay_kernels::forced()?;
    let load = || {
        let start = fs_err::canonicalize(&cli.project)?;
        config::load(&start, &cli.set)
    };
    match cli.command {
        Command::Init { dir, task } => init::init(&dir, task.into()).map(|()| ExitCode::SUCCESS),
        Command::Check { json } => check::check(&load()?, json),
        Command::Ingest(args) => ingest::ingest(&load()?, &args),
        Command::Ledger { json } => ingest::ledger(&load()?, json),
        Command::Parse(args) => ingest::parse(&args),
        Command::ParserProcess(limits) => parser::serve(limits).map(|()| ExitCode::SUCCESS),
        Command::Plan { json, calibrate } => plan::plan(&load()?, json, calibrate),
        Command::Run => run::run(&load()?),
        Command::Ask { question, candidate, json } => {
            ask::ask(&load()?, &question, candidate.as_deref(), json)
        }
        Command::Search(args) => search::search(&load()?, &args),
        Command::Serve { host, port, candidate } => {
            serve::serve(&load()?, host, port, candidate.as_deref())
        }
        Command::Index { command } => documents::index(&load()?, command),
        Command::Rollback => serve::rollback(&load()?),
        Command::Config { command: ConfigCommand::Show } => {
            print!("{}", config::show(&load()?)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor { json } => doctor::doctor(json),
        Command::Bench(args) => bench::bench(&args),
        Command::Retrieval { command } => retrieval::retrieval(&load()?, command),
        Command::Model { command } => model::model(command),
    }
}
