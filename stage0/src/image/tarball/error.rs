//! What can be wrong with an archive.

use std::io;

/// Why an archive could not be read. Offsets count bytes of the uncompressed archive.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream below failed; truncated and corrupt compressed streams end here.
    #[error("cannot read the archive at byte {offset}{}", behind(.after))]
    Read {
        /// Where.
        offset: u64,
        /// The last entry before.
        after: Option<String>,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ends where it should not.
    #[error("the archive is truncated: it ends at byte {offset}{}; get it again", behind(.after))]
    Truncated {
        /// Where.
        offset: u64,
        /// The last entry before.
        after: Option<String>,
    },
    /// A header or an extension header is not what it should be.
    #[error("the archive is damaged before byte {offset}{}: {what}; get it again", behind(.after))]
    Damaged {
        /// Where.
        offset: u64,
        /// The last entry before.
        after: Option<String>,
        /// What is wrong.
        what: String,
    },
    /// An entry is not what it should be.
    #[error("entry \"{entry}\": {what}")]
    Entry {
        /// Its name.
        entry: String,
        /// What is wrong.
        what: String,
    },
    /// PAX records that cannot be parsed.
    #[error("the archive has malformed PAX records: {0}")]
    Pax(&'static str),
}

fn behind(entry: &Option<String>) -> String {
    entry.as_ref().map(|name| format!(", after entry \"{name}\"")).unwrap_or_default()
}
