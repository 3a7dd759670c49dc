//! SELinux: the context that the next program is executed in.

use pod::selinux::Context;

use crate::attribute;
use crate::error::Error;

/// Has the kernel execute this process's next program in `context`.
pub fn execute_in(context: &Context) -> Result<(), Error> {
    let context = context.to_string();
    // As libselinux writes it: with its NUL.
    attribute::write(&["/proc/thread-self/attr/exec"], format!("{context}\0").as_bytes())
        .map_err(Error::system(format!("confine the app by the SELinux context {context}")))
}
