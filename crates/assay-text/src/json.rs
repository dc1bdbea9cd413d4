//! JSON: one line for each value, `path: value`, one block for each record.
//!
//! A record is an element of the outermost array, a line of JSON Lines, or else the whole file. Keys and
//! strings are unescaped, numbers stay as they are written, and of keys that occur twice both are kept.

use serde::de::IgnoredAny;

use crate::write::Writer;
use crate::{BlockKind, ParseError, Parsed};

pub(crate) fn parse(source: &str) -> Result<Parsed, ParseError> {
    check(source)?;
    let mut writer = Writer::default();
    let mut walker = Walker::default();
    let mut rest = source.as_bytes();
    while let Some((token, after)) = token(rest) {
        walker.token(token);
        if walker.record_ended() {
            writer.block(BlockKind::Other, &std::mem::take(&mut walker.out));
        }
        rest = after;
    }
    Ok(writer.finish(None))
}

/// All of it is JSON, so that the walk below need not look.
fn check(source: &str) -> Result<(), ParseError> {
    let values = serde_json::Deserializer::from_str(source).into_iter::<IgnoredAny>();
    for value in values {
        value.map_err(|e| ParseError::Damaged { format: "JSON", what: e.to_string() })?;
    }
    Ok(())
}

/// The next token and what follows it; commas and colons are not needed.
fn token(source: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = source.iter().position(|b| !b" \t\r\n,:".contains(b))?;
    let source = &source[start..];
    let end = match source[0] {
        b'{' | b'}' | b'[' | b']' => 1,
        b'"' => {
            let mut at = 1;
            while source.get(at).is_some_and(|b| *b != b'"') {
                at += 1 + usize::from(source[at] == b'\\');
            }
            at + 1
        }
        _ => source.iter().position(|b| b" \t\r\n,:{}[]\"".contains(b)).unwrap_or(source.len()),
    };
    Some(source.split_at(end.min(source.len())))
}

#[derive(Default)]
struct Walker {
    /// Open objects (with the key that waits for its value) and arrays (with the number of the next element).
    open: Vec<Step>,
    out: String,
}

enum Step {
    Object { key: Option<String> },
    Array { next: usize },
}

impl Walker {
    fn token(&mut self, token: &[u8]) {
        match token[0] {
            b'{' => self.open.push(Step::Object { key: None }),
            b'[' => self.open.push(Step::Array { next: 0 }),
            b'}' | b']' => {
                self.open.pop();
                self.value_ended();
            }
            b'"' => {
                let text: String = serde_json::from_slice(token).unwrap_or_default();
                match self.open.last_mut() {
                    Some(Step::Object { key: key @ None }) => *key = Some(text),
                    _ => self.value(&text),
                }
            }
            _ => self.value(&String::from_utf8_lossy(token)),
        }
    }

    fn value(&mut self, value: &str) {
        // The number of a record is of no use; those below it say which value is which.
        let outermost = usize::from(matches!(self.open.first(), Some(Step::Array { .. })));
        for (i, step) in self.open[outermost..].iter().enumerate() {
            match step {
                Step::Object { key } => {
                    self.out.push_str(if i > 0 { "." } else { "" });
                    self.out.push_str(key.as_deref().unwrap_or_default());
                }
                Step::Array { next } => self.out.push_str(&format!("[{next}]")),
            }
        }
        if self.open.len() > outermost {
            self.out.push_str(": ");
        }
        self.out.push_str(value.trim());
        self.out.push('\n');
        self.value_ended();
    }

    fn value_ended(&mut self) {
        match self.open.last_mut() {
            Some(Step::Object { key }) => *key = None,
            Some(Step::Array { next }) => *next += 1,
            None => {}
        }
    }

    fn record_ended(&self) -> bool {
        match &self.open[..] {
            [] => true,
            [Step::Array { next }] => *next > 0,
            _ => false,
        }
    }
}
