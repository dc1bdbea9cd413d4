//! Parsing in a process of its own, so that no file can crash, hang or exhaust the one that ingests.
//!
//! The binary starts itself with a hidden command, which limits its own memory, processor time and files,
//! and answers requests over pipes. Formats that are plain text are parsed here: their parsers are linear.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use assay_index::{InProcess, NotParsed, Parse};
use assay_text::{Format, Limits, Parsed};
use clap::Args;
use serde::{Deserialize, Serialize};

/// Name of the hidden command.
pub(crate) const COMMAND: &str = "parser-process";
/// A process is replaced after so many files: what one leaves in memory must not fail another.
const FILES: usize = 500;
/// Deep nesting needs stack, in parsers that recurse.
const STACK_BYTES: usize = 64 << 20;

/// What one file may cost.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct ParserLimits {
    /// Seconds that parsing one file may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub(crate) parse_seconds: u64,
    /// Memory that parsing one file may take.
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    pub(crate) parse_mib: u64,
}

impl Default for ParserLimits {
    fn default() -> Self {
        ParserLimits { parse_seconds: 120, parse_mib: 2048 }
    }
}

#[derive(Serialize, Deserialize)]
struct Request {
    format: Format,
    limits: Limits,
    /// Bytes of the file, which follow.
    bytes: u64,
}

/// [`Parse`] behind a process.
pub(crate) struct ParserProcess {
    limits: ParserLimits,
    worker: Mutex<Option<Worker>>,
}

impl ParserProcess {
    pub(crate) fn new(limits: ParserLimits) -> Self {
        ParserProcess { limits, worker: Mutex::new(None) }
    }
}

impl Parse for ParserProcess {
    fn parse(&self, bytes: &[u8], format: Format) -> Result<Parsed, NotParsed> {
        if !format.is_risky() {
            return InProcess::default().parse(bytes, format);
        }
        let mut held = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut worker = match held.take() {
                Some(worker) if worker.files < FILES => worker,
                _ => {
                    Worker::start(self.limits).map_err(|e| NotParsed::NoParser(format!("{e:#}")))?
                }
            };
            let fresh = worker.files == 0;
            match worker.ask(bytes, format) {
                Ok(answer) => {
                    *held = Some(worker);
                    return answer.map_err(NotParsed::File);
                }
                // It may have been the files before that filled its memory.
                Err(Lost::Ended) if !fresh => {}
                Err(Lost::Ended) => return Err(worker.obituary(self.limits).into()),
                Err(Lost::Late) => {
                    let seconds = self.limits.parse_seconds;
                    let why =
                        format!("parsing took more than {seconds} s; split the file or allow more");
                    return Err(why.into());
                }
            }
        }
    }
}

/// Why there is no answer.
enum Lost {
    Ended,
    Late,
}

/// This program itself, also after an update has put another one in its place.
fn program() -> io::Result<PathBuf> {
    let itself = Path::new("/proc/self/exe");
    if itself.exists() { Ok(itself.to_owned()) } else { std::env::current_exe() }
}

/// A parser process. It is killed when dropped.
struct Worker {
    child: Child,
    requests: BufWriter<ChildStdin>,
    answers: Receiver<io::Result<Vec<u8>>>,
    /// Collects what it says on standard error: panics, failed allocations.
    said: Option<JoinHandle<String>>,
    files: usize,
    patience: Duration,
}

