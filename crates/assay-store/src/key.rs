use std::fmt;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

/// BLAKE3 of `bytes`, 64 lower-case hex digits.
pub fn hash_bytes(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// BLAKE3 of a file's content, read in pieces; the error names the file.
pub fn hash_file(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(fs_err::File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// BLAKE3 of a value's JSON form. Maps are hashed in the order of their keys, so two values that
/// are equal as JSON have one hash, whatever order they were written in.
///
/// # Panics
/// When the value has no JSON form (a map whose keys are not strings): a mistake in the program.
pub fn hash_json<T: Serialize + ?Sized>(value: &T) -> String {
    let value = serde_json::to_value(value).expect("the value has a JSON form");
    let mut hasher = blake3::Hasher::new();
    hash_value(&mut hasher, &value);
    hasher.finalize().to_hex().to_string()
}

/// Every value is hashed as a type letter, a length and a body, so that no two values run together.
fn hash_value(hasher: &mut blake3::Hasher, value: &Value) {
    let mut part = |letter: u8, body: &[u8]| {
        hasher.update(&[letter]).update(&(body.len() as u64).to_le_bytes()).update(body);
    };
    match value {
        Value::Null => part(b'n', b""),
        Value::Bool(b) => part(b'b', &[u8::from(*b)]),
        Value::Number(n) => part(b'#', n.to_string().as_bytes()),
        Value::String(s) => part(b's', s.as_bytes()),
        Value::Array(items) => {
            part(b'[', &(items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| hash_value(hasher, item));
        }
        Value::Object(map) => {
            part(b'{', &(map.len() as u64).to_le_bytes());
            // Sorted here: the order of serde_json's own map depends on a feature of that crate.
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(k, _)| k.as_str());
            for (k, v) in entries {
                hash_value(hasher, &Value::String(k.clone()));
                hash_value(hasher, v);
            }
        }
    }
}

/// Name of an artifact: the step that makes it, and the hash of everything it is made from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    step: String,
    hash: String,
}

impl Key {
    /// Name of the step, e.g. `generate`.
    pub fn step(&self) -> &str {
        &self.step
    }

    /// BLAKE3 of step, version, inputs and settings, 64 hex digits. Usable as an input of another step.
    pub fn hash(&self) -> &str {
        &self.hash
    }
}

impl fmt::Display for Key {
    /// The step and the first twelve digits, for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.step, &self.hash[..12])
    }
}

/// Collects what a step depends on. The order of the calls does not matter.
#[derive(Clone, Debug)]
pub struct StepKey {
    step: &'static str,
    version: u32,
    parts: std::collections::BTreeMap<(&'static str, String), String>,
}

impl StepKey {
    /// A step by its name (`a-z`, `0-9`, `-`, `_`: it names a folder) and the version of its code.
    /// Raise the version when the step would make something else of the same inputs.
    pub fn new(step: &'static str, version: u32) -> Self {
        assert!(
            !step.is_empty()
                && step.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')),
            "`{step}` cannot name a step"
        );
        StepKey { step, version, parts: std::collections::BTreeMap::new() }
    }

    /// Something the step reads, by its content hash (of a file, a dataset, another step's [`Key`]).
    #[must_use]
    pub fn input(self, name: &str, hash: &str) -> Self {
        self.part("input", name, hash.to_owned())
    }

    /// Something the step is told.
    ///
    /// # Panics
    /// Like [`hash_json`].
    #[must_use]
    pub fn setting<T: Serialize + ?Sized>(self, name: &str, value: &T) -> Self {
        let hash = hash_json(value);
        self.part("setting", name, hash)
    }

    fn part(mut self, kind: &'static str, name: &str, hash: String) -> Self {
        let before = self.parts.insert((kind, name.to_owned()), hash);
        assert!(before.is_none(), "{kind} `{name}` of step `{}` is given twice", self.step);
        self
    }

    /// The key.
    pub fn finish(self) -> Key {
        let parts: Vec<_> = self.parts.iter().collect();
        let hash = hash_json(&(self.step, self.version, parts));
        Key { step: self.step.to_owned(), hash }
    }
}
