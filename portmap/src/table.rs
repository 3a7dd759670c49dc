//! The table as the kernel has it, and the lock of those who change it.

use std::fs::{self, File};
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::element::{Element, Set};
use crate::error::Error;
use crate::owner::Owner;
use crate::state::{Held, State, TABLE};

/// Whoever reads what all have in order to change something holds this lock.
const DIRECTORY: &str = "/run/rkt";
const LOCK: &str = "ports.lock";

/// Waits until nobody else changes the table. What this process executes holds the lock, too: so it is not free before nft has ended, though
/// this process may be killed.
pub fn lock() -> Result<File, Error> {
    let path = Path::new(DIRECTORY).join(LOCK);
    let locked = fs::create_dir_all(DIRECTORY).and_then(|()| {
        let file = File::options().write(true).create(true).truncate(false).open(&path)?;
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
        file.lock()?;
        Ok(file)
    });
    locked.map_err(|source| Error::Lock(path, source))
}

/// What everybody has.
pub fn read() -> Result<State, Error> {
    let mut state = State::default();
    for set in Set::ALL {
        let Some(elements) = net::nftables::elements(TABLE, &set.to_string()).map_err(Error::Read)? else {
            continue;
        };
        state.exists = true;
        state.held.extend(elements.iter().filter_map(|element| {
            let owner = Owner::of_comment(&element.comment);
            Some(Held { owner, element: Element::parse(set, element)? })
        }));
    }
    Ok(state)
}

/// The remarks of all rules.
pub fn remarks() -> Result<Vec<String>, Error> {
    net::nftables::remarks(TABLE).map_err(Error::Read)
}
