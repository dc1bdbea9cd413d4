//! `assay init`: a commented project file, the folders, and what to do next.

use std::path::Path;

use anyhow::{Result, bail};
use assay_types::Task;

use crate::config::FILE;

pub(crate) fn init(dir: &Path, task: Task) -> Result<()> {
    let file = dir.join(FILE);
    if file.exists() {
        bail!("{} exists already\nhint: edit it, or choose another folder", file.display());
    }
    let name = dir.file_name().map_or("project".into(), |n| n.to_string_lossy().into_owned());
    for sub in ["docs", "data"] {
        fs_err::create_dir_all(dir.join(sub))?;
    }
    fs_err::write(&file, project_file(&name, task))?;
    fs_err::write(dir.join("data/README.md"), data_readme(task))?;
    fs_err::write(dir.join(".gitignore"), ".assay/\n")?;
    let at = dir.display();
    eprintln!("Made {at}:");
    eprintln!("  {FILE:<18} what to decide and within which limits; every key is explained");
    eprintln!("  {:<18} your documents: text, HTML, PDF, Office, …", "docs/");
    eprintln!("  {:<18} train.jsonl and test.jsonl; data/README.md shows the rows", "data/");
    eprintln!("\nNext:");
    eprintln!("  1. put documents into {at}/docs and rows into {at}/data");
    eprintln!("  2. cd {at} && assay check     are the data fit for a decision?");
    eprintln!("  3. assay run                  build, measure, decide: report.html, decision.json");
    eprintln!("  4. assay serve                the decided release, OpenAI-compatible");
    Ok(())
}

fn data_readme(task: Task) -> String {
    let row = match task {
        Task::Qa => {
            r#"{"question": "How long may I return a lamp?", "answers": ["30 days"], "doc_ids": ["policies/returns.md"], "tags": {"type": "policy"}}
{"question": "Who founded the company?", "answers": [], "answerable": false}"#
        }
        Task::Classify => r#"{"text": "My parcel never came", "label": "delivery"}"#,
        Task::Extract => {
            r#"{"prompt": "Two tickets to Graz on 3 May", "completion": "{\"to\": \"Graz\", \"count\": 2}"}"#
        }
        Task::Generate => {
            r#"{"prompt": "Write a reply: the parcel is late.", "completion": "We are sorry …"}"#
        }
    };
    format!(
        "# Labelled examples\n\n`train.jsonl` and `test.jsonl`, one JSON object per line, for example\n\n\
         ```json\n{row}\n```\n\nOther shapes are recognised too: `messages`, `prompt`/`completion`, \
         `instruction`/`input`/`output`, `conversations`, `question`/`answers`, `text`/`label`; also CSV \
         with such columns.\n\nTest rows must not stand in train. At least 100 of them make a decision \
         possible, 200 to 500 make it likely.\n"
    )
}

