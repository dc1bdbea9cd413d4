//! Ports, full queues, clients that leave, and the end of the server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use assay_serve::{CallerHeaders, ServeError, serve};

use crate::client::{chat, start};
use crate::echo::Echo;

/// Waits for what another thread is about to do; the limit only ends a test that would hang.
#[track_caller]
fn wait_until(mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(20), "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a chat request and leaves the connection open.
fn open_chat(base: &str, text: &str, stream: bool) -> TcpStream {
    let body = format!(
        r#"{{"model":"echo","messages":[{{"role":"user","content":"{text}"}}],"stream":{stream}}}"#
    );
    let host = base.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(host).unwrap();
    write!(
        connection,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    connection
}

#[test]
fn a_port_in_use_is_an_error_of_its_own() {
    let (_, base) = start();
    let address = base.strip_prefix("http://").unwrap().parse().unwrap();
    let error =
        serve(Arc::new(Echo::default()), address, CallerHeaders::default(), |_| unreachable!())
            .unwrap_err();
    assert!(matches!(error, ServeError::PortInUse { address: a } if a == address), "{error}");
    assert!(error.hint().unwrap().contains(&address.port().to_string()));
}

#[test]
fn a_client_that_leaves_stops_its_generation() {
    let (echo, base) = start();
    let mut streaming = open_chat(&base, "forever", true);
    streaming.read_exact(&mut [0; 300]).unwrap();
    drop(streaming);
    wait_until(|| echo.broken_off.load(Ordering::SeqCst) == 1);

    let waiting = open_chat(&base, "forever", false);
    std::thread::sleep(Duration::from_millis(50));
    drop(waiting);
    wait_until(|| echo.broken_off.load(Ordering::SeqCst) == 2);
}

#[test]
fn a_full_queue_refuses_at_once_and_recovers() {
    let (echo, base) = start();
    let refused = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let ask = || {
            let reply = chat(&base, "hold", "");
            if reply.status == 503 {
                assert_eq!(reply.json()["error"]["code"], "busy");
                assert!(reply.header("retry-after").is_some());
                refused.fetch_add(1, Ordering::SeqCst);
            } else {
                assert_eq!(reply.status, 200);
            }
        };
        // 32 run, 64 wait, and of these 100 four are too many.
        for _ in 0..100 {
            scope.spawn(ask);
        }
        wait_until(|| refused.load(Ordering::SeqCst) == 4);
        wait_until(|| echo.held.load(Ordering::SeqCst) == 32);
        echo.open_gate();
    });
    assert_eq!(refused.load(Ordering::SeqCst), 4);
    assert_eq!(chat(&base, "and again", "").status, 200);
}

#[test]
fn clients_that_leave_the_queue_make_room() {
    let (echo, base) = start();
    let mut waiting: Vec<TcpStream> = (0..96).map(|_| open_chat(&base, "hold", false)).collect();
    let probe = || {
        let probe = open_chat(&base, "probe", false);
        status_within(&probe, Duration::from_millis(300))
    };
    // A probe that finds room may have taken the place of one of the 96, which was then refused:
    // each gets a follower, or the queue would stay one short for ever.
    wait_until(|| {
        let full = probe() == Some(503);
        if !full {
            waiting.push(open_chat(&base, "hold", false));
        }
        full
    });
    drop(waiting);
    // 32 answers are still held, so a request that finds room waits and hears nothing.
    wait_until(|| probe().is_none());
    assert_eq!(echo.held.load(Ordering::SeqCst), 32);
    echo.open_gate();
    wait_until(|| chat(&base, "probe", "").status == 200);
}

fn status_within(mut connection: &TcpStream, limit: Duration) -> Option<u16> {
    connection.set_read_timeout(Some(limit)).unwrap();
    let mut head = [0; 12];
    connection.read_exact(&mut head).ok()?;
    std::str::from_utf8(&head[9..]).ok()?.parse().ok()
}

/// Not a test of its own: [`a_signal_lets_running_answers_finish`] runs it in another process.
#[test]
#[ignore = "serves until it gets a signal"]
#[expect(clippy::print_stdout, reason = "tells the parent process where it listens")]
fn serve_until_signalled() {
    let echo = Arc::new(Echo::default());
    let service = Arc::clone(&echo);
    std::thread::spawn(move || {
        wait_until(|| echo.held.load(Ordering::SeqCst) == 1);
        // Longer than the parent takes from here to its signal.
        std::thread::sleep(Duration::from_secs(1));
        echo.open_gate();
    });
    serve(service, ([127, 0, 0, 1], 0).into(), CallerHeaders::default(), |at| {
        println!("\nlistening http://{at}")
    })
    .unwrap();
    println!("ended well");
}

#[cfg(unix)]
#[test]
fn a_signal_lets_running_answers_finish() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "life::serve_until_signalled", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|l| l.starts_with("listening ")).unwrap();
    let base = line.strip_prefix("listening ").unwrap().to_owned();
    let mut connection = open_chat(&base, "hold", true);
    std::thread::sleep(Duration::from_millis(300));
    let kill = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let mut reply = String::new();
    connection.read_to_string(&mut reply).unwrap();
    assert!(reply.contains("[DONE]"), "{reply}");
    assert!(TcpStream::connect(base.strip_prefix("http://").unwrap()).is_err());
    assert!(lines.any(|l| l.contains("ended well")));
    assert!(child.wait().unwrap().success());
}
