//! Answers, whole and streamed.

use std::ops::ControlFlow;

use assay_remote::{
    Alternative, ApiKey, ChatRequest, RemoteError, RemoteModel, Reply, TokenLogprob,
};
use assay_types::{FinishReason, Usage};
use serde_json::json;

use crate::server::{Act, Server, delta, ending, error, json, stream, whole};
use crate::{model, question, settings};

const USAGE: Option<Usage> = Some(Usage { input_tokens: 11, output_tokens: 3 });

fn streamed(
    model: &RemoteModel,
    request: &ChatRequest,
) -> (Result<Reply, RemoteError>, Vec<String>) {
    let mut pieces = Vec::new();
    let reply = model.chat_streamed(request, &mut |text| {
        pieces.push(text.to_owned());
        ControlFlow::Continue(())
    });
    (reply, pieces)
}

#[test]
fn a_whole_answer_and_what_is_asked() {
    let server = Server::start(|_, _| whole("Paris."));
    let key = Some(ApiKey::new(" sk-test-1 \n"));
    let model = RemoteModel::new(assay_remote::Settings { key, ..settings(&server.base) }).unwrap();
    let reply = model.chat(&question()).unwrap();
    assert_eq!(
        (reply.text.as_str(), reply.finish, reply.usage, reply.tries),
        ("Paris.", FinishReason::Stop, USAGE, 1)
    );
    assert_eq!(reply.logprobs, None);

    let seen = &server.seen()[0];
    assert!(seen.head.starts_with("POST /v1/chat/completions HTTP/1.1"), "{}", seen.head);
    assert_eq!(seen.header("authorization"), Some("Bearer sk-test-1"));
    assert_eq!(
        seen.body,
        json!({
            "model": "tiny",
            "messages": [{ "role": "user", "content": "What is the capital of France?" }],
            "max_tokens": 16, "temperature": 0.0, "seed": 0, "stream": false,
        })
    );
}

#[test]
fn a_streamed_answer_comes_in_pieces_with_its_usage() {
    let server = Server::start(|_, _| {
        stream(&(delta("Pa") + &delta("ris") + ": keep-alive\n\n" + &ending("length")))
    });
    let (reply, pieces) = streamed(&model(&server.base), &question());
    let reply = reply.unwrap();
    assert_eq!(pieces, ["Pa", "ris"]);
    assert_eq!(
        (reply.text.as_str(), reply.finish, reply.usage),
        ("Paris", FinishReason::Length, USAGE)
    );
    assert!(reply.first_text_ms <= reply.total_ms);
    assert_eq!(server.seen()[0].body["stream_options"], json!({ "include_usage": true }));
}

#[test]
fn a_caller_who_breaks_off_keeps_what_there_is() {
    let server =
        Server::start(|_, _| stream(&(delta("a") + &delta("b") + &delta("c") + &ending("stop"))));
    let reply =
        model(&server.base).chat_streamed(&question(), &mut |_| ControlFlow::Break(())).unwrap();
    assert!("abc".starts_with(&reply.text) && !reply.text.is_empty(), "{}", reply.text);
    // What the server counted by then is not known.
    assert_eq!(reply.usage, None);
}

#[test]
fn a_server_that_does_not_stream_is_understood() {
    let server = Server::start(|_, _| whole("Paris."));
    let (reply, pieces) = streamed(&model(&server.base), &question());
    assert_eq!((reply.unwrap().text.as_str(), pieces), ("Paris.", vec!["Paris.".to_owned()]));
}

#[test]
fn without_a_count_the_usage_is_unknown() {
    let server = Server::start(|_, _| {
        json(&json!({ "choices": [{ "message": { "content": "x" }, "finish_reason": "stop" }] }))
    });
    assert_eq!(model(&server.base).chat(&question()).unwrap().usage, None);
}

