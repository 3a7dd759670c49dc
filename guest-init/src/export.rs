//! A guest that is no pod: it packs what an app of another one has left, and gives it to the host.

use std::io::BufWriter;

use pod::control::{Stream, StreamHello};
use pod::plan::Export;

use crate::connect;
use crate::error::Error;

/// What is given to the host at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Carries the export out. The host knows that the archive is whole when it is told so, not by the connection's end.
pub fn export(export: &Export) -> Result<(), Error> {
    stage2::carry_out(&export.setup, None)?;
    let connection = connect::stream(StreamHello { app: 0, stream: Stream::Stdout })?;
    let output = BufWriter::with_capacity(CHUNK_BYTES, connection);
    let output = pack::pack_tree(&export.root, None, export.manifest.as_bytes(), output)?;
    output.into_inner().map_err(|error| Error::Output(error.into_error()))?;
    Ok(())
}
