//! Which image a file of the host is, remembered from its import: running the same file again neither reads nor hashes
//! it.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::time::{ClockId, clock_gettime};
use pod::types::ImageId;

use crate::image::digest::Digest;

/// A state of a file: device, inode, size, times of modification and change in nanoseconds, and path. Whatever is
/// written to the file gives it another time of change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    name: String,
    changed: (i64, i64),
}

impl Key {
    /// The key of a file as it is now. An image layout, a directory, stands and falls with its `index.json`: all else in
    /// it is named there by digest.
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut metadata = fs::metadata(path)?;
        if metadata.is_dir()
            && let Ok(index) = fs::metadata(path.join("index.json"))
        {
            metadata = index;
        }
        let mut text = std::path::absolute(path)?.as_os_str().as_bytes().to_vec();
        let numbers = [
            i128::from(metadata.dev()),
            i128::from(metadata.ino()),
            i128::from(metadata.size()),
            i128::from(metadata.mtime()),
            i128::from(metadata.mtime_nsec()),
            i128::from(metadata.ctime()),
            i128::from(metadata.ctime_nsec()),
        ];
        for number in numbers {
            text.push(0);
            text.extend_from_slice(number.to_string().as_bytes());
        }
        let name = Digest::sha256(&text).to_string().replace(':', "-");
        Ok(Self { name, changed: (metadata.ctime(), metadata.ctime_nsec()) })
    }

    /// The key as the name of a file.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Whether any later change to the file would get another key: the clock that gives files their times has moved on
    /// since the last change.
    fn is_settled(&self) -> bool {
        clock_gettime(ClockId::CLOCK_REALTIME_COARSE)
            .is_ok_and(|now| self.changed < (now.tv_sec(), now.tv_nsec()))
    }
}

/// What is remembered of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The image that it is.
    pub id: ImageId,
    /// Whether somebody had signed it who was trusted for it.
    pub verified: bool,
}

impl Note {
    /// An ID, and a word more if it was verified.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let id = words.next()?.parse().ok()?;
        Some(Self { id, verified: words.next() == Some(VERIFIED) })
    }

    fn text(&self) -> String {
        match self.verified {
            true => format!("{} {VERIFIED}", self.id),
            false => self.id.to_string(),
        }
    }
}

const VERIFIED: &str = "verified";

/// What is remembered of a file that has this key.
pub fn lookup(directory: &Path, key: &Key) -> Option<Note> {
    // An unreadable or half-written note is none: the image is imported again, which finds it in the store.
    Note::parse(&fs::read_to_string(directory.join(key.as_str())).ok()?)
}

/// Remembers an image, unless the file has changed since `key` was taken, or could yet change unnoticed.
pub fn record(directory: &Path, path: &Path, key: &Key, note: &Note) -> io::Result<()> {
    if Key::of(path)? != *key || !key.is_settled() {
        return Ok(());
    }
    // Neither synced nor renamed into place: a lost or half-written note is as good as none.
    fs::write(directory.join(key.as_str()), note.text())
}

/// Forgets about files whose images are gone.
pub fn forget(directory: &Path, is_gone: &dyn Fn(&ImageId) -> bool) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let noted = fs::read_to_string(&path).ok().and_then(|text| Note::parse(&text));
        if noted.is_none_or(|note| is_gone(&note.id)) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(path: &Path) -> Key {
        loop {
            let key = Key::of(path).unwrap();
            if key.is_settled() {
                return key;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    #[test]
    fn a_note_holds_until_the_file_changes() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("image");
        fs::write(&file, "1").unwrap();
        let id: ImageId = format!("sha512-{}", "0".repeat(64)).parse().unwrap();
        let note = Note { id, verified: true };
        let key = settle(&file);
        record(directory.path(), &file, &key, &note).unwrap();
        assert_eq!(lookup(directory.path(), &key), Some(note.clone()));
        fs::write(&file, "2").unwrap();
        let changed = Key::of(&file).unwrap();
        assert_ne!(changed, key);
        assert_eq!(lookup(directory.path(), &changed), None);
        // What was read under the old key may be a mixture of both.
        settle(&file);
        record(directory.path(), &file, &key, &note).unwrap();
        fs::remove_file(directory.path().join(key.as_str())).unwrap();
        record(directory.path(), &file, &key, &note).unwrap();
        assert_eq!(lookup(directory.path(), &key), None);
    }

    #[test]
    fn a_fresh_file_is_not_settled_in_the_tick_of_its_making() {
        let now = clock_gettime(ClockId::CLOCK_REALTIME_COARSE).unwrap();
        let mut key = Key { name: String::new(), changed: (now.tv_sec() + 1, 0) };
        assert!(!key.is_settled());
        key.changed = (now.tv_sec() - 1, 0);
        assert!(key.is_settled());
    }

    #[test]
    fn notes_say_whether_anything_was_verified() {
        let id: ImageId = format!("sha512-{}", "0".repeat(64)).parse().unwrap();
        for verified in [false, true] {
            let note = Note { id: id.clone(), verified };
            assert_eq!(Note::parse(&note.text()), Some(note));
        }
        // As they were written before there were signatures.
        assert_eq!(Note::parse(id.as_str()), Some(Note { id, verified: false }));
    }

    #[test]
    fn half_a_note_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let key = Key { name: "k".into(), changed: (0, 0) };
        fs::write(directory.path().join(key.as_str()), "sha512-00").unwrap();
        assert_eq!(lookup(directory.path(), &key), None);
    }
}
