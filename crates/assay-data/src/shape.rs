//! Row shapes: which fields a row has, and what item they make.

use std::collections::BTreeMap;
use std::fmt;

use assay_types::{Item, ItemId, RowRef, Split};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The fields that the rows of a dataset are written in.
///
/// Every shape also takes `id`, `split`, `doc_ids`, `answerable`, `system` and `tags` (or `slices`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// `messages`: `role` and `content` of one exchange, perhaps after a system message (OpenAI).
    Messages,
    /// `conversations`: `from` and `value` of one exchange (ShareGPT).
    Conversations,
    /// `prompt`, `completion`.
    PromptCompletion,
    /// `instruction`, `output`, and perhaps `input`, which is put below the instruction (Alpaca).
    Instruction,
    /// `question`, and `answer` or a list of `answers`, best first.
    QuestionAnswer,
    /// `text`, `label`.
    TextLabel,
}

impl Shape {
    /// All shapes, in the order in which a row is tried against them.
    pub const ALL: [Shape; 6] = [
        Shape::Messages,
        Shape::Conversations,
        Shape::PromptCompletion,
        Shape::Instruction,
        Shape::QuestionAnswer,
        Shape::TextLabel,
    ];

    /// The name by which a project file pins it.
    pub fn as_str(self) -> &'static str {
        match self {
            Shape::Messages => "messages",
            Shape::Conversations => "conversations",
            Shape::PromptCompletion => "prompt_completion",
            Shape::Instruction => "instruction",
            Shape::QuestionAnswer => "question_answer",
            Shape::TextLabel => "text_label",
        }
    }

    /// The field that tells the shape.
    fn main_field(self) -> &'static str {
        match self {
            Shape::Messages => "messages",
            Shape::Conversations => "conversations",
            Shape::PromptCompletion => "prompt",
            Shape::Instruction => "instruction",
            Shape::QuestionAnswer => "question",
            Shape::TextLabel => "text",
        }
    }

    /// The fields that hold the output.
    fn output_fields(self) -> &'static [&'static str] {
        match self {
            Shape::Messages | Shape::Conversations => &[],
            Shape::PromptCompletion => &["completion"],
            Shape::Instruction => &["output"],
            Shape::QuestionAnswer => &["answer", "answers"],
            Shape::TextLabel => &["label"],
        }
    }

    /// The shape of a row: the first one of which it has all fields, else the first whose main field it has.
    pub(crate) fn of(row: &Map<String, Value>) -> Option<Shape> {
        let has = |field: &&str| row.contains_key(*field);
        let begun = || Shape::ALL.into_iter().filter(|s| has(&s.main_field()));
        begun()
            .find(|s| s.output_fields().is_empty() || s.output_fields().iter().any(has))
            .or_else(|| begun().next())
    }

    /// Whether this shape reads the field.
    pub(crate) fn reads(self, field: &str) -> bool {
        self.main_field() == field
            || self.output_fields().contains(&field)
            || (self == Shape::Instruction && field == "input")
            || COMMON.contains(&field)
            || TAGS.iter().any(|t| field.strip_prefix(t).is_some_and(|f| f.starts_with('.')))
    }
}

impl fmt::Display for Shape {
    /// The fields, as a person would name them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Shape::Messages => "`messages`",
            Shape::Conversations => "`conversations`",
            Shape::PromptCompletion => "`prompt`/`completion`",
            Shape::Instruction => "`instruction`/`output`",
            Shape::QuestionAnswer => "`question`/`answer`",
            Shape::TextLabel => "`text`/`label`",
        })
    }
}

const TAGS: [&str; 2] = ["tags", "slices"];
const COMMON: [&str; 7] = ["id", "split", "doc_ids", "answerable", "system", "tags", "slices"];

/// Whether a row is a preference pair.
pub(crate) fn is_preference(row: &Map<String, Value>) -> bool {
    row.contains_key("chosen") && row.contains_key("rejected")
}

/// What is wrong with a row, before its place is known.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) what: String,
    pub(crate) hint: Option<String>,
}

