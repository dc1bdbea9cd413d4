//! Equality with transformers on the real weights; see `tests/golden/make_decoder.py`.

use assay_model::{GenerateRequest, Precision};
use assay_types::{FinishReason, Message, Role};
use serde::Deserialize;
use std::ops::ControlFlow;

#[derive(Deserialize)]
struct Golden {
    texts: Vec<Text>,
    chats: Vec<Chat>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
    decoded: String,
}

#[derive(Deserialize)]
struct Chat {
    messages: Vec<Message>,
    rendered: String,
    ids: Vec<u32>,
    top: Vec<(u32, f32)>,
    greedy: Vec<u32>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../golden/decoder.json")).unwrap()
}

#[test]
fn tokens_equal_transformers() {
    let Some(decoder) = crate::smollm(Precision::Bf16) else { return };
    let tokenizer = decoder.tokenizer();
    for Text { text, ids, decoded } in golden().texts {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids, false), decoded);
        let mut stream = tokenizer.stream();
        let mut streamed: String = ids.iter().map(|&id| stream.push(id)).collect();
        streamed += &stream.finish();
        assert_eq!(streamed, tokenizer.decode(&ids, true), "{text:?}");
    }
}

#[test]
fn rendered_chats_equal_transformers() {
    let Some(decoder) = crate::smollm(Precision::Bf16) else { return };
    for chat in golden().chats {
        assert_eq!(decoder.template().render(&chat.messages, true).unwrap(), chat.rendered);
        assert_eq!(decoder.prompt_tokens(&chat.messages).unwrap(), chat.ids);
    }
    let open = [Message::new(Role::User, "hi")];
    let ids = decoder.chat_tokens(&open, false).unwrap();
    assert!(decoder.prompt_tokens(&open).unwrap().starts_with(&ids));
}

#[test]
fn logits_equal_transformers() {
    let Some(decoder) = crate::smollm(Precision::F32) else { return };
    for chat in golden().chats {
        let logits = decoder.logits(&chat.ids, None).unwrap();
        let last = &logits[logits.len() - decoder.config().vocab..];
        for (id, expected) in chat.top {
            let got = last[id as usize];
            assert!((got - expected).abs() < 2e-3, "token {id}: {got}, transformers {expected}");
        }
    }
}

#[test]
fn greedy_answers_equal_transformers() {
    let Some(decoder) = crate::smollm(Precision::F32) else { return };
    let chats = golden().chats;
    let requests: Vec<GenerateRequest> =
        chats.iter().map(|chat| GenerateRequest::greedy(chat.ids.clone(), 24)).collect();
    let mut seen = vec![Vec::new(); chats.len()];
    let answers = decoder
        .generate(&requests, None, &mut |request, token| {
            seen[request].push(token);
            ControlFlow::Continue(())
        })
        .unwrap();
    for ((chat, answer), seen) in chats.iter().zip(answers).zip(seen) {
        assert_eq!(answer.tokens, chat.greedy);
        assert_eq!(answer.tokens, seen);
        let stopped = chat.greedy.len() < 24;
        assert_eq!(answer.finish == FinishReason::Stop, stopped, "{}", answer.text);
        assert_eq!(answer.input_tokens, chat.ids.len());
        assert_eq!(answer.text, decoder.tokenizer().decode(&chat.greedy, true));
    }
}
