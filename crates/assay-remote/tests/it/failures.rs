//! What passes is tried again; what does not is an error at once, with a hint and without the key.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use assay_remote::{ApiKey, Blame, RemoteError, RemoteModel, Settings};
use assay_types::Usage;
use serde_json::json;

use crate::server::{Act, Server, delta, ending, error, json, stream, whole};
use crate::{model, question, settings};

const USAGE: Option<Usage> = Some(Usage { input_tokens: 11, output_tokens: 3 });

/// The first requests get `failures`, all others the answer.
fn after(failures: Vec<Act>) -> Server {
    Server::start(move |n, _| failures.get(n).cloned().unwrap_or_else(|| whole("Paris.")))
}

#[track_caller]
fn recovers(failure: Act, usage: Option<Usage>) {
    let server = after(vec![failure]);
    let reply = model(&server.base).chat(&question()).unwrap();
    assert_eq!((reply.text.as_str(), reply.tries, reply.usage), ("Paris.", 2, usage));
}

/// An error that is not tried again.
#[track_caller]
fn refused(answer: Act, blame: Blame, says: &str) -> RemoteError {
    let server = after(vec![answer]);
    let error = model(&server.base).chat(&question()).unwrap_err();
    assert_eq!((error.blame(), server.seen().len()), (blame, 1), "{error}");
    assert!(error.to_string().contains(says), "{error}");
    error
}

#[test]
fn failures_that_pass_are_tried_again() {
    recovers(error("500 Internal Server Error", "oops"), USAGE);
    recovers(error("503 Service Unavailable", "loading the model"), USAGE);
    recovers(Act::Reply("502 Bad Gateway\r\n".into(), "<html>".into()), USAGE);
}

#[test]
fn tries_that_the_server_worked_on_make_the_usage_unknown() {
    recovers(
        Act::Reply("200 OK\r\ncontent-type: application/json\r\n".into(), "{\"choices\": [".into()),
        None,
    );
    recovers(
        Act::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{\"choices\": [".to_vec()),
        None,
    );
    recovers(Act::Raw(Vec::new()), None);
}

#[test]
fn a_silent_server_is_asked_again() {
    let server = after(vec![Act::Hang]);
    let settings = Settings { read_timeout: Duration::from_secs(2), ..settings(&server.base) };
    let reply = RemoteModel::new(settings).unwrap().chat(&question()).unwrap();
    // On a machine that is busy enough the answer may be late as well: two tries at least.
    assert_eq!((reply.text.as_str(), reply.usage), ("Paris.", None));
    assert!(reply.tries >= 2, "{}", reply.tries);
}

#[test]
fn a_lost_try_with_a_count_is_added_to_the_usage() {
    let lost =
        json(&json!({ "choices": [], "usage": { "prompt_tokens": 11, "completion_tokens": 0 } }));
    recovers(lost, Some(Usage { input_tokens: 22, output_tokens: 3 }));
}

#[test]
fn retry_after_is_honoured() {
    let busy = Act::Reply("429 Too Many Requests\r\nretry-after: 1\r\n".into(), String::new());
    let server = after(vec![busy]);
    let reply = model(&server.base).chat(&question()).unwrap();
    assert_eq!((reply.tries, reply.usage), (2, USAGE));
    assert!(reply.total_ms >= 1000.0, "{}", reply.total_ms);

    // An hour is more than the deadline: nobody waits for it.
    let closed = Act::Reply("429 Too Many Requests\r\nretry-after: 3600\r\n".into(), String::new());
    let server = after(vec![closed]);
    let error = model(&server.base).chat(&question()).unwrap_err();
    assert!(matches!(error, RemoteError::Status { status: 429, .. }), "{error}");
    assert_eq!((error.blame(), server.seen().len()), (Blame::Moment, 1));
}

#[test]
fn tries_end_and_the_last_reason_is_told() {
    let server = Server::start(|_, _| error("500 Internal Server Error", "still broken"));
    let error = model(&server.base).chat(&question()).unwrap_err();
    assert!(matches!(error, RemoteError::Exhausted { tries: 5, .. }), "{error}");
    assert!(error.to_string().contains("still broken"), "{error}");
    assert_eq!((error.blame(), server.seen().len()), (Blame::Moment, 5));
}