impl Fault {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Fault { what: what.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn type_of(field: &str, expected: &str, value: &Value) -> Self {
        let got = match value {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        Fault::new(format!("`{field}` must be {expected}, and is {got}"))
    }
}

type Parsed<T> = Result<T, Fault>;

/// A row that has been understood.
pub(crate) struct Row {
    pub(crate) item: Item,
    /// Whether the row named itself.
    pub(crate) own_id: bool,
    pub(crate) split: Option<Split>,
}

/// Reads a row in `shape`.
pub(crate) fn read_row(shape: Shape, row: &Map<String, Value>, source: RowRef) -> Parsed<Row> {
    let answerable = boolean(row, "answerable")?;
    let (system, input, references) = match shape {
        Shape::Messages => exchange(row, "messages", "role", "content")?,
        Shape::Conversations => exchange(row, "conversations", "from", "value")?,
        Shape::PromptCompletion | Shape::QuestionAnswer | Shape::TextLabel => {
            (None, required(row, shape.main_field())?, outputs(shape, row, answerable)?)
        }
        Shape::Instruction => {
            let instruction = required(row, "instruction")?;
            let input = match string(row, "input")?.filter(|s| !is_blank(s)) {
                Some(input) => format!("{instruction}\n\n{input}"),
                None => instruction,
            };
            (None, input, outputs(shape, row, answerable)?)
        }
    };
    let system = match (system, string(row, "system")?.filter(|s| !is_blank(s))) {
        (Some(_), Some(_)) => {
            return Err(Fault::new("has both a system message and a `system` field"));
        }
        (a, b) => a.or(b),
    };
    let id = id(row)?;
    let own_id = id.is_some();
    let id = ItemId(id.unwrap_or_else(|| content_id(&input, system.as_deref(), &references)));
    let doc_ids = strings(row, "doc_ids")?.into_iter().map(|d| clean_path(&d)).collect();
    let slices = slices(row)?;
    let item = Item { id, input, system, references, doc_ids, answerable, slices, source };
    Ok(Row { item, own_id, split: split(row)? })
}

/// The references of a row whose output is a field.
fn outputs(
    shape: Shape,
    row: &Map<String, Value>,
    answerable: Option<bool>,
) -> Parsed<Vec<String>> {
    let present = |f: &&&str| row.get(**f).is_some_and(|v| !v.is_null());
    let Some(field) = shape.output_fields().iter().find(present) else {
        if answerable == Some(false) {
            return Ok(Vec::new());
        }
        let fields: Vec<_> = shape.output_fields().iter().map(|f| format!("`{f}`")).collect();
        let fault = Fault::new(format!("has no {}", fields.join(" or ")));
        let field = shape.output_fields()[0];
        let unread = row.keys().map(String::as_str).filter(|f| !shape.reads(f));
        return Err(match (nearest(field, unread), shape) {
            (Some(near), _) => fault.hint(format!("is `{near}` meant to be `{field}`?")),
            (None, Shape::QuestionAnswer) => fault.hint(
                "give it one, or say `\"answerable\": false` if the documents do not hold it",
            ),
            (None, _) => fault.hint("give it one, or remove the row"),
        });
    };
    let list = shape == Shape::QuestionAnswer;
    let references = match &row[*field] {
        Value::Array(values) if list => {
            values.iter().map(|v| output(field, v)).collect::<Parsed<Vec<_>>>()?
        }
        value => vec![output(field, value)?],
    };
    let filled = references.iter().filter(|r| !is_blank(r)).count();
    match answerable {
        Some(false) if filled > 0 => {
            Err(Fault::new(format!("says `answerable` false and gives `{field}`"))
                .hint("leave the answer out: how to decline is set for the whole project"))
        }
        Some(false) => Ok(Vec::new()),
        _ if filled < references.len() => {
            Err(Fault::new(format!("`{field}` is empty")).hint("fill it, or remove the row"))
        }
        _ => Ok(references),
    }
}

/// One output: text, or JSON for tasks that produce JSON. Labels may be numbers.
fn output(field: &str, value: &Value) -> Parsed<String> {
    match value {
        Value::String(s) if field == "label" => Ok(s.trim().to_owned()),
        Value::String(s) => Ok(s.clone()),
        Value::Number(n) if field == "label" => Ok(n.to_string()),
        Value::Bool(b) if field == "label" => Ok(b.to_string()),
        Value::Object(_) if field != "label" => Ok(value.to_string()),
        Value::Array(_) if matches!(field, "completion" | "output") => Ok(value.to_string()),
        _ if field == "label" => Err(Fault::type_of(field, "a string", value)),
        _ => Err(Fault::type_of(field, "text (or an object)", value)),
    }
}

/// The one exchange of a conversation: system, input, the one reference.
fn exchange(
    row: &Map<String, Value>,
    field: &str,
    who: &str,
    what: &str,
) -> Parsed<(Option<String>, String, Vec<String>)> {
    let turns = match row.get(field) {
        Some(Value::Array(turns)) => turns,
        Some(other) => return Err(Fault::type_of(field, "a list of turns", other)),
        None => return Err(missing(row, field)),
    };
    let mut read = Vec::with_capacity(turns.len());
    for (n, turn) in turns.iter().enumerate() {
        let part = |key: &str| match turn.get(key) {
            Some(Value::String(s)) => Ok(s.as_str()),
            Some(other) => Err(Fault::type_of(&format!("{field}[{n}].{key}"), "a string", other)),
            None => Err(Fault::new(format!("`{field}[{n}]` has no `{key}`"))),
        };
        let role = match part(who)? {
            "system" | "developer" => 's',
            "user" | "human" => 'u',
            "assistant" | "gpt" => 'a',
            other => {
                return Err(Fault::new(format!("`{field}[{n}].{who}` is `{other}`"))
                    .hint("turns are by system, user or assistant"));
            }
        };
        let text = part(what)?;
        if is_blank(text) {
            return Err(Fault::new(format!("`{field}[{n}].{what}` is empty")));
        }
        read.push((role, text.to_owned()));
    }
    let roles: String = read.iter().map(|(role, _)| role).collect();
    let mut texts = read.into_iter().map(|(_, text)| text);
    let mut next = || texts.next().unwrap_or_default();
    match roles.as_str() {
        "ua" => Ok((None, next(), vec![next()])),
        "sua" => Ok((Some(next()), next(), vec![next()])),
        "" => Err(Fault::new(format!("`{field}` is empty"))),
        "u" | "su" => Err(Fault::new(format!("`{field}` has no answer of the assistant"))),
        _ => Err(Fault::new(format!("`{field}` is not one exchange of user and assistant"))
            .hint("write one row for each answer that is to be scored")),
    }
}

fn required(row: &Map<String, Value>, field: &str) -> Parsed<String> {
    match string(row, field)? {
        Some(text) if !is_blank(&text) => Ok(text),
        Some(_) => {
            Err(Fault::new(format!("`{field}` is empty")).hint("fill it, or remove the row"))
        }
        None => Err(missing(row, field)),
    }
}

/// A field that is not there, with the most similar one that is.
fn missing(row: &Map<String, Value>, field: &str) -> Fault {
    let fault = Fault::new(format!("has no `{field}`"));
    match nearest(field, row.keys().map(String::as_str)) {
        Some(near) => fault.hint(format!("is `{near}` meant to be `{field}`?")),
        None => fault,
    }
}

/// The most similar name, if one is similar at all.
pub(crate) fn nearest<'a>(name: &str, among: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    among
        .map(|other| (strsim::jaro_winkler(name, other), other))
        .filter(|(similarity, _)| *similarity >= 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1)))
        .map(|(_, other)| other)
}

