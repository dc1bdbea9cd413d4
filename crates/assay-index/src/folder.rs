//! What a folder says of its documents beside their text: the front matter of Markdown, and the file
//! `assay-docs.toml` at its root.

use std::path::Path;

use fs_err as fs;
use globset::{GlobBuilder, GlobMatcher};
use serde::Deserialize;
use serde_json::Value as Json;

use crate::IndexError;
use crate::properties::{Metadata, Properties, Value};

/// Says of documents, by their paths, what they do not say themselves.
pub(crate) const SIDECAR: &str = "assay-docs.toml";

/// The rules of a folder's `assay-docs.toml`; of those that match a path, a later one goes before an earlier.
#[derive(Default)]
pub(crate) struct Rules(Vec<Rule>);

struct Rule {
    patterns: Vec<(String, GlobMatcher)>,
    metadata: Metadata,
    /// `None` where the rule leaves it to others.
    allow: Option<Option<Vec<String>>>,
    tenant: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    documents: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(rename = "match")]
    patterns: OneOrMore,
    #[serde(default)]
    metadata: toml::Table,
    allow: Option<toml::Value>,
    tenant: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Rules {
    /// Those of a folder; none if it has no such file.
    pub(crate) fn read(folder: &Path) -> Result<Rules, IndexError> {
        let path = folder.join(SIDECAR);
        if !path.is_file() {
            return Ok(Rules::default());
        }
        let text = fs::read_to_string(&path)?;
        Rules::parse(&text).map_err(|what| IndexError::Sidecar { path, what })
    }

    fn parse(text: &str) -> Result<Rules, String> {
        let file: File = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        file.documents.into_iter().map(Rule::new).collect::<Result<_, _>>().map(Rules)
    }

    /// What the folder says of the document at `path`, whose own front matter is `front`.
    ///
    /// Metadata of the document itself go before those of the rules. For access and tenant it is the other way
    /// round: no document opens itself.
    pub(crate) fn properties(&self, path: &str, front: Front) -> Properties {
        let mut properties = Properties::default();
        let (mut allow, mut tenant) = (front.allow, front.tenant);
        for rule in self.0.iter().filter(|rule| rule.patterns.iter().any(|(_, p)| p.is_match(path)))
        {
            properties.metadata.extend(rule.metadata.clone());
            allow = rule.allow.clone().or(allow);
            tenant = rule.tenant.clone().or(tenant);
        }
        properties.metadata.extend(front.metadata);
        Properties { allow: allow.flatten(), tenant, ..properties }
    }

    /// Patterns that match none of the paths.
    pub(crate) fn without_documents<'p>(
        &self,
        paths: impl Iterator<Item = &'p str> + Clone,
    ) -> Vec<&str> {
        let patterns = self.0.iter().flat_map(|rule| &rule.patterns);
        let unused =
            patterns.filter(|(_, pattern)| !paths.clone().any(|path| pattern.is_match(path)));
        unused.map(|(text, _)| text.as_str()).collect()
    }
}

impl Rule {
    fn new(entry: Entry) -> Result<Rule, String> {
        let patterns = match entry.patterns {
            OneOrMore::One(pattern) => vec![pattern],
            OneOrMore::More(patterns) => patterns,
        };
        let compiled = |pattern: String| {
            let glob = GlobBuilder::new(&pattern).literal_separator(true).build();
            Ok((pattern, glob.map_err(|e| e.to_string())?.compile_matcher()))
        };
        let first = patterns.first().cloned().unwrap_or_default();
        let mut metadata = Metadata::new();
        flatten("", &from_toml(&toml::Value::Table(entry.metadata)), &mut metadata);
        let allow = entry.allow.map(|allow| principals(&from_toml(&allow))).transpose();
        Ok(Rule {
            allow: allow.map_err(|e| format!("match = {first:?}: {e}"))?,
            patterns: patterns.into_iter().map(compiled).collect::<Result<_, String>>()?,
            metadata,
            tenant: entry.tenant,
        })
    }
}

/// What a document says of itself.
#[derive(Default, Debug, PartialEq)]
pub(crate) struct Front {
    metadata: Metadata,
    /// `None` where it leaves it to the folder.
    allow: Option<Option<Vec<String>>>,
    tenant: Option<String>,
}

