//! Images that the benchmark makes.

use std::io::Write;

use erofs::{Kind, Metadata};
use serde_json::json;

use crate::Error;

/// An ACI of this name, with an empty root so far.
pub fn begin<W: Write>(output: W, name: &str) -> Result<pack::AciWriter<W>, Error> {
    let manifest = json!({
        "acKind": "ImageManifest", "acVersion": "0.8.11", "name": name,
        "labels": [{ "name": "os", "value": "linux" }, { "name": "arch", "value": "amd64" }],
    });
    let mut archive = pack::AciWriter::new(output, &serde_json::to_vec(&manifest)?)?;
    let (kind, metadata) = (Kind::Directory, Metadata::root_owned(0o755));
    let data = &mut std::io::empty();
    archive.add(b"", pack::Node { kind, metadata: &metadata, target: b"", data, size: 0, identity: None })?;
    Ok(archive)
}