fn project_file(name: &str, task: Task) -> String {
    let name = name.replace(['"', '\\'], "");
    let (metric, instructions) = match task {
        Task::Qa => ("f1", "Answer the question with a short phrase."),
        Task::Classify => ("accuracy", "Classify the message. Reply with the label only."),
        Task::Extract => ("slot_f1", "Extract the fields from the text. Reply with JSON only."),
        Task::Generate => ("rougeL", "Follow the instruction."),
    };
    format!(
        r##"# What Assay decides here: prompt, RAG, fine-tuning, or both?
# Every value that is commented out is the built-in one. `assay config show` prints all of them.

[project]
name = "{name}"
task = "{task}"                      # qa | classify | extract | generate
# seed = 7
# candidates = ["prompt", "rag", "tuned", "hybrid"]

[data]
# documents = "docs"               # text, HTML, PDF, Office, … (docs/ingestion.md)
# train = "data/train.jsonl"
# test = "data/test.jsonl"         # touched once per decision
# dev = "data/dev.jsonl"           # else a part of train, whole documents at a time:
# dev_fraction = 0.1
# attacks = "data/attacks.jsonl"   # {{"text": "…", "goal": "…"}}: planted in documents, in the place of built-in ones

[model]
# base = "smollm2-135m-instruct"   # catalog name, hf:org/repo/file.gguf, a path,
                                   # or a server: openai:MODEL@http://127.0.0.1:8000/v1
# embedder = "all-minilm-l6-v2"
# embedder_precision = "int8"      # or bf16, f32: slower, and hardly better
# query_prefix = "query: "         # else as the embedder's own files say; E5 needs both
# document_prefix = "passage: "

# [model.remote]                   # for a server
# api_key_env = "OPENAI_API_KEY"   # the variable that holds the key, never the key
# tokenizer = "tokenizer.json"     # counts prompts exactly, else an upper bound does
# concurrency = 8

# [model.price]                    # US dollars, else the costs of a server are unknown
# input_per_million = 0.15
# output_per_million = 0.60

[prompt]
# instructions = "{instructions}"
# abstain = "I can't find that in the documents."
# shots = [0, 3, 8]                # numbers of solved examples, chosen on dev
# guard = "none"                   # told, marked: text in documents is no instruction; the report says what it is worth
# constrained = false              # true: nothing but a label (classify) or JSON of the schema (extract)

[retrieval]
# chunk_tokens = 128               # `assay retrieval tune` tries others
# mode = "hybrid"                  # or rrf, bm25, vector
# top_k = [2, 4]                   # chosen on dev
# prompt_tokens = 1024             # whole prompt, in the base model's tokens
# contextual_headers = true        # chunks are found also by title and headings
# reranker = "hf:org/repo"         # a cross-encoder that reads the first `rerank_depth`
# rerank_depth = 30
# mmr = 0.9                        # below 1: repetitions move behind
# rewrite = "hyde"                 # or multi_query: the base model writes queries anew
# window = 1                       # neighbours of what was found, on each side
# backend = "postgres://assay@localhost/assay"   # vectors on a server, or qdrant://host:6334; see docs/backends.md

[training]
# rank = 16
# alpha = 32
# learning_rate = 5e-4
# epochs = 3                       # stops early when dev gets worse twice
# batch_size = 16

[decision]
# metric = "{metric}"
# margin = 0.03                    # differences up to this count as equal
# alpha = 0.05
# target = 0.80                    # what would be good enough

[constraints]                      # a candidate that breaks one cannot win
# max_p95_latency_ms = 2000
# max_cost_per_query_usd = 0.001
# max_training_usd = 5.0
# max_forgetting_points = 5.0      # accuracy that general knowledge may lose by tuning
# min_quality = 0.5

[needs]                            # what only you know; evidence in the decision
# knowledge_changes_per_month = 4
# queries_per_month = 50000
# citations = true
# strict_format = false

[prices]                           # your own figures, in US dollars
# hardware_usd_per_hour = 0.10
# label_usd = 0.50

[serve]
# host = "127.0.0.1"
# port = 8080
# max_risk = 0.2                   # decline what carries more risk: a threshold from the dev items
"##
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_project_file_is_valid_also_with_every_value_uncommented() {
        for task in [Task::Qa, Task::Classify, Task::Extract, Task::Generate] {
            let text = project_file("a \"b\"", task);
            toml::from_str::<Config>(&text).expect("as written");
            let all: String = text
                .lines()
                .skip(2)
                .map(|l| l.strip_prefix("# ").unwrap_or(l).to_owned() + "\n")
                .collect();
            let config = toml::from_str::<Config>(&all).expect("uncommented");
            let built_in = toml::from_str::<Config>(&text).expect("as written");
            assert_eq!(config.instructions(), built_in.instructions());
            assert_eq!(config.metric(), built_in.metric());
            assert_eq!(config.training.epochs, built_in.training.epochs);
        }
    }
}
