//! `openai:<model>@<base-url>`.

use std::fmt;
use std::str::FromStr;

use crate::RemoteError;

const PREFIX: &str = "openai:";

/// A model of a server, as a project file names it: `openai:<model>@<base-url>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSpec {
    /// The server's name of the model.
    pub model: String,
    /// Where `/chat/completions` hangs, without a slash at the end; with most servers it ends in `/v1`.
    pub base_url: String,
}

impl RemoteSpec {
    /// Whether `spec` means a remote model, well formed or not.
    pub fn is_remote(spec: &str) -> bool {
        spec.starts_with(PREFIX)
    }
}

impl FromStr for RemoteSpec {
    type Err = RemoteError;

    fn from_str(spec: &str) -> Result<Self, RemoteError> {
        let refuse = |spec: &str, reason| Err(RemoteError::Spec { spec: spec.to_owned(), reason });
        let rest = spec.strip_prefix(PREFIX).unwrap_or(spec);
        // Names of models may hold `@` and `:`; the address is what follows the last `@http`.
        let Some((at, scheme)) = ["http://", "https://"]
            .iter()
            .filter_map(|s| Some((rest.rfind(&format!("@{s}"))?, s)))
            .max()
        else {
            return refuse(
                spec,
                "expected openai:<model>@<base-url> with an http:// or https:// address",
            );
        };
        let (model, base_url) = (&rest[..at], rest[at + 1..].trim_end_matches('/'));
        if model.is_empty() {
            return refuse(spec, "the name of the model is missing before @");
        }
        let host =
            base_url[scheme.len().min(base_url.len())..].split('/').next().unwrap_or_default();
        if host.contains('@') {
            // Not quoted: it may be a password.
            return refuse(
                "openai:…",
                "the address may hold no user or password; name the variable of the key instead",
            );
        }
        if host.is_empty() {
            return refuse(spec, "the address names no host");
        }
        if base_url.contains(['?', '#']) || base_url.contains(char::is_whitespace) {
            return refuse("openai:…", "the address may hold no query, fragment or white space");
        }
        Ok(RemoteSpec { model: model.to_owned(), base_url: base_url.to_owned() })
    }
}

impl fmt::Display for RemoteSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}@{}", self.model, self.base_url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn good(spec: &str, model: &str, base_url: &str) {
        let parsed: RemoteSpec = spec.parse().expect("a spec");
        assert_eq!((parsed.model.as_str(), parsed.base_url.as_str()), (model, base_url));
        assert_eq!(parsed.to_string().parse::<RemoteSpec>().expect("its own text"), parsed);
    }

    #[test]
    fn model_and_address_are_told_apart() {
        good("openai:gpt-x@https://api.example.com/v1/", "gpt-x", "https://api.example.com/v1");
        good(
            "openai:org/m:7b@v2@http://localhost:11434/v1",
            "org/m:7b@v2",
            "http://localhost:11434/v1",
        );
        good("openai:m@http://[::1]:8000", "m", "http://[::1]:8000");
    }

    #[test]
    fn what_is_no_spec_is_refused() {
        for bad in [
            "openai:",
            "openai:m",
            "openai:@http://h/v1",
            "openai:m@http://",
            "openai:m@ftp://h",
            "openai:m@http://user:secret@h/v1",
            "openai:m@https://h/v1?key=secret",
            "openai:m@http://h /v1",
        ] {
            let error = bad.parse::<RemoteSpec>().expect_err(bad);
            assert!(matches!(error, RemoteError::Spec { .. }), "{bad}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
