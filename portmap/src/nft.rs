//! The executor: `nft`, which carries out a script as one transaction.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::error::Error;

const PROGRAM: &str = "nft";
/// Where administrators' programs are, which not every user's PATH has.
const USUAL: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"];
/// How much of what it says is told.
const EXCERPT_CHARACTERS: usize = 400;

/// The program.
#[derive(Debug)]
pub struct Nft(PathBuf);

impl Nft {
    /// Finds it in the directories of `path`, and where it usually is.
    pub fn find(path: Option<&OsStr>) -> Result<Self, Error> {
        let directories: Vec<PathBuf> =
            path.map(std::env::split_paths).into_iter().flatten().chain(USUAL.map(PathBuf::from)).collect();
        let program = directories.iter().map(|directory| directory.join(PROGRAM)).find(|path| path.is_file());
        program.map(Self).ok_or_else(|| {
            let joined = std::env::join_paths(&directories).unwrap_or_else(|_| OsString::from("PATH"));
            Error::NoNft(joined.to_string_lossy().into_owned())
        })
    }

    /// Carries out a script, as a whole or not at all.
    pub fn apply(&self, script: &str) -> Result<(), Error> {
        self.run(&["-f", "-"], script)
    }

    /// Finds out whether it and the kernel would carry out a script.
    pub fn try_out(&self, script: &str) -> Result<(), Error> {
        self.run(&["-c", "-f", "-"], script)
    }

    fn run(&self, arguments: &[&str], input: &str) -> Result<(), Error> {
        let failed = |source| Error::Execute(self.0.clone(), source);
        let mut command = Command::new(&self.0);
        command.args(arguments).env("LC_ALL", "C");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // It reads to the end before it says anything; if it ended early, its status tells.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::Failed {
            program: self.0.clone(),
            arguments: arguments.join(" "),
            said: excerpt(&output.stderr),
        })
    }
}

fn excerpt(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said).split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().take(EXCERPT_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_program_is_told_in_one_line() {
        let error = Nft(PathBuf::from("/bin/false")).apply("").unwrap_err().to_string();
        assert_eq!(error, "/bin/false -f - failed: ");
        assert_eq!(excerpt(b"Error: syntax error\n  table x\n"), "Error: syntax error table x");
    }

    #[test]
    fn what_is_not_executable_is_an_error() {
        assert!(matches!(Nft(PathBuf::from("/no/nft")).apply(""), Err(Error::Execute(..))));
    }
}