#[test]
fn log_probabilities_are_asked_for_and_typed() {
    let at = |token: &str| json!({ "token": token, "logprob": -0.5, "top_logprobs": [{ "token": token, "logprob": -0.5 }] });
    let server = Server::start(move |_, _| {
        let chunk = |t: &str| {
            let chunk = json!({ "choices": [{ "delta": { "content": t }, "logprobs": { "content": [at(t)] } }] });
            format!("data: {chunk}\n\n")
        };
        stream(&(chunk("Pa") + &chunk("ris") + &ending("stop")))
    });
    let request = ChatRequest { logprobs: Some(1), ..question() };
    let reply = streamed(&model(&server.base), &request).0.unwrap();
    let expected = ["Pa", "ris"].map(|t| TokenLogprob {
        token: t.into(),
        logprob: -0.5,
        top: vec![Alternative { token: t.into(), logprob: -0.5 }],
    });
    assert_eq!(reply.logprobs.as_deref(), Some(&expected[..]));
    let body = &server.seen()[0].body;
    assert_eq!((&body["logprobs"], &body["top_logprobs"]), (&json!(true), &json!(1)));
}

#[test]
fn a_form_is_sent_as_it_is() {
    let server = Server::start(|_, _| whole("{}"));
    let model = model(&server.base);
    let form = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": { "type": "object" } } });
    model.chat(&ChatRequest { response_format: Some(form.clone()), ..question() }).unwrap();
    model.chat(&question()).unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].body["response_format"], form);
    assert_eq!(seen[1].body.get("response_format"), None);
}

#[test]
fn a_parameter_that_the_server_refuses_is_said_as_it_wants_and_remembered() {
    let server = Server::start(|_, seen| {
        if seen.body.get("max_tokens").is_some() {
            error(
                "400 Bad Request",
                "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
            )
        } else if seen.body.get("seed").is_some() {
            error("422 Unprocessable Entity", "body.seed: extra inputs are not permitted")
        } else {
            whole("Paris.")
        }
    });
    let model = model(&server.base);
    assert_eq!(model.chat(&question()).unwrap().text, "Paris.");
    assert_eq!(model.chat(&question()).unwrap().text, "Paris.");
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    assert_eq!(seen[3].body["max_completion_tokens"], 16);
}

#[test]
fn many_questions_are_answered_in_their_order() {
    let server = Server::start(|_, seen| {
        let asked = seen.body["messages"][0]["content"].as_str().unwrap_or_default().to_owned();
        if asked == "7" { error("400 Bad Request", "not this one") } else { whole(&asked) }
    });
    let requests: Vec<ChatRequest> = (0..40)
        .map(|i| {
            let message = assay_types::Message::new(assay_types::Role::User, i.to_string());
            ChatRequest::greedy(vec![message], 4)
        })
        .collect();
    let replies = model(&server.base).chat_all(&requests);
    for (i, reply) in replies.iter().enumerate() {
        match reply {
            Ok(reply) => assert_eq!(reply.text, i.to_string()),
            Err(e) => {
                assert!(i == 7 && matches!(e, RemoteError::Status { status: 400, .. }), "{i}: {e}")
            }
        }
    }
    assert_eq!(server.seen().len(), 40);
}

#[test]
fn chunked_bodies_and_utf8_cut_between_reads_are_whole() {
    let server = Server::start(|_, _| {
        let events = delta("größer: ½ ≥ ¼") + &ending("stop");
        let (a, b) = events.as_bytes().split_at(events.find('ß').unwrap() + 1);
        let mut raw = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for part in [a, b] {
            raw.extend(format!("{:x}\r\n", part.len()).into_bytes());
            raw.extend(part);
            raw.extend(b"\r\n");
        }
        raw.extend(b"0\r\n\r\n");
        Act::Raw(raw)
    });
    let (reply, _) = streamed(&model(&server.base), &question());
    assert_eq!(reply.unwrap().text, "größer: ½ ≥ ¼");
}
