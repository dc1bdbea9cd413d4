//! Real prompts and answers of candidates.

mod attacks;
mod citations;
mod retrieve;

use assay_candidate::{PromptBudget, token_bound};
use assay_model::PromptCounter;
use assay_types::{Message, Role};

/// Real texts: every language of XQuAD, where it is at hand, and the documents of the examples.
fn texts() -> Vec<(String, String)> {
    let mut folders = vec![
        assay_testkit::workspace().join("examples/helpdesk/docs"),
        assay_testkit::workspace().join("crates/assay-candidate/src"),
    ];
    folders.extend(assay_testkit::dataset("xquad"));
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in
            fs_err::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path())
        {
            if entry.is_dir() {
                folders.push(entry);
            } else if let Ok(text) = fs_err::read_to_string(&entry) {
                let head: String = text.chars().take(20_000).collect();
                found.push((entry.display().to_string(), head));
            }
        }
    }
    assert!(found.len() > 20, "{} texts", found.len());
    found
}

#[test]
fn the_bound_holds_on_real_texts_and_is_not_far_off_in_english() {
    let Some(gguf) = assay_testkit::smollm() else { return };
    let counter = PromptBudget::Tokenizer(PromptCounter::open(&gguf).expect("a tokenizer").into());
    let ask =
        |text: &str| vec![Message::new(Role::System, "Answer."), Message::new(Role::User, text)];
    for (name, text) in texts() {
        // Pieces of a chunk's size: the bound must hold for a prompt and not just for a book.
        let chars: Vec<char> = text.chars().collect();
        for piece in chars.chunks(600) {
            let piece: String = piece.iter().collect();
            let (bound, real) =
                (PromptBudget::Bound.count(&ask(&piece)), counter.count(&ask(&piece)));
            let (bound, real) = (bound.expect("a bound"), real.expect("a count"));
            assert!(bound >= real, "{name}: at most {bound}, really {real}: {piece}");
        }
    }
    let english = "The lamp may be returned within nineteen days, in its box, to the shop where it was bought.";
    let real =
        counter.count(&ask(english)).expect("a count") - counter.count(&ask("")).expect("a count");
    assert!(token_bound(english) < 3 * real, "{} for {real}", token_bound(english));
}

#[test]
fn a_tokenizer_counts_as_the_model_does() {
    let Some(gguf) = assay_testkit::smollm() else { return };
    let decoder = assay_model::Decoder::open(&gguf, assay_model::Precision::Bf16).expect("a model");
    let counter = PromptCounter::open(&gguf).expect("a tokenizer");
    assert_eq!(counter.id(), decoder.file_hash());
    for text in ["", "Hello", "größer 日本語 <|im_end|> 12345"] {
        let messages = [Message::new(Role::System, "Be brief."), Message::new(Role::User, text)];
        let tokens = decoder.prompt_tokens(&messages).expect("tokens");
        assert_eq!(counter.count(&messages).expect("a count"), tokens.len(), "{text:?}");
    }
}

#[test]
fn a_tokenizer_json_counts_contents_and_bounds_what_surrounds_them() {
    let Some(folder) = assay_testkit::model("all-minilm-l6-v2") else { return };
    let counter = PromptCounter::open(&folder.join("tokenizer.json")).expect("a tokenizer");
    let count = |text: &str| counter.count(&[Message::new(Role::User, text)]).expect("a count");
    assert_eq!(count("the lamp is red") - count(""), 4);
    assert!(count("") >= 16);
}
