//! Finding and executing a program, and saying why that failed.

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use pod::image_manifest::EnvironmentVariable;

use crate::error::{Error, errno};
use crate::interpreter;
use crate::sys::{self, Strings};

/// A command whose program has been found: all that is left is one system call.
pub struct Program {
    path: PathBuf,
    c_path: CString,
    arguments: Strings,
    environment: Strings,
}

impl Program {
    /// Looks a command's program up in the present root, as the present user. What the kernel says of a program only when it
    /// is executed is left to that.
    pub fn find(command: &[String], environment: &[EnvironmentVariable]) -> Result<Self, Error> {
        let name = command.first().map(String::as_str).unwrap_or_default();
        let search = environment.iter().find(|variable| variable.name == "PATH");
        let path = look_up(name, search.map(|variable| variable.value.as_str()))?;
        let variables = environment.iter().map(|variable| format!("{}={}", variable.name, variable.value));
        Ok(Self {
            c_path: c_string(&path)?,
            path,
            arguments: strings(command.iter())?,
            environment: strings(variables)?,
        })
    }

    /// Executes it; returns only if that failed.
    pub fn execute(self) -> Result<Infallible, Error> {
        Err(why_not(&self.path, sys::execve(&self.c_path, &self.arguments, &self.environment)))
    }
}

fn look_up(name: &str, path: Option<&str>) -> Result<PathBuf, Error> {
    let candidates = candidates(name, path);
    let mut denied = None;
    for candidate in &candidates {
        match check(candidate) {
            Ok(()) => return Ok(candidate.clone()),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(Errno::EACCES) => denied = denied.or(Some(candidate)),
            Err(errno) => return Err(Error::path("execute", candidate)(errno)),
        }
    }
    Err(match (denied, candidates.as_slice()) {
        (Some(denied), _) => why_denied(denied),
        (None, [only]) if name.contains('/') => impossible(only, "it is not in the image"),
        _ => Error::Impossible(format!(
            "cannot find \"{name}\" in the image; its PATH is {}",
            path.unwrap_or("not set")
        )),
    })
}

/// Whether a path leads to a file that this user may execute.
fn check(path: &Path) -> nix::Result<()> {
    access(path, AccessFlags::X_OK)?;
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(Errno::EACCES),
        Err(error) => Err(errno(&error)),
    }
}

/// Where a program may be: where it says if it has a `/`, else in the directories of PATH.
fn candidates(program: &str, path: Option<&str>) -> Vec<PathBuf> {
    match (program, path) {
        ("", _) => Vec::new(),
        (program, _) if program.contains('/') => vec![PathBuf::from(program)],
        (program, path) => path
            .into_iter()
            .flat_map(|path| path.split(':'))
            .map(|directory| {
                let directory = if directory.is_empty() { "." } else { directory };
                Path::new(directory).join(program)
            })
            .collect(),
    }
}

fn why_denied(program: &Path) -> Error {
    match std::fs::metadata(program) {
        Ok(metadata) if metadata.is_dir() => impossible(program, "it is a directory"),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => {
            impossible(program, "it is not executable")
        }
        _ => Error::path("execute", program)(Errno::EACCES),
    }
}

/// Why a program that is there could not be executed: it, or an interpreter that it needs, has a fault.
fn why_not(program: &Path, errno: Errno) -> Error {
    match interpreter::culprit(program) {
        Some((culprit, fault)) if culprit == program => impossible(program, &format!("it {fault}")),
        Some((culprit, fault)) => {
            impossible(program, &format!("it needs \"{}\", which {fault}", culprit.display()))
        }
        None => Error::path("execute", program)(errno),
    }
}

fn impossible(program: &Path, why: &str) -> Error {
    Error::Impossible(format!("cannot execute \"{}\": {why}", program.display()))
}

fn strings(texts: impl Iterator<Item = impl AsRef<OsStr>>) -> Result<Strings, Error> {
    texts.map(c_string).collect::<Result<_, _>>().map(Strings::new)
}

fn c_string(text: impl AsRef<OsStr>) -> Result<CString, Error> {
    CString::new(text.as_ref().as_bytes()).map_err(|_| {
        Error::Impossible(format!("{:?} holds a NUL, which no program can be given", text.as_ref()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(program: &Path) -> String {
        let found = Program::find(&[program.display().to_string()], &[]);
        found.and_then(Program::execute).unwrap_err().to_string()
    }

    #[test]
    fn where_programs_are_looked_for() {
        let found = |program, path| {
            let candidates = candidates(program, path);
            candidates.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(found("/bin/a", Some("/usr/bin")), ["/bin/a"]);
        assert_eq!(found("./a", Some("/usr/bin")), ["./a"]);
        assert_eq!(found("a", Some("/x::/y")), ["/x/a", "./a", "/y/a"]);
        assert!(found("a", None).is_empty() && found("", Some("/x")).is_empty());
    }

    #[test]
    fn why_a_program_does_not_run() {
        let home = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &[u8], mode| {
            let path = home.path().join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        assert!(failure(&home.path().join("nope")).contains("is not in the image"));
        assert!(failure(home.path()).contains("is a directory"));
        assert!(failure(&file("plain", b"x", 0o644)).contains("not executable"));
        assert!(failure(&file("text", b"hello", 0o755)).contains("architecture"));
        assert!(failure(&file("script", b"#!/no/shell -e\n", 0o755)).contains("needs \"/no/shell\""));
        let plain = home.path().join("plain");
        let script = file("locked", format!("#!{}\n", plain.display()).as_bytes(), 0o755);
        assert!(failure(&script).contains("plain\", which is not executable"));
        let path = EnvironmentVariable { name: "PATH".into(), value: "/nowhere".into() };
        let error = Program::find(&["nope".into()], &[path]).err().unwrap().to_string();
        assert!(error.contains("\"nope\"") && error.contains("/nowhere"), "{error}");
    }

    #[test]
    fn a_nul_is_an_error() {
        let command = ["/bin/sh".to_owned(), "a\0b".to_owned()];
        assert!(Program::find(&command, &[]).err().unwrap().to_string().contains("NUL"));
        assert!(failure(Path::new("/bin/a\0b")).contains("/bin/a"));
    }
}
