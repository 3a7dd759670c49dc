//! The CNI plugin `portmap` for hosts that have nftables and not the CNI project's plugin of this name: it leads ports of the host to
//! a pod (capability `portMappings`). It comes last in rkt's search for plugins.
//!
//! All attachments have one table of nftables. Its rules are always the same; what an attachment is to have are elements of its maps and sets
//! ([`plan`], [`element`]), each with whose it is ([`owner`]). A call reads what all have ([`table`]), computes what changes ([`state`]), and has
//! `nft` carry that out as a whole or not at all ([`nft`]). So nothing has to be remembered.

mod element;
mod error;
mod loopback;
mod nft;
mod owner;
mod plan;
mod request;
mod route;
mod state;
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
