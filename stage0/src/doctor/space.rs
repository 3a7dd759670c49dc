//! Room for images and pods.

use std::path::Path;

use nix::sys::statvfs::statvfs;

use super::{Need, Row};

/// Below this, not even a small image fits.
const LEAST_BYTES: u64 = 64 << 20;

pub fn rows(data: &Path) -> Vec<Row> {
    let name = format!("space in {}", data.display());
    // The directory comes to be with the first image; until then its parent's file system counts.
    let existing = data.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    vec![match statvfs(existing) {
        Ok(fs) => row(name, fs.blocks_available().saturating_mul(fs.fragment_size())),
        Err(error) => Row::missing(name, Need::Both, error.desc(), "choose another directory with --dir"),
    }]
}

fn row(name: String, free_bytes: u64) -> Row {
    let found = format!("{} MiB free", free_bytes >> 20);
    match free_bytes >= LEAST_BYTES {
        true => Row::ok(name, Need::Both, found),
        false => {
            let remedy = "rkt gc removes ended pods; --dir chooses another directory";
            Row::missing(name, Need::Both, found, remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room() {
        assert!(row("x".into(), 1 << 30).ok);
        assert!(!row("x".into(), 1 << 20).ok);
        assert!(rows(Path::new("/nowhere/at/all"))[0].found.contains("MiB free"));
    }
}
