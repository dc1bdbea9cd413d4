//! ZIP files whose parts are read within limits.

use std::io::{Cursor, Read as _};

use zip::ZipArchive;
use zip::result::ZipError;

use crate::{Limits, ParseError};

/// Packages that expand to less are not measured by how much that is of their size.
const SMALL: u64 = 16 << 20;

pub(crate) struct Package<'a> {
    format: &'static str,
    zip: ZipArchive<Cursor<&'a [u8]>>,
    size: u64,
    limits: Limits,
    expanded: u64,
}

impl<'a> Package<'a> {
    pub(crate) fn open(
        bytes: &'a [u8],
        format: &'static str,
        limits: &Limits,
    ) -> Result<Self, ParseError> {
        let zip = ZipArchive::new(Cursor::new(bytes))
            .map_err(|e| failed(format, "its list of parts", &e))?;
        if zip.len() > limits.parts {
            return Err(ParseError::Limit { what: "parts", limit: limits.parts as u64 });
        }
        Ok(Package { format, zip, size: bytes.len() as u64, limits: *limits, expanded: 0 })
    }

    /// Names of all parts, in the order of the archive.
    pub(crate) fn names(&self) -> Vec<String> {
        self.zip.file_names().filter_map(Result::ok).map(|name| name.into_owned()).collect()
    }

    /// A part, or `None` if there is none of this name.
    pub(crate) fn part(&mut self, name: &str) -> Result<Option<Vec<u8>>, ParseError> {
        let name = name.trim_start_matches('/');
        let most = self
            .limits
            .expanded_bytes
            .min(self.size.saturating_mul(self.limits.expansion).max(SMALL));
        let part = match self.zip.by_name(name) {
            Ok(part) => part,
            Err(ZipError::FileNotFound) => return Ok(None),
            Err(ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED)) => {
                return Err(ParseError::Password);
            }
            Err(e) => return Err(failed(self.format, name, &e)),
        };
        let mut bytes = Vec::new();
        part.take(most - self.expanded + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| failed(self.format, name, &e))?;
        self.expanded += bytes.len() as u64;
        if self.expanded > most {
            return Err(ParseError::Limit { what: "bytes after expansion", limit: most });
        }
        Ok(Some(bytes))
    }

    /// A part as text.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, ParseError> {
        let Some(bytes) = self.part(name)? else { return Ok(None) };
        crate::xml::decode(&bytes).map(Some).map_err(|e| failed(self.format, name, &e))
    }

    /// [`Package::text`] of a part without which there is no document.
    pub(crate) fn required(&mut self, name: &str) -> Result<String, ParseError> {
        let what = format!("{name} is missing");
        let missing = ParseError::Damaged { format: self.format, what };
        self.text(name)?.ok_or(missing)
    }

    /// Reads through a text of this package.
    pub(crate) fn walk(
        &self,
        text: &str,
        see: &mut dyn FnMut(crate::xml::Event<'_>),
    ) -> Result<(), ParseError> {
        crate::xml::walk(text, self.limits.depth, see).map_err(|e| match e {
            crate::xml::XmlError::Depth => {
                ParseError::Limit { what: "nested elements", limit: self.limits.depth as u64 }
            }
            crate::xml::XmlError::Malformed(what) => {
                ParseError::Damaged { format: self.format, what }
            }
        })
    }

    /// Targets of the relations of a part: id, type (its last word), name of the part.
    pub(crate) fn relations(&mut self, name: &str) -> Result<Vec<Relation>, ParseError> {
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
        let relations = if folder.is_empty() {
            format!("_rels/{file}.rels")
        } else {
            format!("{folder}/_rels/{file}.rels")
        };
        let Some(text) = self.text(&relations)? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        self.walk(&text, &mut |event| {
            if let crate::xml::Event::Open(e) = event
                && e.name() == "Relationship"
                && e.attr("TargetMode").as_deref() != Some("External")
                && let (Some(id), Some(kind), Some(target)) =
                    (e.attr("Id"), e.attr("Type"), e.attr("Target"))
            {
                let kind = kind.rsplit('/').next().unwrap_or_default().to_owned();
                found.push(Relation { id, kind, part: resolve(folder, &target) });
            }
        })?;
        Ok(found)
    }
}

pub(crate) struct Relation {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) part: String,
}

fn failed(format: &'static str, part: &str, e: &dyn std::fmt::Display) -> ParseError {
    ParseError::Damaged { format, what: format!("{part}: {e}") }
}

/// A path relative to a folder of the package.
pub(crate) fn resolve(folder: &str, target: &str) -> String {
    let target = target.split(['#', '?']).next().unwrap_or_default();
    let mut parts: Vec<&str> = Vec::new();
    let base = if target.starts_with('/') { "" } else { folder };
    for part in base.split('/').chain(target.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
