//! Landlock: the rules that an app's program is executed under.

use std::os::fd::AsFd;
use std::path::Path;

use jail::landlock::{Handled, Ruleset, files, scopes, tcp};
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstat};
use pod::landlock::{Access, Landlock, Scope};

use crate::error::Error;

const READ: u64 = files::READ_FILE | files::READ_DIR;
const WRITE: u64 = READ | files::WRITE_FILE | files::TRUNCATE | files::CHANGE_DIR;
const EXECUTE: u64 = READ | files::EXECUTE;

/// Makes the rules, whose paths are those of the present root. To be called by root, who finds all of them.
pub fn prepare(rules: &Landlock) -> Result<Ruleset, Error> {
    let needed = rules.needed();
    let ruleset = Ruleset::new(&handled(rules)).map_err(Error::system(format!(
        "restrict the app by Landlock ({} need version {} of it: Linux {})",
        needed.what, needed.version, needed.linux
    )))?;
    for (path, access) in rules.paths().into_iter().flatten() {
        allow(&ruleset, Path::new(path), rights(access))?;
    }
    for (ports, right) in [(rules.bind(), tcp::BIND), (rules.connect(), tcp::CONNECT)] {
        for port in ports.into_iter().flatten() {
            let failed = Error::system(format!("allow TCP port {port} by Landlock"));
            ruleset.allow_port(*port, right).map_err(failed)?;
        }
    }
    Ok(ruleset)
}

fn handled(rules: &Landlock) -> Handled {
    let when = |condition: bool, bits: u64| if condition { bits } else { 0 };
    let scope = |scope| rules.scopes().contains(&scope);
    Handled {
        files: when(rules.paths().is_some(), WRITE | EXECUTE),
        tcp: when(rules.bind().is_some(), tcp::BIND) | when(rules.connect().is_some(), tcp::CONNECT),
        scopes: when(scope(Scope::Signal), scopes::SIGNAL)
            | when(scope(Scope::AbstractUnixSocket), scopes::ABSTRACT_UNIX_SOCKET),
    }
}

fn rights(access: Access) -> u64 {
    match access {
        Access::Read => READ,
        Access::Write => WRITE,
        Access::Execute => EXECUTE,
    }
}

/// No link of /proc is followed, which could lead to what the supervisor has open.
fn allow(ruleset: &Ruleset, path: &Path, rights: u64) -> Result<(), Error> {
    let how =
        OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let failed = || Error::path("allow by Landlock", path);
    let place = openat2(AT_FDCWD, path, how).map_err(failed())?;
    let kind = fstat(&place).map_err(failed())?.st_mode & SFlag::S_IFMT.bits();
    let rights = if kind == SFlag::S_IFDIR.bits() { rights } else { rights & files::OF_FILE };
    ruleset.allow_beneath(place.as_fd(), rights).map_err(failed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_is_handled() {
        let handled = |json| handled(&serde_json::from_str(json).unwrap());
        let files = WRITE | EXECUTE;
        assert_eq!(handled(r#"{"read":[]}"#), Handled { files, ..Handled::default() });
        assert_eq!(handled(r#"{"connect":[80]}"#), Handled { tcp: tcp::CONNECT, ..Handled::default() });
        assert_eq!(
            handled(r#"{"scope":["signal"]}"#),
            Handled { scopes: scopes::SIGNAL, ..Handled::default() }
        );
    }
}
