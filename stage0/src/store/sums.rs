//! What the files of an image were when they were written, in the form of sha256sum(1).

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::image::digest::{Digest, Hashed, sha256_hasher};

/// The file with the digests, beside those that it is about.
pub const FILE: &str = "sha256sums";

/// The SHA-256 of a file.
pub fn of_file(path: &Path) -> io::Result<Digest> {
    Hashed::new(File::open(path)?, sha256_hasher()).finish().map(|(digest, _)| digest)
}

/// The lines for some files.
pub fn lines(files: &[(&str, Digest)]) -> String {
    files.iter().map(|(name, digest)| format!("{}  {name}\n", digest.hex())).collect()
}

/// The files in a directory that are not what they were, by name; `None` if nobody has noted what they were.
pub fn changed(directory: &Path) -> io::Result<Option<Vec<String>>> {
    let mut text = String::new();
    match File::open(directory.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    }
    // What is no text any more names no files, so that each of them counts as changed.
    .read_to_string(&mut text)
    .or_else(|error| if error.kind() == io::ErrorKind::InvalidData { Ok(0) } else { Err(error) })?;
    let mut changed = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != FILE && !is_noted(&text, &name, &of_file(&directory.join(&name))?) {
            changed.push(name);
        }
    }
    // One that is noted and is not there any more.
    let noted = text.lines().filter_map(|line| line.split_once("  "));
    let missing = noted.map(|(_, name)| name.to_owned()).filter(|name| !directory.join(name).exists());
    changed.extend(missing);
    changed.sort();
    Ok(Some(changed))
}

fn is_noted(text: &str, name: &str, digest: &Digest) -> bool {
    text.lines().any(|line| line.split_once("  ") == Some((digest.hex(), name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_changes_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        assert_eq!(changed(directory.path()).unwrap(), None);
        let write = || {
            fs::write(path("a"), "1").unwrap();
            fs::write(path("b"), "2").unwrap();
            let files = ["a", "b"].map(|name| (name, of_file(&path(name)).unwrap()));
            fs::write(path(FILE), lines(&files)).unwrap();
        };
        let found = || changed(directory.path()).unwrap().unwrap().join(" ");
        write();
        assert_eq!(found(), "");
        fs::write(path("a"), "0").unwrap();
        assert_eq!(found(), "a");
        fs::remove_file(path("b")).unwrap();
        assert_eq!(found(), "a b");
        write();
        fs::write(path("c"), "").unwrap();
        assert_eq!(found(), "c");
        fs::write(path(FILE), [0xff]).unwrap();
        assert_eq!(found(), "a b c");
    }
}
