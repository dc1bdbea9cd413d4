//! Why a file has no text.

/// Why a file has no text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Most of the bytes are UTF-8, and some are not.
    #[error("not UTF-8: the first invalid byte is at offset {offset}")]
    NotUtf8 {
        /// Bytes before the first invalid one.
        offset: usize,
    },
    /// The bytes are not what the encoding that the file declares, or seems to have, allows.
    #[error("not {encoding}: the first invalid bytes are at offset {offset}")]
    Encoding {
        /// Its name.
        encoding: &'static str,
        /// Bytes before the first invalid ones.
        offset: usize,
    },
    /// There is a NUL in what should be text.
    #[error("not a text: there is a NUL byte at offset {offset}")]
    Nul {
        /// Bytes before it.
        offset: usize,
    },
    /// It opens with a password only.
    #[error("protected by a password")]
    Password,
    /// The file is not what it says it is, or only the first part of it.
    #[error("damaged {format} file: {what}")]
    Damaged {
        /// Of which format it should be.
        format: &'static str,
        /// What is wrong.
        what: String,
    },
    /// It would use more than is allowed.
    #[error("more than {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// The parser met a bug of its own.
    #[error("the {format} parser panicked: {message}")]
    Panicked {
        /// Which parser.
        format: &'static str,
        /// What it said.
        message: String,
    },
}

impl ParseError {
    /// What the user can do, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            ParseError::NotUtf8 { .. } | ParseError::Encoding { .. } => {
                Some("convert the file to UTF-8, for example with iconv")
            }
            ParseError::Nul { .. } => Some("remove the file if it is binary"),
            ParseError::Password => Some("save a copy without the password"),
            ParseError::Damaged { .. } => {
                Some("open it in the program that wrote it and save it again")
            }
            ParseError::Limit { .. } => Some("split the file"),
            ParseError::Panicked { .. } => None,
        }
    }

    /// Message and hint in one line.
    pub fn reason(&self) -> String {
        match self.hint() {
            Some(hint) => format!("{self}; {hint}"),
            None => self.to_string(),
        }
    }
}
