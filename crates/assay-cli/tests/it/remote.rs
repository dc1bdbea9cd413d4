//! A base model behind a server: the real one of this project, with the real weights behind it.

use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use assay_decide::Decision;
use assay_model::{Decoder, GenerateRequest, Precision};
use assay_remote::{ChatRequest, RemoteModel, Settings};
use assay_serve::{
    AnswerOptions, AnswerRequest, CallerHeaders, Embeddings, ModelInfo, ModelUse, SearchRequest,
    SearchResponse, Service, ServiceError,
};
use assay_types::{Message, Output, Role, Timing, Usage};
use serde_json::{Value, json};

use super::end_to_end::{decision, project, run};
use super::{Ran, assay};

/// A chat model and nothing else: what a model server is.
struct Plain {
    decoder: Decoder,
    asked: Arc<AtomicUsize>,
}

impl Service for Plain {
    fn models(&self) -> Vec<ModelInfo> {
        vec![ModelInfo { id: "smol".into(), created_s: 0, used_for: ModelUse::Chat }]
    }

    fn answer(
        &self,
        request: &AnswerRequest,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Output, ServiceError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let AnswerOptions { max_new_tokens, temperature, .. } = &request.options;
        assert_eq!(*temperature, Some(0.0));
        let internal = |e: assay_model::ModelError| ServiceError::Internal(e.to_string());
        let tokens = self.decoder.prompt_tokens(&request.messages).map_err(internal)?;
        let input_tokens = tokens.len();
        let max_new_tokens = max_new_tokens.expect("a limit");
        let asked = GenerateRequest::greedy(tokens, max_new_tokens);
        let silent = &mut |_: usize, _: u32| ControlFlow::Continue(());
        let made = self.decoder.generate(&[asked], None, silent).map_err(internal)?.remove(0);
        for piece in made.text.split_inclusive(' ') {
            let _ = on_text(piece);
        }
        Ok(Output {
            text: made.text,
            citations: vec![],
            dropped_citations: 0,
            retrieved: vec![],
            abstained: false,
            finish: made.finish,
            timing: Timing::default(),
            usage: Some(Usage { input_tokens, output_tokens: made.tokens.len() }),
            confidence: None,
            log_probs: vec![],
        })
    }

    fn embed(&self, _: &str, _: &[&str]) -> Result<Embeddings, ServiceError> {
        Err(ServiceError::Unsupported("embedder"))
    }

    fn search(&self, _: &SearchRequest) -> Result<SearchResponse, ServiceError> {
        Err(ServiceError::Unsupported("documents"))
    }
}

/// A server with the small model, until the test process ends; its address and the number of questions so far.
fn server() -> Option<(String, Arc<AtomicUsize>)> {
    let decoder = Decoder::open(&assay_testkit::smollm()?, Precision::Bf16).expect("the model");
    let asked = Arc::new(AtomicUsize::new(0));
    let service = Arc::new(Plain { decoder, asked: Arc::clone(&asked) });
    let (ready, at) = mpsc::channel();
    std::thread::spawn(move || {
        let ready = |address| ready.send(address).expect("a listener");
        assay_serve::serve(service, ([127, 0, 0, 1], 0).into(), CallerHeaders::default(), ready)
            .expect("a server");
    });
    Some((format!("http://{}/v1", at.recv().expect("an address")), asked))
}

/// The same project over a server instead of a file.
fn over(dir: &Path, base: &str, more: &str) {
    let file = dir.join("assay.toml");
    let text = fs_err::read_to_string(&file).expect("assay.toml");
    let lines = text.lines().map(|l| match l.starts_with("base = ") {
        true => format!("base = \"openai:smol@{base}\"\n"),
        false => format!("{l}\n"),
    });
    fs_err::write(&file, lines.collect::<String>() + more).expect("assay.toml");
}

fn f1(decision: &Decision, candidate: &str) -> Option<f64> {
    decision.candidates.iter().find(|c| c.name == candidate)?.metrics["f1"].value
}

const SECRET: &str = "sk-test-4711-secret";

