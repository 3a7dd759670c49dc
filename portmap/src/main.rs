//! The CNI plugin `portmap` for hosts that have nftables and not the CNI project's plugin of this name: it leads ports of the host to
//! a pod (capability `portMappings`). It comes last in rkt's search for plugins.
//!
//! What is to be is computed as a table of nftables for the attachment alone ([`plan`], [`table`]); one small executor has `nft` carry it
//! out as a whole or not at all ([`nft`]). So nothing has to be remembered: the table is named after the attachment, and goes as a whole.

mod error;
mod nft;
mod plan;
mod request;
mod route;
mod table;
mod verbs;

use std::io::{Read, Write};
use std::process::ExitCode;

use error::Error;
use request::Call;

fn main() -> ExitCode {
    let (text, code) = match carry_out() {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error) => (error.to_json().to_string(), ExitCode::FAILURE),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// What is to be printed.
fn carry_out() -> Result<String, Error> {
    let mut configuration = Vec::new();
    std::io::stdin().read_to_end(&mut configuration).map_err(Error::Input)?;
    let call = Call::of(|name| std::env::var(name).ok(), &configuration)?;
    verbs::carry_out(&call)
}