#[test]
fn failures_that_do_not_pass_are_errors_at_once() {
    let e = refused(error("401 Unauthorized", "no key"), Blame::Server, "401: no key");
    assert!(e.hint().unwrap().contains("api_key_env"));
    refused(error("403 Forbidden", "not yours"), Blame::Server, "not yours");
    let e = refused(error("404 Not Found", "no such model"), Blame::Server, "no such model");
    assert!(e.hint().unwrap().contains("/v1"));
    let e = refused(
        error("400 Bad Request", "maximum context length is 2048"),
        Blame::Request,
        "context length",
    );
    assert!(e.hint().unwrap().contains("prompt_tokens"));
    let quota = json!({ "error": { "message": "no money", "code": "insufficient_quota" } });
    let quota = Act::Reply("429 Too Many Requests\r\n".into(), quota.to_string());
    assert!(refused(quota, Blame::Server, "no money").hint().unwrap().contains("quota"));
    let filtered = json!({ "choices": [{ "message": { "content": null }, "finish_reason": "content_filter" }] });
    refused(json(&filtered), Blame::Request, "content_filter");
}

#[test]
fn a_redirect_is_named_and_not_followed() {
    let elsewhere = Server::start(|_, _| whole("stolen"));
    let to = format!("307 Temporary Redirect\r\nlocation: {}/chat/completions\r\n", elsewhere.base);
    let e = refused(Act::Reply(to, String::new()), Blame::Server, &elsewhere.base);
    assert!(e.hint().unwrap().contains("base URL"));
    assert!(elsewhere.seen().is_empty());
}

#[test]
fn the_key_is_in_no_error_and_no_debug_output() {
    const KEY: &str = "sk-very-secret-4711";
    let echo = Server::start(|n, seen| {
        let said = seen.header("authorization").unwrap_or_default().to_owned();
        match n {
            0 => error("401 Unauthorized", &format!("bad key: {said}")),
            1 => Act::Reply("400 Bad Request\r\n".into(), said),
            2 => Act::Reply(format!("302 Found\r\nlocation: /login?{said}\r\n"), String::new()),
            _ => stream(&format!("data: {}\n\n", json!({ "error": { "message": said } }))),
        }
    });
    let settings = Settings { key: Some(ApiKey::new(KEY)), tries: 2, ..settings(&echo.base) };
    assert!(!format!("{settings:?}").contains(KEY));
    let model = RemoteModel::new(settings).unwrap();
    assert!(!format!("{model:?}").contains(KEY));
    for n in 0..4 {
        let error =
            model.chat_streamed(&question(), &mut |_| ControlFlow::Continue(())).unwrap_err();
        let text = format!("{error} {error:?} {:?}", error.hint());
        assert!(!text.contains(KEY), "{text}");
        assert!(text.contains("[key]"), "{n}: {text}");
    }
    assert!(echo.seen().iter().all(|s| s.head.contains(KEY)), "the server itself gets it");
}

#[test]
fn a_key_that_no_header_carries_is_refused() {
    for bad in ["", "two words", "zwölf", "a\nb"] {
        let settings =
            Settings { key: Some(ApiKey::new(bad)), ..settings("http://127.0.0.1:9/v1") };
        assert!(matches!(RemoteModel::new(settings), Err(RemoteError::Key)), "{bad:?}");
    }
}

#[test]
fn a_stream_that_breaks_off_goes_on_without_saying_anything_twice() {
    let server = Server::start(|n, _| match n {
        0 => stream(&(delta("Par") + &delta("is is "))),
        1 => stream(&delta("P")),
        2 => stream(
            &(delta("Paris")
                + &format!("data: {}\n\n", json!({ "error": { "message": "out of memory" } }))),
        ),
        _ => stream(&(delta("Paris is the") + &delta(" capital.") + &ending("stop"))),
    });
    let mut said = String::new();
    let reply = model(&server.base).chat_streamed(&question(), &mut |text| {
        said += text;
        ControlFlow::Continue(())
    });
    let reply = reply.unwrap();
    assert_eq!(
        (said.as_str(), reply.text.as_str()),
        ("Paris is the capital.", "Paris is the capital.")
    );
    assert_eq!((reply.tries, reply.usage), (4, None));
}

