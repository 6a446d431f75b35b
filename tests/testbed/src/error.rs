//! What can go wrong in the test bed, each with a sentence that says what to do.

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure of the test bed itself. A *difference* between two clusters is not an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("{0}")]
    Mongo(#[source] Box<mongodb::error::Error>),
    #[error("no server binary: {0}; install MongoDB and set $MONGOD to the path of its mongod")]
    NoBinary(String),
    #[error("mongod did not start: {reason}\n{log}")]
    NotStarted { reason: String, log: String },
    #[error("waited {seconds} s for {state}")]
    TimedOut { state: String, seconds: u64 },
    /// The reading of a collection ended before its end. Never to be mistaken for "equal".
    #[error("read {namespace} short: {reason}")]
    ShortRead { namespace: String, reason: String },
    #[error("the server refused to store test data: {0}")]
    NotStored(String),
    #[error("the reply of the server is not as expected: {0}")]
    BadReply(String),
    #[error("cannot make certificates: {0}")]
    Certificate(#[from] rcgen::Error),
}

impl Error {
    /// Wraps an I/O error with what was being done.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}

impl From<mongodb::error::Error> for Error {
    fn from(error: mongodb::error::Error) -> Self {
        Error::Mongo(Box::new(error))
    }
}

impl From<mongodb::bson::error::Error> for Error {
    fn from(error: mongodb::bson::error::Error) -> Self {
        Error::BadReply(error.to_string())
    }
}
