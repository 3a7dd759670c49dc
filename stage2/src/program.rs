//! Finding and executing a program, and saying why that failed.

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use pod::image_manifest::EnvironmentVariable;

use crate::error::Error;
use crate::interpreter;

/// Executes a command in the present root, as the present user; returns only if that failed.
pub fn execute(command: &[String], environment: &[EnvironmentVariable]) -> Result<Infallible, Error> {
    let program = command.first().map(String::as_str).unwrap_or_default();
    let arguments: Vec<CString> =
        command.iter().map(|word| c_string(word.as_str())).collect::<Result<_, _>>()?;
    let variables: Vec<CString> = environment
        .iter()
        .map(|variable| c_string(format!("{}={}", variable.name, variable.value)))
        .collect::<Result<_, _>>()?;
    let path = environment.iter().find(|variable| variable.name == "PATH").map(|path| path.value.as_str());
    let candidates = candidates(program, path);
    let mut denied = None;
    for candidate in &candidates {
        let Err(errno) = nix::unistd::execve(&c_string(candidate)?, &arguments, &variables);
        match errno {
            Errno::ENOENT | Errno::ENOTDIR if !candidate.exists() => {}
            Errno::EACCES => denied = denied.or(Some(candidate)),
            errno => return Err(diagnose(candidate, errno)),
        }
    }
    Err(match (denied, candidates.as_slice()) {
        (Some(denied), _) => diagnose(denied, Errno::EACCES),
        (None, [only]) if program.contains('/') => diagnose(only, Errno::ENOENT),
        _ => Error::Impossible(format!(
            "cannot find \"{program}\" in the image; its PATH is {}",
            path.unwrap_or("not set")
        )),
    })
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

/// Why a program could not be executed.
fn diagnose(program: &Path, errno: Errno) -> Error {
    let name = program.display();
    let Ok(metadata) = std::fs::metadata(program) else {
        return match errno {
            Errno::ENOENT => Error::Impossible(format!("cannot execute \"{name}\": it is not in the image")),
            errno => Error::path("execute", program)(errno),
        };
    };
    let why = match errno {
        Errno::EACCES if metadata.is_dir() => "it is a directory".to_owned(),
        Errno::EACCES if metadata.permissions().mode() & 0o111 == 0 => "it is not executable".to_owned(),
        Errno::ENOENT => match interpreter::of(program) {
            Some(interpreter) => {
                format!("it needs \"{}\", which is not in the image", interpreter.display())
            }
            None => return Error::path("execute", program)(errno),
        },
        Errno::ENOEXEC => "it is no program of this machine's architecture, and no script with #!".to_owned(),
        errno => return Error::path("execute", program)(errno),
    };
    Error::Impossible(format!("cannot execute \"{name}\": {why}"))
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
        execute(&[program.display().to_string()], &[]).unwrap_err().to_string()
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
        let path = EnvironmentVariable { name: "PATH".into(), value: "/nowhere".into() };
        let error = execute(&["nope".into()], &[path]).unwrap_err().to_string();
        assert!(error.contains("\"nope\"") && error.contains("/nowhere"), "{error}");
    }

    #[test]
    fn a_nul_is_an_error() {
        assert!(failure(Path::new("/bin/a\0b")).contains("NUL"));
    }
}
