//! A small HTTP server that speaks the Hub's paths and misbehaves on request.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What a path answers.
#[derive(Clone)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The connection ends after so many bytes of the body, once per entry, first entry first.
    pub(crate) cuts: Vec<usize>,
}

impl Page {
    pub(crate) fn ok(body: &[u8]) -> Self {
        Page { status: 200, headers: Vec::new(), body: body.to_vec(), cuts: Vec::new() }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// One request as it came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
}

pub(crate) struct Server {
    pub(crate) endpoint: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub(crate) fn start(pages: Vec<(&str, Page)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let pages: HashMap<String, Page> = pages.into_iter().map(|(p, a)| (p.into(), a)).collect();
        let (pages, seen) = (Arc::new(Mutex::new(pages)), Arc::new(Mutex::new(Vec::new())));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (pages, log) = (Arc::clone(&pages), Arc::clone(&log));
                std::thread::spawn(move || answer(&stream, &pages, &log));
            }
        });
        Server { endpoint, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn answer(stream: &TcpStream, pages: &Mutex<HashMap<String, Page>>, log: &Mutex<Vec<Seen>>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(path) = lines.next().and_then(|l| Some(l.split(' ').nth(1)?.to_owned())) else {
        return;
    };
    let headers: HashMap<String, String> = lines
        .take_while(|l| !l.is_empty())
        .filter_map(|l| l.split_once(": ").map(|(n, v)| (n.to_lowercase(), v.to_owned())))
        .collect();
    let range = headers.get("range").cloned();
    log.lock().unwrap().push(Seen {
        path: path.clone(),
        range: range.clone(),
        authorization: headers.get("authorization").cloned(),
    });
    let (page, cut) = {
        let mut pages = pages.lock().unwrap();
        let Some(page) = pages.get_mut(&path) else {
            let _ = (&mut &*stream).write_all(
                b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            );
            return;
        };
        let cut = (!page.cuts.is_empty()).then(|| page.cuts.remove(0));
        (page.clone(), cut)
    };
    let from =
        range.and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let (status, body) = match from {
        Some(from) if page.status == 200 && from >= page.body.len() => (416, &[][..]),
        Some(from) if page.status == 200 => (206, &page.body[from..]),
        _ => (page.status, &page.body[..]),
    };
    let mut head =
        format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
    for (name, value) in &page.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let sent = cut.map_or(body, |n| &body[..n.min(body.len())]);
    let _ = (&mut &*stream).write_all(format!("{head}\r\n").as_bytes());
    let _ = (&mut &*stream).write_all(sent);
}
