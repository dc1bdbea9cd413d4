//! Where answers are generated: on this machine, or by a server.

use std::sync::Arc;

use assay_model::{Decoder, ModelError, PromptCounter};
use assay_remote::RemoteModel;
use assay_types::Message;

/// Tokens that a chat template puts around a message at most; the common families use 3 to 8.
const AROUND_A_MESSAGE: usize = 16;

/// Tokens that a chat template may add of its own, such as a date, and the opening of the answer.
const AROUND_ALL: usize = 64;

/// Longest run of letters that is taken for a word.
const WORD_BYTES: usize = 20;

/// What turns prompts into text.
#[derive(Clone)]
pub enum Generator {
    /// Weights on this machine, with or without an adapter.
    Local(Decoder),
    /// A server.
    Remote(RemoteGenerator),
}

impl From<Decoder> for Generator {
    fn from(decoder: Decoder) -> Self {
        Generator::Local(decoder)
    }
}

/// A model behind a server, and how long its prompts may be.
#[derive(Clone)]
pub struct RemoteGenerator {
    /// The model.
    pub model: RemoteModel,
    /// How tokens of a prompt are counted.
    pub budget: PromptBudget,
    /// Tokens of prompt and answer together that the server takes; `None` if not known.
    pub context_tokens: Option<usize>,
}

/// How tokens of a prompt are counted before it is sent.
#[derive(Clone)]
pub enum PromptBudget {
    /// With the model's own tokenizer.
    Tokenizer(Arc<PromptCounter>),
    /// By [`token_bound`], which needs none and says about twice the truth of English prose.
    Bound,
}

impl PromptBudget {
    /// Tokens of a conversation, at most.
    ///
    /// # Errors
    /// If the tokenizer or its template refuses the text.
    pub fn count(&self, messages: &[Message]) -> Result<usize, ModelError> {
        match self {
            PromptBudget::Tokenizer(counter) => counter.count(messages),
            PromptBudget::Bound => {
                let around = AROUND_ALL + AROUND_A_MESSAGE * messages.len();
                Ok(messages.iter().map(|m| token_bound(&m.content)).sum::<usize>() + around)
            }
        }
    }
}

/// Tokens of `text` at most, whatever the model: a byte is at least part of a token, so 1 for every byte, except that
/// two letters of an ordinary English-looking word count as one token, and the blank before such a word as none.
///
/// An ordinary word is up to 20 ASCII letters that are all small behind the first. Byte-pair vocabularies write such
/// words in fewer than half as many tokens as letters; made-up ones can need more, which is why the bound is one for
/// texts and not for single words. A text of words in other scripts, of digits or of code counts by its bytes.
pub fn token_bound(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut sum) = (0, 0);
    while at < bytes.len() {
        let run =
            bytes[at..].iter().take_while(|b| b.is_ascii_alphanumeric() || !b.is_ascii()).count();
        if run == 0 {
            let opens_a_word = bytes[at] == b' ' && word(&bytes[at + 1..]) > 0;
            sum += usize::from(!opens_a_word);
            at += 1;
        } else {
            sum += if word(&bytes[at..]) == run { run.div_ceil(2) } else { run };
            at += run;
        }
    }
    sum
}

/// Length of the ordinary word that `bytes` begin with; 0 if they begin with none.
fn word(bytes: &[u8]) -> usize {
    let run = bytes.iter().take_while(|b| b.is_ascii_alphanumeric() || !b.is_ascii()).count();
    let ordinary = (1..=WORD_BYTES).contains(&run)
        && bytes[0].is_ascii_alphabetic()
        && bytes[1..run].iter().all(u8::is_ascii_lowercase);
    if ordinary { run } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_count_half_and_all_else_by_bytes() {
        for (text, tokens) in [
            ("", 0),
            ("word", 2),
            ("Hello world", 3 + 3),
            ("a  b", 1 + 1 + 1),
            ("2024-11-21", 10),
            ("snake_case", 3 + 1 + 2),
            ("camelCase", 9),
            ("x9", 2),
            ("größe", 7),
            ("日本", 6),
            ("\n\n", 2),
        ] {
            assert_eq!(token_bound(text), tokens, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_bound_never_exceeds_the_bytes(text: String) {
            proptest::prop_assert!(token_bound(&text) <= text.len());
        }
    }
}
