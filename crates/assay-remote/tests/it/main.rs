//! The client against a server that speaks the real wire format and misbehaves as servers do.

mod answers;
mod failures;
mod server;

use std::time::Duration;

use assay_remote::{ChatRequest, RemoteModel, Settings};
use assay_types::{Message, Role};

/// Settings for a test: short waits, everything else as built in.
pub(crate) fn settings(base: &str) -> Settings {
    let spec = format!("openai:tiny@{base}").parse().expect("a spec");
    Settings {
        first_wait: Duration::from_millis(10),
        deadline: Duration::from_secs(60),
        ..Settings::new(spec)
    }
}

pub(crate) fn model(base: &str) -> RemoteModel {
    RemoteModel::new(settings(base)).expect("a client")
}

pub(crate) fn question() -> ChatRequest {
    ChatRequest::greedy(vec![Message::new(Role::User, "What is the capital of France?")], 16)
}
