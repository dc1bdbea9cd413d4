//! Requests and responses, one route after another, and every error a client can cause.

use assay_serve::{AnswerForm, AnswerOptions, Caller};
use assay_types::{Message, Role};
use serde_json::{Value, json};

use crate::client::{Reply, chat, get, post, post_as, start};

#[track_caller]
fn check_error(reply: &Reply, status: u16, param: Option<&str>, code: Option<&str>, says: &str) {
    let error = &reply.json()["error"];
    let message = error["message"].as_str().unwrap_or_default();
    assert_eq!(reply.status, status, "{}", reply.text);
    assert_eq!((error["param"].as_str(), error["code"].as_str()), (param, code), "{}", reply.text);
    assert!(message.contains(says), "{message:?} does not contain {says:?}");
    let kind = if status < 500 { "invalid_request_error" } else { "server_error" };
    assert_eq!(error["type"], kind);
}

#[test]
fn a_whole_answer() {
    let (_, base) = start();
    let reply = chat(&base, "hello there", "");
    let mut json = reply.json();
    assert_eq!(reply.status, 200);
    assert!(reply.header("x-request-id").is_some());
    assert!(json["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert!(json["created"].as_u64().unwrap() > 1_700_000_000);
    for varying in ["id", "created"] {
        json.as_object_mut().unwrap().remove(varying);
    }
    let expected = json!({
        "object": "chat.completion",
        "model": "echo",
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": "hello there", "refusal": null, "annotations": [] },
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": { "prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9 },
    });
    assert_eq!(json, expected);
    assert_eq!(
        chat(&base, "x", r#""max_tokens":1"#).json()["choices"][0]["finish_reason"],
        "length"
    );
}

#[test]
fn options_and_messages_reach_the_service() {
    let (echo, base) = start();
    let body = json!({
        "model": "echo",
        "messages": [
            { "role": "developer", "content": "be brief" },
            { "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] },
            { "role": "assistant", "content": null, "tool_calls": [] },
            { "role": "tool", "content": "42", "tool_call_id": "x" },
            { "role": "user", "content": "go", "name": "ada" },
        ],
        "max_tokens": 5, "max_completion_tokens": 6, "temperature": 0, "top_p": 0.5, "seed": 11,
        "stop": "END", "n": 1, "user": "someone", "presence_penalty": -0.5, "frequency_penalty": 2,
        "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1, "logprobs": true, "top_logprobs": 3,
        "response_format": { "type": "text" },
        "tools": [], "stream": false,
    });
    assert_eq!(post(&format!("{base}/v1/chat/completions"), &body.to_string()).status, 200);
    let seen = echo.last.lock().unwrap().take().unwrap();
    let turns = [
        (Role::System, "be brief"),
        (Role::User, "a\nb"),
        (Role::Assistant, ""),
        (Role::User, "42"),
        (Role::User, "go"),
    ];
    assert_eq!(seen.messages, turns.map(|(role, text)| Message::new(role, text)));
    let options = AnswerOptions {
        max_new_tokens: Some(6),
        temperature: Some(0.0),
        top_p: Some(0.5),
        seed: Some(11),
        stop: vec!["END".into()],
        top_k: Some(40),
        min_p: Some(0.05),
        repetition_penalty: Some(1.1),
        presence_penalty: Some(-0.5),
        frequency_penalty: Some(2.0),
        log_probs: Some(3),
        form: None,
    };
    assert_eq!(seen.options, options);
    let last = |fields: &str| {
        chat(&base, "x", fields);
        echo.last.lock().unwrap().take().unwrap().options
    };
    assert_eq!(last(r#""stop":["a","b"]"#).stop, ["a", "b"]);
    assert_eq!(last(r#""logprobs":true"#).log_probs, Some(0));
    assert_eq!(last(r#""logprobs":false,"top_logprobs":0"#).log_probs, None);
    let object = last(r#""response_format":{"type":"json_object"}"#).form;
    assert_eq!(object, Some(AnswerForm::JsonObject));
    let schema = last(
        r#""response_format":{"type":"json_schema","json_schema":{"name":"x","strict":true,"schema":{"type":"array"}}}"#,
    );
    assert_eq!(schema.form, Some(AnswerForm::JsonSchema(json!({ "type": "array" }))));
    let ordered = r#"{"properties":{"z":{},"a":{}}}"#;
    let schema = last(&format!(
        r#""response_format":{{"type":"json_schema","json_schema":{{"name":"x","schema":{ordered}}}}}"#
    ));
    let Some(AnswerForm::JsonSchema(schema)) = schema.form else { panic!("a schema") };
    assert_eq!(schema.to_string(), ordered, "properties stay in their order");
    let regex = last(r#""structured_outputs":{"regex":"[0-9]+"},"response_format":null"#).form;
    assert_eq!(regex, Some(AnswerForm::Regex("[0-9]+".into())));
    let choice = last(r#""structured_outputs":{"choice":["a","b"]}"#).form;
    assert_eq!(choice, Some(AnswerForm::OneOf(vec!["a".into(), "b".into()])));
}

#[test]
fn a_streamed_answer() {
    let (_, base) = start();
    let reply =
        chat(&base, "one two three", r#""stream":true,"stream_options":{"include_usage":true}"#);
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream")));
    let mut events = reply.events();
    assert_eq!(events.pop(), Some("[DONE]"));
    let chunks: Vec<Value> = events.iter().map(|e| serde_json::from_str(e).unwrap()).collect();
    assert!(
        chunks.iter().all(|c| c["id"] == chunks[0]["id"] && c["object"] == "chat.completion.chunk")
    );
    let deltas: Vec<Value> = chunks.iter().map(|c| c["choices"][0]["delta"].clone()).collect();
    let expected = [
        json!({ "role": "assistant", "content": "" }),
        json!({ "content": "one " }),
        json!({ "content": "two " }),
        json!({ "content": "three" }),
        json!({}),
        json!(null),
    ];
    assert_eq!(deltas, expected);
    let reasons: Vec<&Value> = chunks.iter().map(|c| &c["choices"][0]["finish_reason"]).collect();
    assert_eq!(reasons[4], "stop");
    assert!(reasons[..4].iter().all(|r| r.is_null()));
    assert_eq!(chunks[5]["choices"], json!([]));
    assert_eq!(chunks[5]["usage"]["total_tokens"], 10);
    assert!(chunks[..5].iter().all(|c| c.as_object().unwrap()["usage"].is_null()));

    let plain = chat(&base, "one", r#""stream":true"#);
    assert!(!plain.text.contains("usage"), "{}", plain.text);
}

#[test]
fn log_probabilities() {
    let (_, base) = start();
    let expected = json!({
        "content": [
            { "token": "one ", "logprob": -0.25, "bytes": [111, 110, 101, 32],
              "top_logprobs": [{ "token": "a", "logprob": -0.5, "bytes": [97] }] },
            { "token": "two", "logprob": -0.25, "bytes": [116, 119, 111],
              "top_logprobs": [{ "token": "a", "logprob": -0.5, "bytes": [97] }] },
        ],
        "refusal": null,
    });
    let whole = chat(&base, "one two", r#""logprobs":true,"top_logprobs":1"#).json();
    assert_eq!(whole["choices"][0]["logprobs"], expected);
    let streamed = chat(&base, "one two", r#""logprobs":true,"top_logprobs":1,"stream":true"#);
    let events = streamed.events();
    let last: Value = serde_json::from_str(events[events.len() - 2]).unwrap();
    assert_eq!(last["choices"][0]["logprobs"], expected);
}

#[test]
fn citations_are_annotations() {
    let (_, base) = start();
    let expected = json!([{
        "type": "url_citation",
        "url_citation": { "start_index": 29, "end_index": 32, "title": "reset.md", "url": "reset.md" },
        "document": "reset.md", "start": 20, "end": 31, "quote": "ten seconds", "index": 1,
    }]);
    let message = chat(&base, "cite", "").json()["choices"][0]["message"].clone();
    assert_eq!(message["annotations"], expected);
    let marker: String = message["content"].as_str().unwrap().chars().skip(29).take(3).collect();
    assert_eq!(marker, "[1]");

    let streamed = chat(&base, "cite", r#""stream":true"#);
    let events = streamed.events();
    let last_with_content: Value = serde_json::from_str(events[events.len() - 3]).unwrap();
    let delta = &last_with_content["choices"][0]["delta"];
    assert_eq!(delta["annotations"], expected);
    assert_eq!(delta["content"], "[1].");
}

#[test]
fn errors_of_a_chat_request() {
    let (_, base) = start();
    let url = format!("{base}/v1/chat/completions");
    let raw = |body: &str| post(&url, body);
    let messages = |m: &str| raw(&format!(r#"{{"model":"echo","messages":{m}}}"#));
    check_error(&raw("{\"model\":"), 400, None, None, "not valid JSON");
    check_error(&raw(""), 400, None, None, "not valid JSON");
    check_error(&raw("{} {}"), 400, None, None, "missing field `model`");
    check_error(&raw(r#"{"messages":[]}"#), 400, None, None, "missing field `model`");
    check_error(&raw(r#"{"model":5,"messages":[]}"#), 400, Some("model"), None, "invalid type");
    check_error(&messages("[]"), 400, Some("messages"), None, "empty");
    check_error(&messages("7"), 400, Some("messages"), None, "invalid type");
    let robot = messages(r#"[{"role":"robot","content":"x"}]"#);
    check_error(&robot, 400, Some("messages[0].role"), None, "unknown variant `robot`");
    let number = messages(r#"[{"role":"user","content":5}]"#);
    check_error(
        &number,
        400,
        Some("messages[0].content"),
        None,
        "a string or an array of text parts",
    );
    let image = messages(r#"[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]"#);
    check_error(&image, 400, Some("messages[0].content[0].type"), None, "image_url");
    check_error(
        &messages(r#"[{"role":"user"}]"#),
        400,
        Some("messages[0].content"),
        None,
        "missing",
    );

    let more = |fields: &str| chat(&base, "x", fields);
    check_error(&more(r#""temperature":2.5"#), 400, Some("temperature"), None, "0 to 2");
    check_error(&more(r#""top_p":0"#), 400, Some("top_p"), None, "above 0");
    check_error(&more(r#""min_p":1.5"#), 400, Some("min_p"), None, "0 to 1");
    let penalty = more(r#""repetition_penalty":0"#);
    check_error(&penalty, 400, Some("repetition_penalty"), None, "above 0");
    let penalty = more(r#""frequency_penalty":3"#);
    check_error(&penalty, 400, Some("frequency_penalty"), None, "-2 to 2");
    let many = more(r#""logprobs":true,"top_logprobs":21"#);
    check_error(&many, 400, Some("top_logprobs"), None, "0 to 20");
    let alone = more(r#""top_logprobs":2"#);
    check_error(&alone, 400, Some("top_logprobs"), None, "needs logprobs");
    let format = more(r#""response_format":{"type":"xml"}"#);
    check_error(&format, 400, Some("response_format.type"), None, "there is: text");
    let schema = more(r#""response_format":{"type":"json_schema","json_schema":{"name":"x"}}"#);
    check_error(&schema, 400, Some("response_format.json_schema.schema"), None, "missing");
    let named = more(r#""response_format":"json_object""#);
    check_error(&named, 400, Some("response_format"), None, "ResponseFormat");
    let none = more(r#""structured_outputs":{}"#);
    check_error(&none, 400, Some("structured_outputs"), None, "either regex or choice");
    let other = more(r#""structured_outputs":{"grammar":"x"}"#);
    check_error(&other, 400, Some("structured_outputs.grammar"), None, "unknown field");
    let both =
        more(r#""structured_outputs":{"regex":"x"},"response_format":{"type":"json_object"}"#);
    check_error(&both, 400, Some("structured_outputs"), None, "exclude each other");
    check_error(&more(r#""max_tokens":0"#), 400, Some("max_tokens"), None, "at least 1");
    check_error(&more(r#""max_tokens":-1"#), 400, Some("max_tokens"), None, "invalid value");
    check_error(&more(r#""stop":["a",""]"#), 400, Some("stop"), None, "empty");
    check_error(&more(r#""stop":5"#), 400, Some("stop"), None, "a string or an array");
    for (param, value) in [
        ("n", "2"),
        ("tools", r#"[{"type":"function"}]"#),
        ("logit_bias", r#"{"5":1}"#),
        ("guided_choice", r#"["a"]"#),
    ] {
        let reply = more(&format!(r#""{param}":{value}"#));
        check_error(&reply, 400, Some(param), Some("unsupported_parameter"), "not supported");
    }
    let unknown = more(r#""model":"gpt-9""#);
    check_error(&unknown, 404, Some("model"), Some("model_not_found"), "there is: echo");
    let embedder = more(r#""model":"echo-embed""#);
    check_error(&embedder, 404, Some("model"), Some("model_not_found"), "echo-embed");
}

#[test]
fn errors_of_the_service() {
    let (_, base) = start();
    for stream in ["\"stream\":false", "\"stream\":true"] {
        let too_long = chat(&base, "too long", stream);
        check_error(&too_long, 400, Some("messages"), Some("context_length_exceeded"), "9000");
        let schema = chat(&base, "bad schema", stream);
        check_error(&schema, 400, Some("response_format"), None, "no such type");
        let pattern = chat(&base, "bad pattern", stream);
        check_error(&pattern, 400, Some("structured_outputs"), None, "no end");
        let unavailable = chat(&base, "no vectors", stream);
        check_error(&unavailable, 503, None, Some("unavailable"), "cannot be searched now");
        assert!(!unavailable.text.contains("secret"));
        for failing in ["fail", "panic"] {
            let reply = chat(&base, failing, stream);
            check_error(&reply, 500, None, None, "the server failed");
            assert!(!reply.text.contains("secret"));
        }
    }
    // After the first text the status is spent: the error is the last event, and there is no [DONE].
    let late = chat(&base, "fail late", r#""stream":true"#);
    let events = late.events();
    let last: Value = serde_json::from_str(events[events.len() - 1]).unwrap();
    assert_eq!((late.status, &last["error"]["type"]), (200, &json!("server_error")));
    assert_eq!(chat(&base, "still alive", "").status, 200);
}

#[test]
fn routes_methods_and_sizes() {
    let (_, base) = start();
    assert_eq!(get(&format!("{base}/healthz")).json(), json!({ "status": "ok" }));
    check_error(&get(&format!("{base}/v2/nothing")), 404, None, Some("unknown_url"), "/v2/nothing");
    check_error(&get(&format!("{base}/v1/search")), 405, None, None, "does not take GET");
    let large = format!(r#"{{"query":"{}"}}"#, "x".repeat(9 << 20));
    check_error(&post(&format!("{base}/v1/search"), &large), 413, None, None, "8388608 bytes");
}

#[test]
fn models() {
    let (_, base) = start();
    let echo =
        json!({ "id": "echo", "object": "model", "created": 1_700_000_000, "owned_by": "assay" });
    let list = get(&format!("{base}/v1/models")).json();
    assert_eq!((&list["object"], &list["data"][0]), (&json!("list"), &echo));
    assert_eq!(get(&format!("{base}/v1/models/echo")).json(), echo);
    let missing = get(&format!("{base}/v1/models/gpt-9"));
    check_error(&missing, 404, Some("model"), Some("model_not_found"), "echo, echo-embed");
}

#[test]
fn embeddings() {
    let (_, base) = start();
    let embed = |fields: &str| {
        post(&format!("{base}/v1/embeddings"), &format!(r#"{{"model":"echo-embed",{fields}}}"#))
    };
    let one = embed(r#""input":"abcd""#).json();
    let expected = json!({
        "object": "list",
        "data": [{ "object": "embedding", "index": 0, "embedding": [4.0, -0.5, 0.1] }],
        "model": "echo-embed",
        "usage": { "prompt_tokens": 3, "total_tokens": 3 },
    });
    assert_eq!(one.to_string(), expected.to_string());
    let many = embed(r#""input":["a","bb"],"encoding_format":"base64","dimensions":3"#).json();
    assert_eq!(many["data"][1]["index"], 1);
    // 2.0, -0.5, 0.1 as little-endian f32.
    assert_eq!(many["data"][1]["embedding"], "AAAAQAAAAL/NzMw9");

    check_error(&embed(r#""input":[]"#), 400, Some("input"), None, "empty");
    check_error(&embed(r#""input":[1,2]"#), 400, Some("input"), None, "token arrays");
    check_error(
        &embed(r#""input":"a","encoding_format":"hex""#),
        400,
        Some("encoding_format"),
        None,
        "hex",
    );
    let short = embed(r#""input":"a","dimensions":2"#);
    check_error(&short, 400, Some("dimensions"), Some("unsupported_parameter"), "gives 3");
    let chat_model = post(&format!("{base}/v1/embeddings"), r#"{"model":"echo","input":"a"}"#);
    check_error(&chat_model, 404, Some("model"), Some("model_not_found"), "echo-embed");
}

#[test]
fn search() {
    let (_, base) = start();
    let search = |body: &str| post(&format!("{base}/v1/search"), body);
    let found = search(r#"{"query":"reset","k":2}"#).json();
    assert_eq!(found["data"].as_array().unwrap().len(), 2);
    let hit = json!({
        "document": "reset.md", "start": 0, "end": 32, "text": "Hold the button for ten seconds.", "score": 0.5,
    });
    assert_eq!(found["data"][0], hit);
    assert_eq!(search(r#"{"query":"reset"}"#).json()["data"].as_array().unwrap().len(), 5);
    check_error(&search(r#"{"query":" "}"#), 400, Some("query"), None, "empty");
    check_error(&search(r#"{"query":"a","k":0}"#), 400, Some("k"), None, "1 to 100");
    check_error(&search(r#"{"query":"a","top":1}"#), 400, Some("top"), None, "unknown field `top`");
    check_error(
        &search(r#"{"query":"nothing here"}"#),
        400,
        None,
        Some("unsupported"),
        "no documents",
    );
    check_error(&search(r#"{"query":"panic"}"#), 500, None, None, "the server failed");
}

#[test]
fn a_search_is_filtered_and_says_what_was_cut() {
    let (echo, base) = start();
    let search = |body: &str| post(&format!("{base}/v1/search"), body);
    let filter = json!({ "type": "eq", "key": "lang", "value": "en" });
    let body = json!({ "query": "reset", "filters": filter });
    assert_eq!(search(&body.to_string()).status, 200);
    assert_eq!(echo.searched.lock().unwrap().as_ref().unwrap().filter, Some(filter));
    check_error(
        &search(r#"{"query":"a","filters":"bad"}"#),
        400,
        Some("filters"),
        None,
        "no such field",
    );
    assert_eq!(search(r#"{"query":"long"}"#).json()["truncated_to"], 3);
}

#[test]
fn headers_say_who_asks() {
    let (echo, base) = start();
    let search = |headers: &[(&str, &str)]| {
        let reply = post_as(&format!("{base}/v1/search"), headers, r#"{"query":"reset"}"#);
        let caller = echo.searched.lock().unwrap().take().map(|request| request.caller);
        (reply, caller)
    };
    let caller = |principals: &[&str], tenant: Option<&str>| {
        let principals = principals.iter().map(|p| (*p).to_owned()).collect();
        Some(Caller { principals, tenant: tenant.map(str::to_owned) })
    };
    assert_eq!(search(&[]).1, caller(&[], None));
    let headers =
        [("x-principals", "anna, staff ,"), ("x-tenant", "acme"), ("x-principals", "büro")];
    assert_eq!(search(&headers).1, caller(&["anna", "staff", "büro"], Some("acme")));
    let (reply, none) = search(&[("x-tenant", "acme,other")]);
    check_error(&reply, 400, None, None, "several");
    assert_eq!(none, None);

    let body = r#"{"model":"echo","messages":[{"role":"user","content":"a"}]}"#;
    post_as(&format!("{base}/v1/chat/completions"), &headers, body);
    let asked = echo.last.lock().unwrap().take().unwrap();
    assert_eq!(Some(asked.caller), caller(&["anna", "staff", "büro"], Some("acme")));
}
