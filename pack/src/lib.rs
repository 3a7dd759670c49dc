//! Writes ACIs: of images in the store, of trees of the host, and, in a throw-away guest, of what an app of a VM pod has left.
//! The same tree always gives the same bytes, whoever packs it.

mod error;
mod host_xattr;
mod owners;
mod tree;
mod writer;
mod xattr;

pub use error::Error;
pub use tree::pack_tree;
pub use writer::{AciWriter, Node};
pub use xattr::is_kept;

/// Bytes of a name as text for messages: names are hostile, so control characters never reach a terminal.
pub fn quote(name: &[u8]) -> String {
    const LONGEST: usize = 300;
    let text = String::from_utf8_lossy(name);
    let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut quoted: String = text.chars().take(LONGEST).map(printable).collect();
    if text.chars().nth(LONGEST).is_some() {
        quoted.push_str("...");
    }
    quoted
}
