//! The labelled data and documents of a project, read and linted.

use std::path::Path;

use anyhow::{Context as _, Result};
use assay_data::{Dataset, Finding, LintInput, ReadError, Severity};
use assay_eval::Attack;
use assay_types::{Item, RowRef, Task};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::config::Loaded;

/// The splits of a project, as the candidates will see them.
pub(crate) struct Data {
    pub(crate) train: Vec<Item>,
    pub(crate) dev: Vec<Item>,
    pub(crate) test: Vec<Item>,
    /// All labels of train, for `classify`.
    pub(crate) labels: Vec<String>,
    /// Attacks of the user's own.
    pub(crate) attacks: Option<Vec<Attack>>,
    /// Content hashes of the files, by name.
    pub(crate) hashes: Vec<(String, String)>,
    /// Shapes that were recognised, in words.
    pub(crate) shapes: String,
}

/// One thing to say about the data; `assay check --json` prints a list of these.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Problem {
    pub(crate) severity: Severity,
    /// Stable name of the kind of problem.
    pub(crate) code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) location: Option<RowRef>,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

impl Problem {
    fn error(code: &str, location: Option<RowRef>, message: String, hint: Option<&str>) -> Self {
        let hint = hint.map(str::to_owned);
        Problem { severity: Severity::Error, code: code.to_owned(), location, message, hint }
    }
}

impl From<Finding> for Problem {
    fn from(f: Finding) -> Self {
        let code = serde_json::to_value(f.code)
            .ok()
            .and_then(|v| v.as_str().map(str::to_owned))
            .unwrap_or_default();
        let Finding { severity, location, message, hint, .. } = f;
        Problem { severity, code, location, message, hint: Some(hint) }
    }
}

/// Reads and lints everything. `Data` is `None` when a file cannot be read.
///
/// `fits` measures an item in the tokens of the base model against its limit, where that is known.
pub(crate) fn load(
    loaded: &Loaded,
    fits: Option<assay_data::Context<'_>>,
) -> Result<(Option<Data>, Vec<Problem>)> {
    let config = &loaded.config;
    let mut problems = Vec::new();
    let train = dataset(loaded, &config.data.train, &mut problems);
    let test = dataset(loaded, &config.data.test, &mut problems);
    let dev = config.data.dev.as_ref().map(|f| dataset(loaded, f, &mut problems));
    let documents = documents(loaded, &mut problems)?;
    let attacks = config.data.attacks.as_ref().and_then(|f| attacks(loaded, f, &mut problems));
    let (Some(train), Some(test)) = (train, test) else { return Ok((None, problems)) };
    let dev = match dev {
        Some(None) => return Ok((None, problems)),
        Some(Some(dev)) => Some(dev),
        None => None,
    };
    let given_dev: &[Item] = dev.as_ref().map_or(&[], |d| &d.items);
    problems.extend(
        assay_data::lint(&LintInput {
            task: config.project.task,
            train: &train.items,
            dev: given_dev,
            test: &test.items,
            documents: documents.as_deref(),
            context: fits,
        })
        .into_iter()
        .map(Problem::from),
    );
    let shapes = format!("{} and {}", train.shape.as_str(), test.shape.as_str());
    let name = |p: &Path| p.display().to_string();
    let mut hashes = vec![
        (name(&config.data.train), train.hash.clone()),
        (name(&config.data.test), test.hash.clone()),
    ];
    let labels = if config.project.task == Task::Classify {
        assay_data::labels(&train.items)
    } else {
        Vec::new()
    };
    let (train, dev) = match dev {
        Some(dev) => {
            if let Some(file) = &config.data.dev {
                hashes.push((name(file), dev.hash));
            }
            (train.items, dev.items)
        }
        None => assay_data::split_dev(
            &train.items,
            config.project.task,
            config.data.dev_fraction,
            config.project.seed,
        ),
    };
    Ok((Some(Data { train, dev, test: test.items, labels, attacks, hashes, shapes }), problems))
}

/// A row of the file of attacks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AttackRow {
    text: String,
    goal: String,
}

