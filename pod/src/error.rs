//! The crate's one error type.

/// Why a manifest, an argument or a message is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A JSON text does not parse into the type it should be.
    #[error("{what} is not valid")]
    Json {
        /// Which text: "image manifest", "pod manifest", "control message".
        what: &'static str,
        /// The parser's answer, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// A string breaks the rules of its type.
    #[error("\"{value}\" is not {expected}")]
    Syntax {
        /// The offending text.
        value: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// A manifest's parts contradict each other or the specification.
    #[error("{0}")]
    Invalid(String),
    /// Something that this version does not carry out, and will not ignore either.
    #[error("{0} is not supported yet")]
    Unsupported(String),
    /// A stage1 image has an interface that has no word for something.
    #[error(
        "{what} is not possible with the stage1 {stage1}: its interface version is {version}, and that came with version {since}"
    )]
    InterfaceVersion {
        /// What was wanted.
        what: String,
        /// The image's name.
        stage1: String,
        /// Its version.
        version: u32,
        /// The first version that has it.
        since: u32,
    },
    /// A stage1 image lacks a program that not all of them have.
    #[error("the stage1 {stage1} has no {entrypoint} entrypoint")]
    NoEntrypoint {
        /// The image's name.
        stage1: String,
        /// Which program.
        entrypoint: String,
    },
    /// No interface version has a word for it.
    #[error(
        "{what} is not possible with the stage1 {stage1}: only rkt's own know it, --stage1=nspawn and --stage1=kvm"
    )]
    OwnStage1Only {
        /// What was wanted.
        what: String,
        /// The image's name.
        stage1: String,
    },
    /// A control message is larger than its reader accepts.
    #[error("a control message of {bytes} bytes is larger than the limit of {limit}")]
    MessageTooLarge {
        /// The announced size.
        bytes: usize,
        /// The reader's limit.
        limit: usize,
    },
}

impl Error {
    pub(crate) fn syntax(value: impl Into<String>, expected: &'static str) -> Self {
        Self::Syntax { value: value.into(), expected }
    }
}
