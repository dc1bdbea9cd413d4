//! `assay index`: the documents themselves. Nothing here needs a model but `rebuild`, and `verify` where a server holds
//! the vectors.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use assay_index::Corpus;
use clap::{Args, Subcommand};

use crate::config::Loaded;
use crate::run::{self, release};

#[derive(Subcommand)]
pub(crate) enum IndexCommand {
    /// Check the record, every chunk and every projection; exit 1 and say what is damaged.
    Verify {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Build what is searched anew from the record.
    Rebuild,
    /// The documents with their contents and who may read them, under the name that a release gives them.
    Snapshot {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Delete documents. Their contents stay away, though the folder may still hold them.
    Delete {
        /// Paths below the documents folder.
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// Let the next ingest read again what was deleted.
    Restore {
        /// Paths below the documents folder.
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// Say who may read documents, whatever the folder says.
    Allow {
        /// Paths below the documents folder.
        #[arg(required = true)]
        paths: Vec<String>,
        #[command(flatten)]
        who: Who,
    },
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Who {
    /// Users and groups, with commas.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    to: Vec<String>,
    /// Everyone.
    #[arg(long)]
    everyone: bool,
    /// Nobody.
    #[arg(long)]
    nobody: bool,
    /// Whom the folder says.
    #[arg(long)]
    reset: bool,
}

pub(crate) fn index(loaded: &Loaded, command: IndexCommand) -> Result<ExitCode> {
    let dir = folder(loaded)?;
    match command {
        IndexCommand::Verify { json } => return verify(loaded, &Corpus::open(&dir)?, json),
        IndexCommand::Rebuild => {
            let embedder = release::embedder(&loaded.config.model)?;
            let mut index = run::open_index(loaded, embedder, None)?;
            index.rebuild()?;
            eprintln!("{} documents, {} chunks", index.documents().len(), index.chunk_count());
        }
        IndexCommand::Snapshot { json } => snapshot(&Corpus::open(&dir)?, json)?,
        IndexCommand::Delete { paths } => {
            Corpus::open(&dir)?.delete(&strs(&paths))?;
            eprintln!("deleted {}; `assay index restore` lets them come back", paths.join(", "));
        }
        IndexCommand::Restore { paths } => {
            let restored = Corpus::open(&dir)?.restore(&strs(&paths))?;
            eprintln!("{restored} deleted contents may come back with the next ingest");
        }
        IndexCommand::Allow { paths, who } => {
            let corpus = Corpus::open(&dir)?;
            let paths = strs(&paths);
            match (who.reset, who.everyone) {
                (true, _) => corpus.reset_access(&paths)?,
                (false, true) => corpus.set_access(&paths, None)?,
                (false, false) => corpus.set_access(&paths, Some(&who.to))?,
            }
            eprintln!("done: it holds from the next search on, in every process");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn strs(paths: &[String]) -> Vec<&str> {
    paths.iter().map(String::as_str).collect()
}

fn folder(loaded: &Loaded) -> Result<PathBuf> {
    let dir = loaded.state_dir().join("index");
    if !dir.is_dir() {
        bail!("no documents have been indexed here yet\nhint: `assay ingest` does it");
    }
    Ok(dir)
}

/// Searches with stored vectors by which approximate searches are checked.
const CHECKED_SEARCHES: usize = 100;

fn verify(loaded: &Loaded, corpus: &Corpus, json: bool) -> Result<ExitCode> {
    let mut found = corpus.verify()?;
    if loaded.config.retrieval.backend.is_some() {
        let index = run::open_index(loaded, release::embedder(&loaded.config.model)?, None)?;
        let server = index.server().unwrap_or_default().to_owned();
        if let Some(checked) = index.check_backend(CHECKED_SEARCHES)? {
            eprintln!("{server}: {} documents, {} unknown", checked.documents, checked.unknown);
            if let Some(share) = checked.recall.and_then(|recall| recall.share()) {
                eprintln!("{server}: approximate searches find {share:.3} of the first 10");
            }
            if checked.missing > 0 {
                found.damage.push(format!("{server} lacks {} documents", checked.missing));
            }
        }
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&found)?);
    } else {
        found.damage.iter().for_each(|what| println!("{what}"));
        eprintln!(
            "{} documents, {} chunks, {} vectors, {} projections: {}",
            found.documents,
            found.chunks,
            found.embeddings,
            found.projections,
            match found.damage.len() {
                0 => "all is well".to_owned(),
                n => format!("{n} damaged"),
            }
        );
    }
    Ok(ExitCode::from(u8::from(!found.damage.is_empty())))
}

fn snapshot(corpus: &Corpus, json: bool) -> Result<()> {
    let snapshot = corpus.snapshot()?;
    if json {
        println!("{}", serde_json::to_string_pretty(&snapshot)?);
        return Ok(());
    }
    for document in &snapshot.documents {
        let who = match &document.properties.allow {
            None => "everyone".to_owned(),
            Some(allow) if allow.is_empty() => "nobody".to_owned(),
            Some(allow) => allow.join(","),
        };
        let tenant = document.properties.tenant.as_deref().unwrap_or("-");
        println!("{}\t{who}\t{tenant}\t{}", &document.content_hash[..16], document.path);
    }
    eprintln!("snapshot {} (change {})", snapshot.hash, snapshot.sequence);
    Ok(())
}
