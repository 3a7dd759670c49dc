//! The `gc` entrypoint: removes what a pod that did not end by itself has left outside its directory. Its mounts and
//! processes went with its namespaces or its machine; what is left are cgroups and networks. Running it twice does no harm.

use std::path::Path;

use ::pod::abi::PodDirectory;
use uuid::Uuid;

use crate::{Error, cgroup, network};

/// Cleans up after the pod in the working directory.
pub fn gc(arguments: impl Iterator<Item = String>) -> Result<(), Error> {
    let uuid = parse(arguments)?;
    let here = std::env::current_dir().map_err(Error::file("find", Path::new(".")))?;
    // Each is tried, whatever becomes of the other.
    let cgroups = cgroup::remove_recorded(&here, uuid);
    network::clean_up(&PodDirectory::new(here)).and(cgroups)
}

/// `[--debug] UUID` (stage1 implementor's guide); there is nothing more to tell with --debug.
fn parse(arguments: impl Iterator<Item = String>) -> Result<Uuid, Error> {
    let mut uuids = arguments.filter(|argument| argument != "--debug");
    match (uuids.next(), uuids.next()) {
        (Some(uuid), None) => uuid.parse().map_err(|_| Error::Usage),
        _ => Err(Error::Usage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let uuid = Uuid::from_u128(7).to_string();
        let parse = |arguments: &[&str]| parse(arguments.iter().map(|argument| (*argument).to_owned()));
        assert!(parse(&[&uuid]).is_ok() && parse(&["--debug", &uuid]).is_ok());
        assert!(parse(&[]).is_err() && parse(&["x"]).is_err() && parse(&[&uuid, &uuid]).is_err());
    }
}