fn string(row: &Map<String, Value>, field: &str) -> Parsed<Option<String>> {
    match row.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) => Ok(Some(s.clone())),
        Some(other) => Err(Fault::type_of(field, "a string", other)),
    }
}

fn boolean(row: &Map<String, Value>, field: &str) -> Parsed<Option<bool>> {
    match row.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(b)) => Ok(Some(*b)),
        Some(other) => Err(Fault::type_of(field, "true or false", other)),
    }
}

/// A list of strings, or a single one.
fn strings(row: &Map<String, Value>, field: &str) -> Parsed<Vec<String>> {
    match row.get(field) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(s)) => Ok(vec![s.clone()]),
        Some(Value::Array(values)) => values
            .iter()
            .map(|v| match v {
                Value::String(s) => Ok(s.clone()),
                other => Err(Fault::type_of(field, "a list of strings", other)),
            })
            .collect(),
        Some(other) => Err(Fault::type_of(field, "a list of strings", other)),
    }
}

fn id(row: &Map<String, Value>) -> Parsed<Option<String>> {
    match row.get("id") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) if !is_blank(s) => Ok(Some(s.trim().to_owned())),
        Some(Value::String(_)) => Err(Fault::new("`id` is empty").hint("fill it, or leave it out")),
        Some(Value::Number(n)) => Ok(Some(n.to_string())),
        Some(other) => Err(Fault::type_of("id", "a string or a number", other)),
    }
}

fn split(row: &Map<String, Value>) -> Parsed<Option<Split>> {
    Ok(match string(row, "split")?.as_deref() {
        None => None,
        Some("train") => Some(Split::Train),
        Some("dev" | "validation" | "valid" | "val") => Some(Split::Dev),
        Some("test") => Some(Split::Test),
        Some("general") => Some(Split::General),
        Some(other) => {
            return Err(Fault::new(format!("`split` is `{other}`"))
                .hint("splits are train, dev, test and general"));
        }
    })
}

fn slices(row: &Map<String, Value>) -> Parsed<BTreeMap<String, String>> {
    let mut slices = BTreeMap::new();
    let mut add = |field: &str, name: &str, value: &Value| {
        let text = match value {
            Value::String(s) => s.clone(),
            Value::Number(n) => n.to_string(),
            Value::Bool(b) => b.to_string(),
            Value::Null => return Ok(()),
            other => return Err(Fault::type_of(field, "text, a number, true or false", other)),
        };
        slices.insert(name.to_owned(), text);
        Ok(())
    };
    for tags in TAGS {
        match row.get(tags) {
            None | Some(Value::Null) => {}
            Some(Value::Object(map)) => map
                .iter()
                .try_for_each(|(name, value)| add(&format!("{tags}.{name}"), name, value))?,
            Some(other) => {
                return Err(Fault::type_of(tags, "an object", other)
                    .hint("write it as {\"type\": \"procedure\"}"));
            }
        }
        for (field, value) in row {
            if let Some(name) = field.strip_prefix(tags).and_then(|f| f.strip_prefix('.')) {
                add(field, name, value)?;
            }
        }
    }
    Ok(slices)
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

fn clean_path(path: &str) -> String {
    let path = path.trim().replace('\\', "/");
    path.strip_prefix("./").unwrap_or(&path).to_owned()
}

/// Sixteen hex digits of the hash of what the item says.
fn content_id(input: &str, system: Option<&str>, references: &[String]) -> String {
    let text =
        serde_json::to_string(&(input, system, references)).expect("strings have a JSON form");
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}
