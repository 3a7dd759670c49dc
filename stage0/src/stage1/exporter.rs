//! The `export` entrypoint of a pod's stage1, at work.

use std::io::{PipeReader, Read, pipe};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::prctl;
use nix::sys::signal::Signal;
use pod::abi::{ANNOTATION_EXPORT, ExportArguments};
use pod::types::AcName;
use uuid::Uuid;

use super::{Error, entrypoint};

/// A stage1 that prints an archive. It is killed when this is dropped, and when this process dies.
pub struct Exporter {
    path: PathBuf,
    process: Child,
    archive: PipeReader,
}

impl Exporter {
    /// Starts it on what an app of the pod at `pod` has left.
    pub fn start(pod: &Path, uuid: Uuid, app: &AcName) -> Result<Self, Error> {
        let path = entrypoint(pod, ANNOTATION_EXPORT)?.ok_or(Error::NoEntrypoint(uuid, "export"))?;
        let mut command = Command::new(&path);
        command.args(ExportArguments { app: app.clone() }.to_arguments()).current_dir(pod);
        let failed = |source| Error::Exec { path: path.clone(), source };
        let (archive, output) = pipe().map_err(failed)?;
        command.stdin(Stdio::null()).stdout(output);
        // SAFETY: between fork and exec, prctl is a plain system call that touches no memory of the parent's.
        unsafe { command.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)) };
        let process = command.spawn().map_err(failed)?;
        Ok(Self { path, process, archive })
    }

    /// What it prints.
    pub fn archive(&mut self) -> &mut impl Read {
        &mut self.archive
    }

    /// Hears whether it was successful, if the archive was good. If not, it is an error only if the stage1 has ended by itself, and has
    /// said why: else the archive is to blame, and the stage1 is not needed any more.
    pub fn finish(mut self, good: bool) -> Result<(), Error> {
        let ended = good || matches!(self.archive.read(&mut [0]), Ok(0));
        if !ended {
            return Ok(());
        }
        let failed = |source| Error::Exec { path: self.path.clone(), source };
        let status = self.process.wait().map_err(failed)?;
        if status.success() { Ok(()) } else { Err(Error::Failed("export", status)) }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // One that has been waited for is not signalled.
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}
