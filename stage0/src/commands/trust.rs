//! `rkt trust`: keys that may sign images from now on.

use std::error::Error;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use super::Outcome;
use crate::cli::{Globals, TrustFlags};
use crate::trust::Key;
use crate::trust::keystore::{KeyStore, Scope};

/// Digits of a fingerprint between spaces.
const GROUP: usize = 4;

/// Why a key is not trusted.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(
        "the fingerprint of {0} cannot be reviewed, since standard input is no terminal: compare it by other means, and say \
        --skip-fingerprint-review"
    )]
    NoTerminal(String),
    #[error("the key {0} is not trusted: nobody has said so")]
    NotConfirmed(String),
}

/// Trusts the keys of files. All of them are read before the first is asked for.
pub fn trust(globals: &Globals, flags: &TrustFlags) -> Outcome {
    let scope = flags.prefix.clone().map_or(Scope::Root, Scope::Prefix);
    let store = KeyStore::of(globals);
    let files = flags.keys.iter().map(|path| Key::read(path).map(|keys| (path, keys)));
    let files = files.collect::<Result<Vec<_>, _>>()?;
    let keys = || files.iter().flat_map(|(path, keys)| keys.iter().map(move |key| (path, key)));
    if !flags.skip_fingerprint_review {
        keys().try_for_each(|(path, key)| review(&scope, path, key))?;
    }
    let mut out = io::stdout().lock();
    for (_, key) in keys() {
        let path = store.add(&scope, key)?;
        match &scope {
            Scope::Root => writeln!(out, "Added root key at \"{}\"", path.display())?,
            Scope::Prefix(prefix) => {
                writeln!(out, "Added key for prefix \"{prefix}\" at \"{}\"", path.display())?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows a key, and asks until the answer is one.
fn review(scope: &Scope, path: &Path, key: &Key) -> Result<(), Box<dyn Error>> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Refused::NoTerminal(path.display().to_string()).into());
    }
    eprint!("{}", description(scope, path, key));
    let mut line = String::new();
    loop {
        eprintln!("Are you sure you want to trust this key (yes/no)?");
        line.clear();
        let count = stdin.lock().read_line(&mut line)?;
        match line.trim() {
            "yes" => return Ok(()),
            "no" => break,
            _ if count == 0 => break,
            _ => {}
        }
    }
    Err(Refused::NotConfirmed(key.fingerprint()).into())
}

fn description(scope: &Scope, path: &Path, key: &Key) -> String {
    let scope = match scope {
        Scope::Root => "for all images".to_owned(),
        Scope::Prefix(prefix) => format!("prefix: \"{prefix}\""),
    };
    let owners: String = key.user_ids().iter().map(|owner| format!("\t{owner}\n")).collect();
    let digits = key.fingerprint().to_uppercase().into_bytes();
    let groups: Vec<String> =
        digits.chunks(GROUP).map(|group| String::from_utf8_lossy(group).into_owned()).collect();
    format!("{scope}\nkey: \"{}\"\ngpg key fingerprint is: {}\n{owners}", path.display(), groups.join(" "))
}
