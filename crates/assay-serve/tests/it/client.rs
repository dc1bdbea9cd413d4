//! A running server and plain requests to it.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};

use assay_serve::{CallerHeaders, Service, serve};
use serde_json::Value;

use crate::echo::Echo;

/// Starts a server that lives as long as the test process.
pub(crate) fn start() -> (Arc<Echo>, String) {
    let echo = Arc::new(Echo::default());
    let address = start_with(Arc::clone(&echo) as Arc<dyn Service>);
    (echo, format!("http://{address}"))
}

fn start_with(service: Arc<dyn Service>) -> SocketAddr {
    let (ready, address) = mpsc::channel();
    std::thread::spawn(move || {
        serve(service, ([127, 0, 0, 1], 0).into(), headers(), |at| ready.send(at).unwrap())
            .unwrap();
    });
    address.recv().unwrap()
}

fn headers() -> CallerHeaders {
    CallerHeaders { principals: Some("X-Principals".into()), tenant: Some("X-Tenant".into()) }
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The data of the server-sent events.
    pub(crate) fn events(&self) -> Vec<&str> {
        self.text.lines().filter_map(|l| l.strip_prefix("data: ")).collect()
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent()
}

fn reply(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Reply {
    let mut response = response.unwrap();
    let headers = response.headers().iter();
    let headers = headers.map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
    let text = response.body_mut().read_to_string().unwrap();
    Reply { status: response.status().as_u16(), headers, text }
}

pub(crate) fn get(url: &str) -> Reply {
    reply(agent().get(url).call())
}

pub(crate) fn post(url: &str, body: &str) -> Reply {
    reply(agent().post(url).content_type("application/json").send(body))
}

/// With headers.
pub(crate) fn post_as(url: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let post =
        headers.iter().fold(agent().post(url), |post, (name, value)| post.header(*name, *value));
    reply(post.content_type("application/json").send(body))
}

/// A chat request that says `text`, with further fields.
pub(crate) fn chat(base: &str, text: &str, fields: &str) -> Reply {
    let body =
        serde_json::json!({ "model": "echo", "messages": [{ "role": "user", "content": text }] });
    let mut body: Value = body;
    let more: Value = serde_json::from_str(&format!("{{{fields}}}")).unwrap();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    post(&format!("{base}/v1/chat/completions"), &body.to_string())
}
