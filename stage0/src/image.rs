//! Images as they come: an ACI, an OCI image layout, a `docker save` archive; told apart by their content, turned into an
//! appc manifest and one EROFS file.

mod aci;
mod bundle;
mod compression;
pub mod digest;
mod error;
mod oci;
mod open;
mod reference;
#[cfg(test)]
mod round_trip;
mod tarball;
mod tree_writer;

pub use aci::render_archive;
pub use error::Error;
pub use open::{Opened, Rendered};
pub use pack::quote;

/// The architecture of this machine in appc's words.
pub const ARCHITECTURE: &str = "amd64";

/// The annotation with those arguments at the end of an image's `exec` that are only defaults, as a JSON array. The name
/// is the one that upstream's converter of Docker images uses.
pub const DEFAULT_ARGUMENTS_ANNOTATION: &str = "appc.io/docker/cmd";

/// The largest manifest, index or configuration: OCI's registries refuse larger ones, too.
const MAX_JSON_BYTES: u64 = 4 << 20;