fn with_key(dir: &Path, args: &[&str]) -> Ran {
    let mut command = assay(dir, args);
    command.env("SMOL_KEY", SECRET).env("ASSAY_LOG", "trace");
    let out = command.output().expect("assay starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: out.status.code(), stdout: text(out.stdout), stderr: text(out.stderr) }
}

#[test]
fn a_decision_over_a_server_equals_the_one_over_the_same_weights() {
    let (Some(local), Some(remote), Some(gguf)) = (project(), project(), assay_testkit::smollm())
    else {
        return;
    };
    let Some((base, asked)) = server() else { return };
    let here = ["run", "--set", "project.candidates=[\"prompt\", \"rag\"]"];
    run(local.path(), &here);
    over(
        remote.path(),
        &base,
        &format!(
            "[model.remote]\ntokenizer = {gguf:?}\ncontext_tokens = 2048\napi_key_env = \"SMOL_KEY\"\n\
             [model.price]\ninput_per_million = 2.0\noutput_per_million = 10.0\n"
        ),
    );
    let ran = with_key(remote.path(), &["run"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);

    let (expected, got) = (decision(local.path()), decision(remote.path()));
    for candidate in ["prompt", "rag"] {
        assert_eq!(f1(&got, candidate), f1(&expected, candidate), "{candidate}");
    }
    let tokens = |d: &Decision| {
        d.candidates.iter().map(|c| (c.tokens.input_mean, c.tokens.output_mean)).collect::<Vec<_>>()
    };
    assert_eq!(tokens(&got), tokens(&expected), "the same prompts and the same answers");

    // What cannot be built, or measured, is said.
    let skipped: Vec<&str> = got.skipped.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(skipped, ["tuned", "hybrid"]);
    assert!(got.warnings.iter().any(|w| w.starts_with("`tuned` was skipped: training needs")));
    assert!(ran.stderr.contains("skipped: training needs"), "{}", ran.stderr);
    for c in &got.candidates {
        assert_eq!(c.general.before, None);
        assert!(c.notes.iter().any(|n| n.contains("general suite was skipped")), "{:?}", c.notes);
        let tokens = c.tokens.input_mean.expect("tokens") * 2e-6
            + c.tokens.output_mean.expect("tokens") * 1e-5;
        let retrieval = c.cost.per_query_usd.expect("a cost") - tokens;
        assert!(retrieval.abs() < 1e-4, "{}: {retrieval}", c.name);
        assert_eq!(c.name == "rag", retrieval > 1e-12, "{}: {retrieval}", c.name);
    }

    // The key reached nothing that stays or is shown, however talkative the log.
    let mut folders = vec![remote.path().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in
            fs_err::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path())
        {
            if entry.is_dir() {
                folders.push(entry);
                continue;
            }
            let bytes = fs_err::read(&entry).expect("a file");
            assert!(
                !bytes.windows(SECRET.len()).any(|w| w == SECRET.as_bytes()),
                "{}",
                entry.display()
            );
        }
    }
    assert!(!(ran.stdout + &ran.stderr).contains(SECRET));

    // Deciding again asks nothing.
    let before = asked.load(Ordering::SeqCst);
    let again = with_key(remote.path(), &["run"]);
    assert!(again.stderr.contains("nothing to do: all"), "{}", again.stderr);
    assert_eq!(asked.load(Ordering::SeqCst), before);

    // Any measured candidate answers, from the command line and served, whole and streamed.
    let question = "When do you open?";
    let args = ["ask", question, "--candidate", "rag", "--json"];
    let answer = |ran: &Ran| serde_json::from_str::<Output>(&ran.stdout).expect("an output").text;
    let expected = answer(&run(local.path(), &args));
    assert_eq!(answer(&with_key(remote.path(), &args)), expected);
    let mut served = assay(remote.path(), &["serve", "--port", "0", "--candidate", "rag"]);
    let mut served =
        served.env("SMOL_KEY", SECRET).stderr(Stdio::piped()).spawn().expect("assay starts");
    // Read from until the end: a program whose standard error is gone cannot talk any more.
    let mut lines =
        BufReader::new(served.stderr.take().expect("stderr")).lines().map_while(Result::ok);
    let line = lines.find(|l| l.contains("http://")).expect("an address");
    let at = &line[line.find("http://").expect("an address")..];
    let client =
        RemoteModel::new(Settings::new(format!("openai:lamps@{at}").parse().expect("a spec")));
    let client = client.expect("a client");
    let request = ChatRequest::greedy(vec![Message::new(Role::User, question)], 6);
    let whole = client.chat(&request).expect("an answer");
    let mut pieces = String::new();
    let streamed = client.chat_streamed(&request, &mut |text| {
        pieces += text;
        ControlFlow::Continue(())
    });
    let ended = Command::new("kill").arg(served.id().to_string()).status();
    assert!(ended.expect("kill").success());
    served.wait().expect("an end");
    drop(lines);
    let streamed = streamed.expect("an answer");
    assert_eq!([&whole.text, &streamed.text, &pieces], [&expected; 3]);
    assert!(whole.usage.is_some() && whole.usage == streamed.usage);
}

/// The official client, and our own, ask a release for answers of a form.
#[test]
fn a_release_keeps_to_the_form_that_a_request_asks_for() {
    const QUESTION: &str = "What does the Orla cost?";
    let Some(dir) = project() else { return };
    run(dir.path(), &["run", "--set", "project.candidates=[\"prompt\", \"rag\"]"]);
    let mut served = assay(dir.path(), &["serve", "--port", "0", "--candidate", "rag"]);
    let mut served = served.stderr(Stdio::piped()).spawn().expect("assay starts");
    let mut lines =
        BufReader::new(served.stderr.take().expect("stderr")).lines().map_while(Result::ok);
    let line = lines.find(|l| l.contains("http://")).expect("an address");
    let at = line[line.find("http://").expect("an address")..].to_owned();
    let client = RemoteModel::new(Settings::new(format!("openai:lamps@{at}").parse().expect("a")));
    let client = client.expect("a client");
    let ask = |schema: Value, limit: usize| {
        let form =
            json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
        let question = vec![Message::new(Role::User, QUESTION)];
        let request = ChatRequest::greedy(question, limit);
        client.chat(&ChatRequest { response_format: Some(form), ..request })
    };
    let good = ask(
        json!({
            "type": "object",
            "properties": {
                // Brackets in a form are no citations to be checked.
                "numbers": { "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 9 }, "minItems": 1, "maxItems": 1 },
                "currency": { "enum": ["euros", "crowns"] },
            },
            "required": ["numbers", "currency"],
            "additionalProperties": false,
        }),
        64,
    );
    let bad = ask(json!({ "type": "object", "properties": { "a": { "type": "strnig" } } }), 64);
    let python = assay_testkit::python().map(|python| {
        let script =
            assay_testkit::workspace().join("crates/assay-serve/tests/python/openai_client.py");
        Command::new(python).arg(script).args([&at, "lamps", "lamps-embedder", QUESTION]).output()
    });
    let ended = Command::new("kill").arg(served.id().to_string()).status();
    assert!(ended.expect("kill").success());
    served.wait().expect("an end");
    drop(lines);

    let value: Value = serde_json::from_str(&good.expect("an answer").text).expect("JSON");
    assert!(value["numbers"][0].as_u64().is_some_and(|n| n < 10), "{value}");
    assert!(["euros", "crowns"].contains(&value["currency"].as_str().expect("text")), "{value}");
    let error = bad.expect_err("no such type").to_string();
    assert!(error.contains("JSON schema at /properties/a: Invalid type: strnig"), "{error}");
    if let Some(ran) = python {
        let ran = ran.expect("Python starts");
        let (out, err) =
            (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success() && out.contains("all passed"), "{out}{err}");
    }
}

/// What is measured is held to the labels where the project says so, and is served so.
#[test]
fn a_constrained_project_answers_with_labels_only() {
    let Some(dir) = project() else { return };
    let refused = super::run(dir.path(), &["run", "--set", "prompt.constrained=true"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    let says = "prompt.constrained is for classify and extract, and this is a qa project";
    assert!(refused.stderr.contains(says), "{}", refused.stderr);
    let row = |text: &str, label: &str| format!("{{\"text\": {text:?}, \"label\": {label:?}}}\n");
    let rows: String = [("I want my money back", "refund"), ("it is broken", "repair")]
        .iter()
        .cycle()
        .take(24)
        .enumerate()
        .map(|(i, (text, label))| row(&format!("{text}, order {i}"), label))
        .collect();
    let test = row("give me the money", "refund") + &row("the lamp does not light", "repair");
    fs_err::write(dir.path().join("data/train.jsonl"), rows).expect("train");
    fs_err::write(dir.path().join("data/test.jsonl"), test).expect("test");
    let sets = ["project.task=classify", "project.candidates=[\"prompt\"]", "prompt.shots=[0]"];
    let with = |more: &[&'static str]| {
        let all = [&sets[..], more].concat();
        let args = all.iter().flat_map(|set| ["--set", set]);
        ["run"].into_iter().chain(args).collect::<Vec<_>>()
    };
    run(dir.path(), &with(&["prompt.constrained=true"]));
    let held = decision(dir.path());
    assert_eq!(held.inputs.settings["answers are held to"], "the labels");
    let asked = run(dir.path(), &["ask", "who are you?", "--candidate", "prompt", "--json"]);
    let answer = serde_json::from_str::<Output>(&asked.stdout).expect("an output").text;
    assert!(["refund", "repair"].contains(&answer.as_str()), "{answer}");
    run(dir.path(), &with(&[]));
    assert!(!decision(dir.path()).inputs.settings.contains_key("answers are held to"));
}

#[test]
fn where_nobody_serves_a_run_ends_soon_and_says_why() {
    let Some(dir) = project() else { return };
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("an address")
        .port();
    over(dir.path(), &format!("http://127.0.0.1:{port}/v1"), "");
    let ran = super::run(dir.path(), &["run"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("cannot be reached"), "{}", ran.stderr);
    assert!(ran.stderr.contains("hint: is the server running"), "{}", ran.stderr);
    assert!(!dir.path().join("decision.json").exists());
}

#[test]
fn a_key_stands_in_the_environment_only() {
    let Some(dir) = project() else { return };
    over(dir.path(), "http://127.0.0.1:9/v1", "[model.remote]\napi_key_env = \"SMOL_KEY\"\n");
    let unset = super::run(dir.path(), &["run"]);
    assert_eq!(unset.code, Some(2));
    assert!(unset.stderr.contains("environment variable"), "{}", unset.stderr);
    let pasted = super::run(dir.path(), &["run", "--set", "model.remote.api_key_env=sk-proj-4711"]);
    assert_eq!(pasted.code, Some(2));
    assert!(pasted.stderr.contains("no name of an environment variable"), "{}", pasted.stderr);
    assert!(!pasted.stderr.contains("4711"), "{}", pasted.stderr);
}

#[test]
fn values_of_inner_sections_are_set_and_shown() {
    let dir = super::folder(&[(
        "assay.toml",
        "[project]\nname = \"a\"\ntask = \"qa\"\n[model.price]\ninput_per_million = 1\noutput_per_million = 2\n",
    )]);
    let mut command = assay(dir.path(), &["config", "show", "--set", "model.remote.concurrency=3"]);
    let out = command.env("ASSAY_MODEL__REMOTE__TIMEOUT_S", "9").output().expect("assay starts");
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    for line in [
        "[model.remote]",
        "concurrency = 3                         # --set",
        "timeout_s = 9                           # environment ASSAY_MODEL__REMOTE__TIMEOUT_S",
        "[model.price]",
        "input_per_million = 1.0                 # assay.toml",
    ] {
        assert!(text.lines().any(|l| l == line), "{line:?} is not in\n{text}");
    }
}
