//! Whether an app's program is in its image, asked before anything is made.

use std::fs::File;
use std::path::Path;

use erofs::{EntryPath, Kind, Reader};
use pod::plan::Process;
use pod::types::AcName;

use super::Error;

const EXECUTE: u16 = 0o111;

/// Checks that the program of `process` is an executable file of the image: at its place if it is absolute, from the
/// working directory if it has a slash, else in the directories of PATH (reference: appc spec, "Execution").
pub fn check(app: &AcName, image: &str, process: &Process, erofs: &Path) -> Result<(), Error> {
    let damaged = |source| Error::Image { app: app.to_string(), source };
    let file = File::open(erofs).map_err(Error::io("open", erofs))?;
    let reader = Reader::open(file).map_err(damaged)?;
    let refuse = |what: String| Err(Error::App { app: app.to_string(), image: image.into(), what });
    let program = process.exec.first().map(String::as_str).unwrap_or_default();
    let mut found = None;
    for candidate in candidates(program, process) {
        match look_up(&reader, &candidate).map_err(damaged)? {
            Found::Program => return Ok(()),
            Found::Nothing => {}
            other => found = found.or(Some((candidate, other))),
        }
    }
    match found {
        Some((path, Found::NotAFile)) => refuse(format!("its command {path} is not a file")),
        Some((path, _)) => refuse(format!("its command {path} is not executable")),
        None if program.contains('/') => refuse(format!("its command {program} is not in the image")),
        None => refuse(format!("its command {program} is not in the image, in no directory of PATH")),
    }
}

/// Where the program may be, in order.
fn candidates(program: &str, process: &Process) -> Vec<String> {
    let directory = process.working_directory.to_string_lossy();
    let in_directory = |path: &str| format!("{}/{path}", directory.trim_end_matches('/'));
    if program.starts_with('/') {
        return vec![program.to_owned()];
    }
    if program.contains('/') {
        return vec![in_directory(program)];
    }
    let path = process.environment.iter().find(|variable| variable.name == "PATH");
    let path = path.map(|variable| variable.value.as_str()).unwrap_or_default();
    path.split(':')
        .map(|entry| match entry {
            "" => in_directory(program),
            entry if entry.starts_with('/') => format!("{}/{program}", entry.trim_end_matches('/')),
            entry => in_directory(&format!("{entry}/{program}")),
        })
        .collect()
}

enum Found {
    Program,
    NotAFile,
    NotExecutable,
    Nothing,
}

fn look_up(reader: &Reader<File>, path: &str) -> Result<Found, erofs::Error> {
    // A path with ".." is for the kernel to judge; in the root's own directory it means nothing.
    let Ok(path) = EntryPath::in_root(path.as_bytes()) else { return Ok(Found::Program) };
    let inode = match reader.resolve(&path) {
        Ok(Some(inode)) => inode,
        Ok(None) | Err(erofs::Error::NotADirectory { .. } | erofs::Error::TooManyLinks { .. }) => {
            return Ok(Found::Nothing);
        }
        Err(error) => return Err(error),
    };
    if inode.kind() != Kind::Regular {
        return Ok(Found::NotAFile);
    }
    let executable = reader.metadata(&inode)?.permissions & EXECUTE != 0;
    Ok(if executable { Found::Program } else { Found::NotExecutable })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use erofs::{Metadata, Writer};
    use pod::capability::CapabilitySet;
    use pod::image_manifest::EnvironmentVariable;

    fn process(program: &str) -> Process {
        Process {
            exec: vec![program.into()],
            user: "0".into(),
            group: "0".into(),
            supplementary_gids: Vec::new(),
            working_directory: "/srv".into(),
            environment: vec![EnvironmentVariable { name: "PATH".into(), value: "/sbin:/bin/:lib".into() }],
            capabilities: CapabilitySet(0),
            no_new_privileges: false,
            filter: None,
            rlimits: Vec::new(),
            apparmor: None,
            selinux: None,
            landlock: None,
            oom_score_adj: None,
        }
    }

    fn image(directory: &Path) -> PathBuf {
        let path = directory.join("image.erofs");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let mut writer = Writer::new(file);
        let mut add = |name: &str, permissions| {
            let name = EntryPath::in_root(name.as_bytes()).unwrap();
            writer.file(&name, &Metadata::root_owned(permissions), &mut &b""[..], 0).unwrap();
        };
        add("/bin/sh", 0o755);
        add("/bin/data", 0o644);
        add("/srv/lib/tool", 0o700);
        let link = EntryPath::in_root(b"/sbin").unwrap();
        writer.symlink(&link, &Metadata::root_owned(0o777), b"bin").unwrap();
        writer.finish().unwrap();
        path
    }

    #[test]
    fn programs() {
        let directory = tempfile::tempdir().unwrap();
        let erofs = image(directory.path());
        let check = |program: &str| check(&"a".parse().unwrap(), "i.aci", &process(program), &erofs);
        for good in ["/bin/sh", "/sbin/sh", "sh", "tool", "lib/tool"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for (bad, expected) in [
            ("/bin/bash", "/bin/bash is not in the image"),
            ("bash", "in no directory of PATH"),
            ("/bin", "not a file"),
            ("data", "/sbin/data is not executable"),
            ("/bin/sh/x", "not in the image"),
            ("", "not a file"),
        ] {
            let text = check(bad).unwrap_err().to_string();
            assert!(text.contains(expected) && text.contains("i.aci"), "{bad}: {text}");
        }
    }
}