impl Front {
    /// Reads the YAML front matter of a Markdown text, if it has one. `allow` and `tenant` say who may read it,
    /// `title` is its title, everything else are metadata.
    ///
    /// # Errors
    /// When it may say who may read the document and it cannot be understood: the document must not be opened
    /// by a slip.
    pub(crate) fn of_markdown(text: &str) -> Result<Front, String> {
        let Some(block) = front_matter(text) else { return Ok(Front::default()) };
        // As YAML 1.2 has it: `no` is a language, and `y` a name.
        let options = serde_saphyr::options! { strict_booleans: true };
        let parsed = match serde_saphyr::from_str_with_options::<Json>(block, options) {
            Ok(Json::Object(parsed)) => parsed,
            // A rule between two lines of text looks the same.
            Ok(_) => return Ok(Front::default()),
            Err(_) if !block.contains("allow") && !block.contains("tenant") => {
                return Ok(Front::default());
            }
            Err(e) => {
                return Err(format!("the front matter is no YAML: {}", first_line(&e.to_string())));
            }
        };
        let mut front = Front::default();
        for (key, value) in &parsed {
            match (key.as_str(), value) {
                ("title", _) => {}
                ("allow", value) => front.allow = Some(principals(value)?),
                ("tenant", Json::String(tenant)) if !tenant.is_empty() => {
                    front.tenant = Some(tenant.clone())
                }
                ("tenant", other) => return Err(format!("tenant is {other}: expected a name")),
                ("metadata", Json::Object(_)) => flatten("", value, &mut front.metadata),
                (key, value) => flatten(key, value, &mut front.metadata),
            }
        }
        Ok(front)
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The lines between `---` at the very start and the next `---` or `...`, as CommonMark readers have it: a blank
/// line behind the first makes it a rule.
fn front_matter(text: &str) -> Option<&str> {
    let (opening, rest) = text.split_once('\n')?;
    if opening.trim_end() != "---" || rest.lines().next()?.trim().is_empty() {
        return None;
    }
    let mut at = 0;
    for line in rest.split_inclusive('\n') {
        if matches!(line.trim_end(), "---" | "...") {
            return Some(&rest[..at]);
        }
        at += line.len();
    }
    None
}

/// `"everyone"`, or a list of names.
fn principals(value: &Json) -> Result<Option<Vec<String>>, String> {
    match (value, Value::from_json(value)) {
        (Json::String(word), _) if word == "everyone" => Ok(None),
        (Json::Array(_), Some(Value::Strings(names))) => Ok(Some(names)),
        _ => Err(format!("allow is {value}: expected \"everyone\" or a list of names")),
    }
}

/// Adds a value under its name, and what is in a map under names with dots. What is no metadata is kept as JSON text.
fn flatten(name: &str, value: &Json, into: &mut Metadata) {
    match value {
        Json::Null => {}
        Json::Object(map) => map.iter().for_each(|(key, value)| {
            let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            flatten(&name, value, into);
        }),
        value => {
            let kept = Value::from_json(value).unwrap_or_else(|| Value::String(value.to_string()));
            into.insert(name.to_owned(), kept);
        }
    }
}

fn from_toml(value: &toml::Value) -> Json {
    match value {
        toml::Value::String(text) => text.clone().into(),
        toml::Value::Integer(n) => (*n).into(),
        // Those that are not finite become null, which is no value.
        toml::Value::Float(n) => (*n).into(),
        toml::Value::Boolean(b) => (*b).into(),
        toml::Value::Datetime(date) => date.to_string().into(),
        toml::Value::Array(list) => list.iter().map(from_toml).collect(),
        toml::Value::Table(table) => table.iter().map(|(k, v)| (k.clone(), from_toml(v))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(sidecar: &str, path: &str, text: &str) -> String {
        let front = Front::of_markdown(text).unwrap();
        serde_json::to_string(&Rules::parse(sidecar).unwrap().properties(path, front)).unwrap()
    }

    const RULES: &str = r#"
        [[documents]]
        match = "hr/**"
        allow = ["staff"]
        tenant = "acme"
        metadata = { department = "hr", year = 2023, since = 2023-05-01, score = nan }

        [[documents]]
        match = ["hr/public/*.md", "*.txt"]
        allow = "everyone"
        metadata = { year = 2024 }
    "#;

    #[test]
    fn later_rules_go_before_earlier_ones() {
        let check = |path: &str, expected: &str| assert_eq!(said(RULES, path, ""), expected);
        check("a.md", r#"{"metadata":{},"allow":null,"tenant":null}"#);
        check(
            "hr/a/b.md",
            r#"{"metadata":{"department":"hr","since":"2023-05-01","year":2023},"allow":["staff"],"tenant":"acme"}"#,
        );
        check(
            "hr/public/b.md",
            r#"{"metadata":{"department":"hr","since":"2023-05-01","year":2024},"allow":null,"tenant":"acme"}"#,
        );
        // A star stays in its folder.
        check("x/b.txt", r#"{"metadata":{},"allow":null,"tenant":null}"#);
        let paths = ["hr/a.md", "b.txt"];
        let rules = Rules::parse(RULES).unwrap();
        assert_eq!(rules.without_documents(paths.into_iter()), ["hr/public/*.md"]);
    }

    #[test]
    fn a_document_describes_itself_but_does_not_open_itself() {
        let text = "---\ntitle: T\nyear: 2020\nallow: [anna]\ntenant: other\nauthor:\n  name: A\ntags: [no, y]\n\
                    sizes: [1, 2]\nnothing:\nday: 2024-05-01\n---\nText";
        assert_eq!(
            said("", "hr/b.md", text),
            r#"{"metadata":{"author.name":"A","day":"2024-05-01","sizes":"[1,2]","tags":["no","y"],"year":2020},"allow":["anna"],"tenant":"other"}"#
        );
        assert_eq!(
            said(RULES, "hr/b.md", "---\nyear: 2020\nallow: everyone\ntenant: other\n---\n"),
            r#"{"metadata":{"department":"hr","since":"2023-05-01","year":2020},"allow":["staff"],"tenant":"acme"}"#
        );
        assert_eq!(
            said("", "b.md", "---\r\nmetadata: {a: 1}\r\nallow: []\r\n...\r\n"),
            r#"{"metadata":{"a":1},"allow":[],"tenant":null}"#
        );
    }

    #[test]
    fn access_that_is_not_understood_is_an_error() {
        for text in [
            "---\nallow: anna\n---\n",
            "---\nallow: [1]\n---\n",
            "---\nallow:\n---\n",
            "---\ntenant: 5\n---\n",
            "---\nallow: [anna\n---\n",
            "---\nallow: [a]\nallow: everyone\n---\n",
        ] {
            let error = Front::of_markdown(text).unwrap_err();
            assert!(error.contains("expected") || error.contains("no YAML"), "{text:?} {error}");
        }
        for text in [
            "",
            "---",
            "---\n",
            "---\n\nallow: 5\n---\n",
            "---\nallow: 5\n",
            "text\n---\nallow: 5\n---\n",
            "---\na rule\n---\n",
            "---\na: b: c\n---\n",
        ] {
            assert_eq!(Front::of_markdown(text), Ok(Front::default()), "{text:?}");
        }
        let refused = |text: &str, word: &str| {
            let error = Rules::parse(text).err().unwrap();
            assert!(error.contains(word), "{error}");
        };
        refused("[[documents]]\nmatch = 'a'\nallowed = []", "allowed");
        refused("[[document]]\nmatch = 'a'", "document");
        refused("[[documents]]\nmatch = 'a'\nallow = 'anna'", "everyone");
        refused("[[documents]]\nmatch = 'a'\nallow = [1]", "everyone");
        refused("[[documents]]\nmatch = 'a['", "a[");
        refused("[[documents]]\nallow = []", "match");
    }

    #[test]
    fn an_expanding_front_matter_is_no_bomb() {
        let mut text = "---\nallow: [a]\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..20 {
            let row = vec![format!("*a{}", n - 1); 10].join(", ");
            text += &format!("a{n}: &a{n} [{row}]\n");
        }
        assert!(Front::of_markdown(&(text + "---\n")).is_err());
    }
}
