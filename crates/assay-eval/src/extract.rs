//! Structured output: does it satisfy the schema, and are the fields right?

use assay_types::Score;
use serde_json::Value;

use crate::EvalError;
use crate::form::yes;
use crate::squad::bag_f1;

/// A compiled JSON schema. Remote references are refused: nothing is fetched.
#[derive(Debug)]
pub struct Schema(jsonschema::Validator);

impl Schema {
    /// Compiles a schema, of the draft that its `$schema` names, else the newest.
    pub fn new(schema: &Value) -> Result<Self, EvalError> {
        jsonschema::validator_for(schema).map(Schema).map_err(|e| EvalError::Schema {
            at: e.instance_path().to_string(),
            reason: e.to_string(),
        })
    }

    /// 1 if the whole answer is one JSON value that satisfies the schema, else 0.
    ///
    /// White space around it is allowed, prose and code fences are not: what reads the answer would fail on them.
    pub fn valid(&self, answer: &str) -> Score {
        yes(serde_json::from_str::<Value>(answer).is_ok_and(|v| self.0.is_valid(&v)))
    }
}

/// F1 over the fields of two JSON values, 0..=1: a field is right if its path and its value are.
///
/// Elements of an array share one path, so their order does not matter; `null` is an absent field; strings are
/// compared trimmed, numbers by value. An answer that is not JSON scores 0; a reference that is not is a failure.
/// Two values without fields score 1.
pub fn slot_f1(answer: &str, reference: &str) -> Score {
    let reference = match serde_json::from_str(reference) {
        Ok(value) => slots(&value),
        Err(error) => return Score::Failed(format!("the reference is not JSON: {error}")),
    };
    let Ok(answer) = serde_json::from_str(answer) else {
        return Score::Scored(0.0);
    };
    let answer = slots(&answer);
    let empty = answer.is_empty() && reference.is_empty();
    Score::Scored(if empty { 1.0 } else { bag_f1(&answer, &reference) })
}

/// `(path, value)` of every scalar.
fn slots(value: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![(String::new(), value)];
    while let Some((path, value)) = open.pop() {
        match value {
            Value::Null => {}
            Value::Bool(b) => found.push((path, b.to_string())),
            // Through f64, so that 1 and 1.0 agree; marked, so that "1" does not.
            Value::Number(n) => found.push((path, format!("#{}", n.as_f64().unwrap_or(f64::MAX)))),
            Value::String(s) => found.push((path, format!("\"{}", s.trim()))),
            Value::Array(a) => open.extend(a.iter().map(|v| (format!("{path}[]"), v))),
            Value::Object(o) => open.extend(o.iter().map(|(k, v)| (format!("{path}/{k}"), v))),
        }
    }
    found
}
