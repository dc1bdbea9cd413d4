//! What is learned, and what is refused.

use assay_model::Decoder;
use assay_train::{BadRows, Example, RefusedReason, TrainError, TrainRow, audit, prepare};
use assay_types::{Message, Role};
use proptest::prelude::*;

use crate::common::{CHATML, CONTEXT, qa, row, tiny, tiny_with};

use Role::{Assistant, System, User};

fn learned(decoder: &Decoder, example: &Example) -> String {
    let ids: Vec<u32> = (0..example.tokens.len())
        .filter(|&i| example.supervised[i])
        .map(|i| example.tokens[i])
        .collect();
    decoder.tokenizer().decode(&ids, false)
}

/// `Ok(text that is learned)` or why not.
fn check(decoder: &Decoder, turns: &[(Role, &str)], expected: Result<&str, RefusedReason>) {
    let found = match prepare(decoder, &[row(3, turns)], usize::MAX, BadRows::Refuse) {
        Ok(set) => Ok(learned(decoder, &set.examples[0])),
        Err(TrainError::Refused { refused, total: 1 }) => {
            assert_eq!(refused[0].source.to_string(), "train.jsonl:3");
            Err(refused[0].reason.clone())
        }
        Err(other) => panic!("{other}"),
    };
    assert_eq!(found, expected.map(str::to_owned));
}

#[test]
fn assistant_turns_and_their_stop_tokens_are_learned() {
    let d = tiny();
    check(&d, &[(User, "hi"), (Assistant, "hello")], Ok("hello<|im_end|>"));
    check(&d, &[(System, "s"), (User, "hi"), (Assistant, "hello\n")], Ok("hello\n<|im_end|>"));
    check(
        &d,
        &[(User, "a"), (Assistant, "b"), (User, "c"), (Assistant, "d")],
        Ok("b<|im_end|>d<|im_end|>"),
    );
    check(&d, &[(User, "a"), (Assistant, ""), (User, "c"), (Assistant, "d")], Ok("d<|im_end|>"));
    // A stop token in the prompt is never learned, though it is the same token.
    check(&d, &[(User, "say <|im_end|>"), (Assistant, "no")], Ok("no<|im_end|>"));
    check(&d, &[(User, "a"), (Assistant, "b"), (User, "thanks")], Ok("b<|im_end|>"));
}

#[test]
fn rows_with_nothing_to_learn_are_refused() {
    let d = tiny();
    check(&d, &[(User, "hi")], Err(RefusedReason::NoSupervisedTokens));
    check(&d, &[(User, "hi"), (Assistant, "")], Err(RefusedReason::NoSupervisedTokens));
    check(&d, &[], Err(RefusedReason::NoSupervisedTokens));
    // Asked for a first turn, this template leaves its default system prompt out.
    check(&d, &[(Assistant, "hello")], Err(RefusedReason::NotPrefix { turn: 1 }));
}

#[test]
fn rows_are_never_cut() {
    let d = tiny();
    let set = prepare(&d, &[qa(1, "hi", "hello")], usize::MAX, BadRows::Refuse).unwrap();
    let tokens = set.examples[0].tokens.len();
    let found = |limit| prepare(&d, &[qa(1, "hi", "hello")], limit, BadRows::Refuse);
    assert_eq!(found(tokens).unwrap().examples, set.examples);
    let error = found(tokens - 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "1 of 1 rows cannot be trained on: train.jsonl:1: {tokens} tokens, more than {}",
            tokens - 1
        )
    );
    let long = "x".repeat(CONTEXT);
    let set =
        prepare(&d, &[qa(1, &long, "a"), qa(2, "b", "c")], usize::MAX, BadRows::Skip).unwrap();
    assert_eq!((set.examples.len(), set.examples[0].source.row), (1, 2));
    assert_eq!(set.skipped.len(), 1);
    assert!(matches!(set.skipped[0].reason, RefusedReason::TooLong { limit: CONTEXT, .. }));
}

#[test]
fn templates_that_would_not_serve_what_was_trained_are_refused() {
    let turns = [(User, "a"), (Assistant, "b")];
    let forgetful = tiny_with(
        "{{ messages | length }}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}",
        None,
    );
    check(&forgetful, &turns, Err(RefusedReason::NotPrefix { turn: 2 }));
    let endless = tiny_with(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
         {% if add_generation_prompt %}assistant: {% endif %}",
        None,
    );
    check(&endless, &turns, Err(RefusedReason::NoStopToken { turn: 2 }));
    let strict = tiny_with("{{ raise_exception('no thanks') }}", None);
    let found = prepare(&strict, &[row(1, &turns)], usize::MAX, BadRows::Refuse);
    assert!(found.unwrap_err().to_string().contains("no thanks"));
}

#[test]
fn histograms_count_rows_by_power_of_two() {
    let d = tiny();
    let rows = [qa(1, "x", "a"), qa(2, "x", "abc"), qa(3, "x", "abcd"), qa(4, "x", "abcdefg")];
    let set = prepare(&d, &rows, usize::MAX, BadRows::Refuse).unwrap();
    let h = set.supervised;
    assert_eq!((h.min, h.median, h.max, h.total), (2, 4, 8, 19));
    assert_eq!(h.buckets, [(2, 1), (4, 1), (8, 2)]);
    assert_eq!(set.lengths.total, set.examples.iter().map(|e| e.tokens.len()).sum::<usize>());
    let none = prepare(&d, &[], usize::MAX, BadRows::Refuse).unwrap();
    assert_eq!((none.lengths.max, none.lengths.buckets.len()), (0, 0));
}

#[test]
fn an_audit_shows_what_is_learned() {
    let d = tiny();
    let rows: Vec<TrainRow> = (0..10).map(|i| qa(i + 1, "q", &format!("a{i}"))).collect();
    let set = prepare(&d, &rows, usize::MAX, BadRows::Refuse).unwrap();
    let shown = audit(&d, &set.examples, 2);
    assert_eq!(shown.len(), 2);
    assert_eq!(
        shown[1],
        "train.jsonl:6\n<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nq<|im_end|>\n\
         <|im_start|>assistant\n⟦a5<|im_end|>⟧\n"
    );
    assert_eq!(audit(&d, &set.examples, 99).len(), 10);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever is said: learned is the assistant's text and its stop token, nothing else.
    #[test]
    fn learned_text_is_what_the_assistant_says(
        turns in prop::collection::vec((any::<bool>(), "[a-z th\u{e9}\u{1f600}\n]{0,6}"), 0..6)
    ) {
        thread_local!(static DECODER: Decoder = tiny_with(CHATML, None));
        // The template adds a system prompt before a first turn, but not before none.
        let messages: Vec<Message> = std::iter::once(&(false, "hi".to_owned()))
            .chain(&turns)
            .map(|(assistant, text)| Message::new(if *assistant { Assistant } else { User }, text))
            .collect();
        let expected: String = messages
            .iter()
            .filter(|m| m.role == Assistant && !m.content.is_empty())
            .map(|m| format!("{}<|im_end|>", m.content))
            .collect();
        let row = TrainRow { messages, ..qa(1, "", "") };
        DECODER.with(|d| {
            let set = prepare(d, &[row], 4096, BadRows::Skip).unwrap();
            match set.examples.first() {
                Some(example) => prop_assert_eq!(learned(d, example), expected),
                None => {
                    let long = matches!(set.skipped[0].reason, RefusedReason::TooLong { .. });
                    prop_assert!(expected.is_empty() || long);
                }
            }
            Ok(())
        })?;
    }
}