#[test]
fn a_second_try_that_says_something_else_is_an_error() {
    let server = Server::start(|n, _| match n {
        0 => stream(&delta("Paris")),
        _ => stream(&(delta("London") + &ending("stop"))),
    });
    let mut said = String::new();
    let error = model(&server.base).chat_streamed(&question(), &mut |text| {
        said += text;
        ControlFlow::Continue(())
    });
    assert!(matches!(error, Err(RemoteError::BrokenOff { .. })), "{error:?}");
    assert_eq!(said, "Paris");
}

#[test]
fn a_cut_stream_is_never_a_short_answer() {
    let server = Server::start(|_, _| stream(&delta("Paris")));
    let error = model(&server.base).chat_streamed(&question(), &mut |_| ControlFlow::Continue(()));
    let error = error.unwrap_err();
    assert!(error.to_string().contains("broke off"), "{error}");
}

/// An address where nobody listens.
fn nobody() -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("http://127.0.0.1:{port}/v1")
}

#[test]
fn where_nobody_listens_questions_end_soon() {
    let model =
        RemoteModel::new(Settings { give_up_after: Some(5), ..settings(&nobody()) }).unwrap();
    let replies = model.chat_all(&vec![question(); 100]);
    let given_up = |r: &&Result<_, RemoteError>| matches!(r, Err(RemoteError::Down { .. }));
    let tried = replies.iter().filter(|r| !given_up(r)).count();
    // Five failures, and what was under way at once beside them.
    assert!((5..=5 + 7).contains(&tried), "{tried} were tried");
    let last = replies.last().unwrap().as_ref().unwrap_err();
    assert_eq!(last.blame(), Blame::Server);
    assert!(last.to_string().contains("cannot be reached"), "{last}");
    assert!(last.hint().unwrap().contains("running"));
}

#[test]
fn a_wrong_key_ends_all_questions_with_its_own_error() {
    let server = Server::start(|_, _| error("401 Unauthorized", "no key"));
    let model =
        RemoteModel::new(Settings { give_up_after: Some(5), ..settings(&server.base) }).unwrap();
    let replies = model.chat_all(&vec![question(); 50]);
    assert!(replies.iter().all(|r| matches!(r, Err(RemoteError::Status { status: 401, .. }))));
    assert!(server.seen().len() <= 8, "{}", server.seen().len());
}

#[test]
fn a_server_keeps_being_asked_where_nothing_was_given_up() {
    let server = after(vec![error("401 Unauthorized", "not yet"); 3]);
    let model = model(&server.base);
    for _ in 0..3 {
        assert!(model.chat(&question()).is_err());
    }
    assert_eq!(model.chat(&question()).unwrap().text, "Paris.");
}

#[test]
fn a_caller_who_stops_does_not_wait_for_the_server() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let server = Server::start(|n, _| {
        if n == 1 {
            STOP.store(true, Ordering::SeqCst);
        }
        Act::Hang
    });
    let stopped = || STOP.load(Ordering::SeqCst);
    let model =
        RemoteModel::new(Settings { stopped, concurrency: 2, ..settings(&server.base) }).unwrap();
    // The server would hang for minutes: that this ends is the test.
    let replies = model.chat_all(&vec![question(); 9]);
    assert!(replies.iter().all(|r| matches!(r, Err(RemoteError::Stopped))), "{replies:?}");
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn the_deadline_covers_all_tries() {
    let server = Server::start(|_, _| Act::Hang);
    let settings = Settings { deadline: Duration::from_millis(300), ..settings(&server.base) };
    let error = RemoteModel::new(settings).unwrap().chat(&question()).unwrap_err();
    let of_time = matches!(error, RemoteError::Deadline { .. } | RemoteError::Timeout { .. });
    assert!(of_time && error.blame() == Blame::Moment, "{error}");
}