impl Worker {
    fn start(limits: ParserLimits) -> Result<Self> {
        let program = program().context("this program's own path")?;
        let mut child = Command::new(program)
            .arg(COMMAND)
            .arg(format!("--parse-seconds={}", limits.parse_seconds))
            .arg(format!("--parse-mib={}", limits.parse_mib))
            // Nothing of the environment is its business.
            .env_clear()
            // The allocator would take half of what it may have before the first file.
            .env("MIMALLOC_ARENA_RESERVE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting the parser process")?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            anyhow::bail!("the parser process has no pipes");
        };
        let (sender, answers) = sync_channel(1);
        // A file takes a few times its text as an answer; more is a fault.
        let most = limits.parse_mib << 20;
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            loop {
                let answer = read_frame(&mut stdout, most);
                let last = answer.is_err();
                if sender.send(answer).is_err() || last {
                    return;
                }
            }
        });
        let said = std::thread::spawn(move || {
            let mut said = Vec::new();
            let mut stderr = BufReader::new(stderr);
            // The first words are enough; the rest is read so that the other side can go on.
            let _ = stderr.by_ref().take(16 << 10).read_to_end(&mut said);
            let _ = io::copy(&mut stderr, &mut io::sink());
            String::from_utf8_lossy(&said).into_owned()
        });
        let patience = Duration::from_secs(limits.parse_seconds);
        let requests = BufWriter::new(stdin);
        Ok(Worker { child, requests, answers, said: Some(said), files: 0, patience })
    }

    fn ask(
        &mut self,
        bytes: &[u8],
        format: Format,
    ) -> std::result::Result<Result<Parsed, String>, Lost> {
        self.files += 1;
        let request = Request { format, limits: Limits::default(), bytes: bytes.len() as u64 };
        let mut send = || -> io::Result<()> {
            write_frame(&mut self.requests, &serde_json::to_vec(&request)?)?;
            self.requests.write_all(bytes)?;
            self.requests.flush()
        };
        if send().is_err() {
            return Err(Lost::Ended);
        }
        match self.answers.recv_timeout(self.patience) {
            Ok(Ok(answer)) => serde_json::from_slice(&answer).map_err(|_| Lost::Ended),
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => Err(Lost::Ended),
            Err(RecvTimeoutError::Timeout) => Err(Lost::Late),
        }
    }

    /// Why it ended.
    fn obituary(&mut self, limits: ParserLimits) -> String {
        // It has closed its pipes, so it ends now or has ended.
        let _ = self.child.kill();
        let status = self.child.wait().ok();
        let said = self.said.take().and_then(|said| said.join().ok()).unwrap_or_default();
        if said.contains("memory allocation of") || said.contains("out of memory") {
            let mib = limits.parse_mib;
            return format!(
                "parsing needs more than {mib} MiB of memory; split the file or allow more"
            );
        }
        if said.contains("overflowed its stack") {
            return "the parser ran out of stack: the file is nested too deeply".to_owned();
        }
        if status.is_some_and(out_of_time) {
            let seconds = limits.parse_seconds;
            return format!("parsing took more than {seconds} s; split the file or allow more");
        }
        let status = status.map_or_else(|| "unknown status".to_owned(), |s| s.to_string());
        match said.lines().rev().find(|line| !line.trim().is_empty()) {
            Some(line) => format!("the parser crashed ({status}): {line}"),
            None => format!("the parser crashed ({status})"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(unix)]
fn out_of_time(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    /// SIGXCPU, which has this number on Linux and macOS.
    const OUT_OF_PROCESSOR_TIME: i32 = 24;
    status.signal() == Some(OUT_OF_PROCESSOR_TIME)
}

#[cfg(not(unix))]
fn out_of_time(_: ExitStatus) -> bool {
    false
}

fn write_frame(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(&(bytes.len() as u64).to_le_bytes())?;
    out.write_all(bytes)
}

fn read_frame(from: &mut impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut length = [0; 8];
    from.read_exact(&mut length)?;
    read_bytes(from, u64::from_le_bytes(length), most)
}

fn read_bytes(from: &mut impl Read, length: u64, most: u64) -> io::Result<Vec<u8>> {
    if length > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too long"));
    }
    let mut bytes = Vec::new();
    from.take(length).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

/// The hidden command: answers requests until there are no more.
pub(crate) fn serve(limits: ParserLimits) -> Result<()> {
    confine(limits).context("limits of the parser process")?;
    let work = move || -> Result<()> {
        let began = Instant::now();
        let mut requests = BufReader::new(io::stdin().lock());
        let mut answers = BufWriter::new(io::stdout().lock());
        loop {
            let request = match read_frame(&mut requests, 1 << 20) {
                Ok(request) => request,
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(e) => return Err(e.into()),
            };
            let request: Request = serde_json::from_slice(&request)?;
            let bytes = read_bytes(&mut requests, request.bytes, u64::MAX)?;
            limit_time(began, limits)?;
            let answer = assay_text::parse(&bytes, request.format, &request.limits);
            let answer = answer.map_err(|e| e.reason());
            write_frame(&mut answers, &serde_json::to_vec(&answer)?)?;
            answers.flush()?;
        }
    };
    let worker = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work)?;
    worker.join().map_err(|_| anyhow::anyhow!("the parser panicked"))?
}

/// No more memory than allowed, no files, no core dumps.
#[cfg(unix)]
fn confine(limits: ParserLimits) -> io::Result<()> {
    use rlimit::Resource;
    lower(Resource::AS, limits.parse_mib << 20)?;
    lower(Resource::FSIZE, 0)?;
    lower(Resource::CORE, 0)
}

/// Sets a soft limit, which needs no rights.
#[cfg(unix)]
fn lower(resource: rlimit::Resource, to: u64) -> io::Result<()> {
    let (_, most) = resource.get()?;
    resource.set(to.min(most), most)
}

#[cfg(not(unix))]
fn confine(_: ParserLimits) -> io::Result<()> {
    Ok(())
}

/// Should the other side be gone while a file is parsed, this ends it. Processor time counts from the start
/// of the process, of which it never is more than the time on the clock, by one thread.
#[cfg(unix)]
fn limit_time(began: Instant, limits: ParserLimits) -> io::Result<()> {
    let seconds = began.elapsed().as_secs() + limits.parse_seconds + 1;
    lower(rlimit::Resource::CPU, seconds)
}

#[cfg(not(unix))]
fn limit_time(_: Instant, _: ParserLimits) -> io::Result<()> {
    Ok(())
}
