//! The `gc` entrypoint: removes what a pod that did not end by itself has left outside its directory. Its mounts and
//! processes went with its namespaces or its machine; cgroups are all there is. Running it twice does no harm.

use std::path::Path;

use uuid::Uuid;

use crate::{Error, cgroup};

/// Cleans up after the pod in the working directory.
pub fn gc(arguments: impl Iterator<Item = String>) -> Result<(), Error> {
    cgroup::remove_recorded(Path::new("."), parse(arguments)?)
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
