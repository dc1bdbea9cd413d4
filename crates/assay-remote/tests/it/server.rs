//! A server that answers by script: the n-th request gets what the script says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

/// What came in.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head
            .lines()
            .find_map(|l| l.to_lowercase().starts_with(&prefix).then(|| &l[prefix.len()..]))
    }
}

/// What goes out.
#[derive(Clone)]
pub(crate) enum Act {
    /// Status line and headers, then the body with its length.
    Reply(String, String),
    /// Bytes as they are, then the connection is closed.
    Raw(Vec<u8>),
    /// Nothing, for longer than any test waits.
    Hang,
}

pub(crate) struct Server {
    pub(crate) base: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Listens until the test process ends. `script` gets the number of the request, from 0.
    pub(crate) fn start(script: impl Fn(usize, &Seen) -> Act + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let base = format!("http://{}/v1", listener.local_addr().expect("an address"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (all, script) = (Arc::clone(&seen), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (all, script) = (Arc::clone(&all), Arc::clone(&script));
                std::thread::spawn(move || {
                    let Some(request) = read(&stream) else { return };
                    let n = {
                        let mut all = all.lock().expect("the list");
                        all.push(request.clone());
                        all.len() - 1
                    };
                    act(stream, script(n, &request));
                });
            }
        });
        Server { base, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("the list").clone()
    }
}

fn read(stream: &TcpStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut seen = Seen { head, body: Value::Null };
    let length = seen.header("content-length")?.trim().parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    seen.body = serde_json::from_slice(&body).ok()?;
    Some(seen)
}

fn act(mut stream: TcpStream, act: Act) {
    // The client may have left; that is its right.
    let _ = match act {
        Act::Reply(head, body) => write!(
            stream,
            "HTTP/1.1 {head}content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        ),
        Act::Raw(bytes) => stream.write_all(&bytes),
        Act::Hang => {
            std::thread::sleep(Duration::from_secs(300));
            Ok(())
        }
    };
}

/// A whole answer, with the usage 11 + 3.
pub(crate) fn whole(text: &str) -> Act {
    json(&serde_json::json!({
        "id": "x", "object": "chat.completion", "model": "tiny",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14 },
    }))
}

pub(crate) fn json(body: &Value) -> Act {
    Act::Reply("200 OK\r\ncontent-type: application/json\r\n".into(), body.to_string())
}

pub(crate) fn error(status: &str, message: &str) -> Act {
    let body =
        serde_json::json!({ "error": { "message": message, "type": "error", "code": null } });
    Act::Reply(format!("{status}\r\ncontent-type: application/json\r\n"), body.to_string())
}

/// One event with a piece of text.
pub(crate) fn delta(text: &str) -> String {
    let chunk = serde_json::json!({
        "object": "chat.completion.chunk",
        "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }],
    });
    format!("data: {chunk}\n\n")
}

/// The events that end a streamed answer, with the usage 11 + 3.
pub(crate) fn ending(reason: &str) -> String {
    format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"{reason}\"}}],\"usage\":null}}\n\n\
         data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":11,\"completion_tokens\":3}}}}\n\n\
         data: [DONE]\n\n"
    )
}

/// A streamed answer; what `events` leaves out is never sent.
pub(crate) fn stream(events: &str) -> Act {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    Act::Raw((head.to_owned() + events).into_bytes())
}