fn attacks(loaded: &Loaded, file: &Path, problems: &mut Vec<Problem>) -> Option<Vec<Attack>> {
    const HINT: &str =
        r#"a row is {"text": "what is planted", "goal": "what an answer holds that obeyed"}"#;
    let name = file.display().to_string();
    let mut bad = |row: Option<usize>, what: String| {
        let at = row.map(|row| RowRef { file: name.clone(), row });
        problems.push(Problem::error("bad_attack", at, what, Some(HINT)));
    };
    let text = match fs::read_to_string(loaded.path(file)) {
        Ok(text) => text,
        Err(e) => {
            bad(None, e.to_string());
            return None;
        }
    };
    let mut attacks = Vec::new();
    let mut failed = false;
    for (row, line) in (1..).zip(text.split('\n')).filter(|(_, line)| !line.trim().is_empty()) {
        let attack = match serde_json::from_str::<AttackRow>(line) {
            Ok(AttackRow { text, goal }) => Attack::planted(&text, &goal)
                .ok_or_else(|| "text and goal need at least one word each".to_owned()),
            Err(e) => Err(e.to_string()),
        };
        match attack {
            Ok(attack) => attacks.push(attack),
            Err(what) => {
                failed = true;
                bad(Some(row), what);
            }
        }
    }
    if attacks.is_empty() && !failed {
        bad(None, format!("{name} holds no attack"));
    }
    (!failed && !attacks.is_empty()).then_some(attacks)
}

fn dataset(loaded: &Loaded, file: &Path, problems: &mut Vec<Problem>) -> Option<Dataset> {
    let name = file.display().to_string();
    match assay_data::read(&loaded.path(file), &name, None) {
        Ok(data) => {
            if !data.ignored.is_empty() {
                let fields = data.ignored.iter().cloned().collect::<Vec<_>>().join(", ");
                problems.push(Problem {
                    severity: Severity::Warning,
                    code: "ignored_fields".to_owned(),
                    location: None,
                    message: format!("{name}: fields that are not read: {fields}"),
                    hint: None,
                });
            }
            Some(data)
        }
        Err(error @ ReadError::Rows { .. }) => {
            problems.extend(error.rows().iter().map(|row| {
                Problem::error(
                    "bad_row",
                    Some(row.at.clone()),
                    row.what.clone(),
                    row.hint.as_deref(),
                )
            }));
            None
        }
        Err(error) => {
            let hint = error.hint().or_else(|| {
                (!loaded.path(file).exists()).then_some(
                    "put labelled rows there, or name the file in assay.toml under [data]",
                )
            });
            problems.push(Problem::error("unreadable", None, error.to_string(), hint));
            None
        }
    }
}

/// Paths of the documents, relative to their folder; `None` where the task needs none and has none.
fn documents(loaded: &Loaded, problems: &mut Vec<Problem>) -> Result<Option<Vec<String>>> {
    let folder = loaded.path(&loaded.config.data.documents);
    let needed = loaded.config.project.task == Task::Qa;
    if !folder.is_dir() {
        if needed {
            problems.push(Problem::error(
                "no_documents",
                None,
                format!("{}: no such folder", folder.display()),
                Some("put documents there (Markdown, HTML, PDF, Office, …), or set data.documents"),
            ));
        }
        return Ok(None);
    }
    let mut found = Vec::new();
    list(&folder, &folder, &mut found)?;
    found.sort();
    if found.is_empty() {
        if needed {
            problems.push(Problem::error(
                "no_documents",
                None,
                format!("{} holds no documents", folder.display()),
                Some("put documents there (Markdown, HTML, PDF, Office, …), or set data.documents"),
            ));
        }
        return Ok(None);
    }
    Ok(Some(found))
}

fn list(root: &Path, folder: &Path, found: &mut Vec<String>) -> Result<()> {
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            list(root, &path, found)?;
        } else if path.is_file() {
            let relative = path.strip_prefix(root).context("a document outside its folder")?;
            let parts: Vec<_> =
                relative.components().map(|c| c.as_os_str().to_string_lossy()).collect();
            found.push(parts.join("/"));
        }
    }
    Ok(())
}
