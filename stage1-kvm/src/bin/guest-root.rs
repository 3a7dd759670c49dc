//! Makes the guest's root file system: an EROFS image of guest-init and of the directories that file systems are
//! mounted on. `make build` runs it; every guest maps the one file.
//!
//! `guest-root GUEST-INIT IMAGE`

use std::error::Error;
use std::fs::File;
use std::process::ExitCode;

use erofs::{EntryPath, Metadata, Writer};
use pod::plan::VM_MOUNT_POINTS;

fn main() -> ExitCode {
    match make(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest-root: {error}");
            ExitCode::FAILURE
        }
    }
}

fn make(mut arguments: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let mut next = || arguments.next().ok_or("usage: guest-root GUEST-INIT IMAGE");
    let (init, image) = (next()?, next()?);
    let mut init = File::open(&init).map_err(|error| format!("{init}: {error}"))?;
    let size = init.metadata()?.len();
    // The file appears under its name when it is whole.
    let unfinished = format!("{image}.new");
    let file = File::create(&unfinished).map_err(|error| format!("{unfinished}: {error}"))?;
    let mut writer = Writer::new(file);
    let metadata = Metadata::root_owned(0o755);
    for directory in VM_MOUNT_POINTS {
        writer.directory(&EntryPath::in_root(directory.as_bytes())?, &metadata)?;
    }
    writer.file(&EntryPath::in_root(b"/init")?, &metadata, &mut init, size)?;
    let (file, _) = writer.finish()?;
    file.sync_all()?;
    std::fs::rename(&unfinished, &image)?;
    Ok(())
}
