//! Counting the tokens of a prompt without the weights of its model.

use std::path::Path;

use assay_types::Message;
use sha2::{Digest, Sha256};

use crate::decoder::text_of;
use crate::error::ModelError;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;

/// Tokens that a chat template puts around one message at most, where the template is not known; the common families use
/// 3 to 8.
const AROUND_A_MESSAGE: usize = 16;

/// The tokenizer of a model that runs elsewhere.
#[derive(Debug)]
pub struct PromptCounter {
    kind: Kind,
    id: String,
}

#[derive(Debug)]
enum Kind {
    /// With its template: exact.
    Model(Box<(Tokenizer, ChatTemplate)>),
    /// Without: the contents exactly, their surroundings at most.
    Json(Box<tokenizers::Tokenizer>),
}

impl PromptCounter {
    /// Reads the tokenizer of a model (GGUF file or Hugging Face folder), with its chat template, or a `tokenizer.json`.
    ///
    /// # Errors
    /// [`ModelError`] naming the file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.extension().is_some_and(|e| e == "json") {
            let bytes = fs_err::read(path)?;
            let refuse =
                |e: tokenizers::Error| ModelError::Tokenizer(format!("{}: {e}", path.display()));
            let mut tokenizer = tokenizers::Tokenizer::from_bytes(&bytes).map_err(refuse)?;
            // Some files pad or cut what they encode; a count does neither.
            tokenizer.with_padding(None);
            tokenizer.with_truncation(None).map_err(refuse)?;
            let id = crate::fetch::hex(Sha256::digest(&bytes));
            return Ok(PromptCounter { kind: Kind::Json(Box::new(tokenizer)), id });
        }
        let (tokenizer, template, id) = text_of(path)?;
        Ok(PromptCounter { kind: Kind::Model(Box::new((tokenizer, template))), id })
    }

    /// SHA-256 of the file, in hex.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Tokens of a conversation with the opening of the answer: exactly for a model, which has a template; otherwise
    /// at most.
    ///
    /// # Errors
    /// [`ModelError::NoTemplate`], [`ModelError::Template`], [`ModelError::Tokenizer`].
    pub fn count(&self, messages: &[Message]) -> Result<usize, ModelError> {
        match &self.kind {
            Kind::Model(text) => {
                let (tokenizer, template) = &**text;
                let tokens = tokenizer.encode(&template.render(messages, true)?)?;
                let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
                Ok(tokens.len() + usize::from(bos.is_some() && tokens.first() != bos.as_ref()))
            }
            Kind::Json(tokenizer) => {
                // One more: the opening of the answer.
                let mut sum = AROUND_A_MESSAGE * (messages.len() + 1);
                for message in messages {
                    let encoding = tokenizer.encode_fast(message.content.as_str(), false);
                    sum += encoding.map_err(|e| ModelError::Tokenizer(e.to_string()))?.len();
                }
                Ok(sum)
            }
        }
    }
}
