use assay_types::Message;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, context};
use sha2::{Digest, Sha256};

use crate::error::ModelError;

const NAME: &str = "chat";

/// The model's chat template, rendered as Hugging Face's `apply_chat_template` does: Jinja with
/// `trim_blocks`, `lstrip_blocks` and Python's string methods.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    hash: String,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Compiles `source`; `bos` and `eos` are the texts of those tokens. An empty source stands for
    /// a model without template, which renders nothing.
    ///
    /// # Errors
    /// [`ModelError::Template`] when it does not parse.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, ModelError> {
        let mut environment = Environment::new();
        let fail = |e: Error| ModelError::Template(e.to_string());
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(fail)?);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned(NAME, source.to_owned()).map_err(fail)?;
        Ok(ChatTemplate {
            environment,
            source: source.to_owned(),
            hash: crate::fetch::hex(Sha256::digest(source.as_bytes())),
            bos: bos.to_owned(),
            eos: eos.to_owned(),
        })
    }

    /// The text of the template.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// SHA-256 of the text, in hex: recorded in adapters, so that one is never served with another
    /// template.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The conversation as the model reads it; with the opening of the assistant's turn at the end
    /// when `add_generation_prompt`.
    ///
    /// # Errors
    /// [`ModelError::NoTemplate`] or [`ModelError::Template`], e.g. when the template refuses a
    /// system message.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, ModelError> {
        if self.source.is_empty() {
            return Err(ModelError::NoTemplate);
        }
        let turn =
            |m: &Message| context! { role => m.role.as_str(), content => m.content.as_str() };
        let messages: Vec<Value> = messages.iter().map(turn).collect();
        let template = self.environment.get_template(NAME);
        template
            .and_then(|template| {
                template.render(context! {
                    messages,
                    add_generation_prompt,
                    bos_token => self.bos.as_str(),
                    eos_token => self.eos.as_str(),
                })
            })
            .map_err(|e| ModelError::Template(e.to_string()))
    }
}
