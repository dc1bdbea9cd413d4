//! The Hugging Face Hub over plain HTTP: listing a repository, and files with resume.
//!
//! Protocol: `GET /api/models/{repo}/revision/{rev}?blobs=true` lists files with sizes and, for large ones, sha256;
//! `GET /{repo}/resolve/{rev}/{file}` answers with the file or a redirect to it, and the first answer carries
//! the sha256 of a large file as `X-Linked-Etag`.

use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use fs_err as fs;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use ureq::http::{HeaderMap, Response};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::cache::{self, Folder};
use super::{FetchConfig, Progress, SourceError, Wanted};
use crate::catalog::{HubSource, is_plain_path};

const REDIRECTS: usize = 5;
/// Broken connections in a row, without one new byte between them, after which a source is given up.
const FRUITLESS: usize = 3;

pub(crate) struct Hub {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

#[derive(Deserialize)]
struct Listing {
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
}

impl Hub {
    pub(crate) fn new(config: &FetchConfig) -> Result<Self, SourceError> {
        if config.hub_offline {
            return Err(SourceError::Offline);
        }
        // The platform's certificates: people behind an inspecting proxy have its root there.
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("assay/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(config.connect_timeout))
            .timeout_connect(Some(config.connect_timeout))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .timeout_per_read(Some(Duration::from_secs(30)))
            .build()
            .new_agent();
        let endpoint = config.hub_endpoint.trim_end_matches('/').to_owned();
        Ok(Hub { agent, endpoint, token: config.hub_token.clone() })
    }

    /// Every file of a repository.
    pub(crate) fn list(&self, repo: &HubSource) -> Result<Vec<Wanted>, SourceError> {
        let HubSource { repo, revision } = repo;
        let url = format!("{}/api/models/{repo}/revision/{revision}?blobs=true", self.endpoint);
        let (mut response, _) = self.get(&url, 0)?;
        expect_status(&url, &response)?;
        let text = response.body_mut().read_to_string().map_err(|e| unreachable(&url, e))?;
        let listing: Listing = serde_json::from_str(&text)
            .map_err(|e| SourceError::Protocol { url: url.clone(), reason: e.to_string() })?;
        let plain = |s: &Sibling| is_plain_path(&s.rfilename);
        Ok(listing
            .siblings
            .into_iter()
            .filter(plain)
            .map(|s| Wanted { path: s.rfilename, bytes: s.size, sha256: s.lfs.map(|l| l.sha256) })
            .collect())
    }

    /// Downloads one file, going on where an earlier attempt stopped.
    pub(crate) fn fetch(
        &self,
        repo: &HubSource,
        w: &Wanted,
        folder: &mut Folder,
        source: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), SourceError> {
        let HubSource { repo, revision } = repo;
        let url = format!("{}/{repo}/resolve/{revision}/{}", self.endpoint, w.path);
        let part = folder.part(w)?;
        // Without a sum to compare with, nobody could tell that a part belongs to another revision.
        if w.sha256.is_none() {
            remove(&part)?;
        }
        let (mut fruitless, mut resumed, mut restarted) = (0, len(&part) > 0, false);
        loop {
            let before = len(&part);
            let error = match self.append(&url, w, &part, progress) {
                Ok(sum) => match folder.finish(w, &part, sum, source) {
                    // Perhaps the earlier half was of another file: once more, from the beginning.
                    Err(SourceError::Checksum { .. }) if resumed && !restarted => {
                        (resumed, restarted) = (false, true);
                        continue;
                    }
                    done => return done,
                },
                Err(e @ SourceError::Unreachable { .. }) => e,
                Err(e) => return Err(e),
            };
            fruitless = if len(&part) > before { 0 } else { fruitless + 1 };
            // A connection that never came about is not tried again: the next source is quicker.
            if fruitless >= FRUITLESS || len(&part) == 0 {
                return Err(error);
            }
            resumed = true;
        }
    }

    /// One request that completes `part`, or gets as far as it can. Returns the sum of the whole file.
    fn append(
        &self,
        url: &str,
        w: &Wanted,
        part: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<String, SourceError> {
        let have = len(part);
        if w.bytes.is_some_and(|total| have >= total) {
            // Complete, or longer than the file: the sum decides.
            return Ok(cache::sha256_file(part)?);
        }
        let (mut response, linked) = self.get(url, have)?;
        if response.status() == 416 {
            remove(part)?;
            return self.append(url, w, part, progress);
        }
        expect_status(url, &response)?;
        let from = if response.status() == 206 { have } else { 0 };
        check_announced(w, &response, &linked, from)?;

        let mut hasher = Sha256::new();
        let mut out = fs::OpenOptions::new().create(true).append(true).open(part)?;
        if from == 0 {
            out.set_len(0)?;
        } else {
            cache::copy(&mut fs::File::open(part)?, &mut io::sink(), &mut hasher, &mut |_| {})?;
        }
        let total = w.bytes.or_else(|| Some(from + content_length(response.headers())?));
        let mut done = from;
        let mut body = FromNetwork { url, body: response.body_mut().as_reader() };
        let copied = cache::copy(&mut body, &mut out, &mut hasher, &mut |n| {
            done += n;
            progress(Progress::Bytes { file: &w.path, done, total });
        });
        copied.map_err(network_or_disk)?;
        match total {
            Some(total) if done < total => Err(SourceError::Unreachable {
                url: url.into(),
                reason: format!("the connection ended after {done} of {total} bytes"),
            }),
            _ => Ok(cache::hex(hasher.finalize())),
        }
    }

    /// Follows redirects by hand: their first answer has the sum, and the token is for the Hub alone.
    fn get(&self, url: &str, from: u64) -> Result<(Response<Body>, HeaderMap), SourceError> {
        let mut at = url.to_owned();
        let mut linked = HeaderMap::new();
        for _ in 0..=REDIRECTS {
            let mut request = self.agent.get(&at);
            if let Some(token) = self.token.as_ref().filter(|_| self.is_ours(&at)) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            if from > 0 {
                request = request.header("range", format!("bytes={from}-"));
            }
            let response = request.call().map_err(|e| unreachable(&at, e))?;
            for name in ["x-linked-etag", "x-linked-size"] {
                if let Some(value) = response.headers().get(name) {
                    linked.insert(name, value.clone());
                }
            }
            if !response.status().is_redirection() {
                return Ok((response, linked));
            }
            let location = response.headers().get("location").and_then(|v| v.to_str().ok());
            at = match location {
                Some(l) if l.starts_with('/') => format!("{}{l}", origin(&at)),
                Some(l) => l.to_owned(),
                None => {
                    let reason = "a redirect without an address".into();
                    return Err(SourceError::Protocol { url: at, reason });
                }
            };
        }
        Err(SourceError::Protocol { url: url.into(), reason: "too many redirects".into() })
    }

    fn is_ours(&self, url: &str) -> bool {
        origin(url) == origin(&self.endpoint)
    }
}

/// Scheme, host and port.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |i| i + 3);
    url[host..].find('/').map_or(url, |i| &url[..host + i])
}

fn expect_status(url: &str, response: &Response<Body>) -> Result<(), SourceError> {
    match response.status().as_u16() {
        200 | 206 => Ok(()),
        status => Err(SourceError::Status { url: url.into(), status }),
    }
}

/// Compares what the server says about a file with what is wanted, before its bytes are paid for.
fn check_announced(
    w: &Wanted,
    response: &Response<Body>,
    linked: &HeaderMap,
    from: u64,
) -> Result<(), SourceError> {
    let etag = linked.get("x-linked-etag").and_then(|v| v.to_str().ok());
    let got = etag.map(|e| e.trim_start_matches("W/").trim_matches('"').to_lowercase());
    let is_sum = |s: &String| s.len() == 64 && s.bytes().all(|b| b.is_ascii_hexdigit());
    if let (Some(expected), Some(got)) = (w.sha256.clone(), got.filter(is_sum))
        && expected != got
    {
        return Err(SourceError::Checksum { file: w.path.clone(), expected, got });
    }
    if let (Some(expected), Some(rest)) = (w.bytes, content_length(response.headers()))
        && expected != from + rest
    {
        return Err(SourceError::Size { file: w.path.clone(), expected, got: from + rest });
    }
    Ok(())
}

/// Length of the body, unless it is compressed on the way.
fn content_length(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key("content-encoding") {
        return None;
    }
    headers.get("content-length")?.to_str().ok()?.parse().ok()
}

fn unreachable(url: &str, error: ureq::Error) -> SourceError {
    SourceError::Unreachable { url: url.into(), reason: error.to_string() }
}

/// Marks errors of the connection, so that those of the disk stay apart from them.
struct FromNetwork<'a, R> {
    url: &'a str,
    body: R,
}

#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
struct NetworkError {
    url: String,
    reason: String,
}

impl<R: Read> Read for FromNetwork<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.body.read(buf).map_err(|e| {
            io::Error::other(NetworkError { url: self.url.into(), reason: e.to_string() })
        })
    }
}

fn network_or_disk(error: io::Error) -> SourceError {
    match error.downcast::<NetworkError>() {
        Ok(NetworkError { url, reason }) => SourceError::Unreachable { url, reason },
        Err(disk) => disk.into(),
    }
}

fn len(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |m| m.len())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
