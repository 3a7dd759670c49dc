//! A pod's stage1 that is an image of somebody's. Its programs are executed by upstream's interface, in the host's namespaces, from
//! its tree in the pod's directory (stage1 implementor's guide).

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use pod::abi::{
    AttachArguments, ENV_ENTER_APP, ENV_ENTER_COMMAND, ENV_ENTER_PID, ENV_LOCK_FD, ENV_MOUNT_CONTEXT,
    ENV_SOCKETS, ENV_TIMELINE, ENV_TIMELINE_FILE, ENV_USERS_LOCK_FD, EnterArguments, Entrypoint, Interface,
    PodDirectory, StopArguments, app_arguments,
};
use pod::session::Change;
use pod::types::AcName;
use uuid::Uuid;

use super::{ENV_PROCESS_CONTEXT, Error, read_manifest};
use crate::sockets::Sockets;

/// Where programs are sought that a stage1 executes, if nobody says so: systemd's default for the host.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The stage1 of a pod.
pub struct Foreign {
    interface: Interface,
    directory: PodDirectory,
}

/// A running pod.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// Which.
    pub uuid: Uuid,
    /// The process to enter.
    pub pid: u32,
    /// More output.
    pub debug: bool,
}

impl Foreign {
    /// The stage1 of the pod in a directory; `None` if it is one of ours.
    pub fn of_pod(pod: &Path) -> Result<Option<Self>, Error> {
        let directory = PodDirectory::new(pod);
        if !directory.stage1_image().exists() {
            return Ok(None);
        }
        let path = directory.stage1_manifest();
        let interface = Interface::of(&read_manifest(&path)?);
        let interface = interface.map_err(|source| Error::Manifest { path, source: source.into() })?;
        Ok(Some(Self { interface, directory }))
    }

    /// What it says of itself.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    fn program(&self, entrypoint: Entrypoint) -> Result<PathBuf, Error> {
        Ok(self.directory.stage1_rootfs().join(self.interface.entrypoint(entrypoint)?))
    }

    fn command(&self, entrypoint: Entrypoint, arguments: &[String]) -> Result<(PathBuf, Command), Error> {
        let path = self.program(entrypoint)?;
        let mut command = Command::new(&path);
        command.args(arguments).current_dir(self.directory.path());
        Ok((path, command))
    }

    /// Becomes the stage1: returns only if that fails. Sockets that the caller has passed go on as they came.
    pub fn run(
        &self,
        arguments: &[String],
        lock: BorrowedFd<'_>,
        sockets: &Sockets,
    ) -> Result<Infallible, Error> {
        let (path, mut command) = self.command(Entrypoint::Run, arguments)?;
        let failed = |source| Error::Exec { path: path.clone(), source };
        fcntl(lock, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|error| failed(error.into()))?;
        sockets.pass_on().map_err(|error| failed(error.into()))?;
        command.env(ENV_LOCK_FD, lock.as_raw_fd().to_string());
        command.env(ENV_PROCESS_CONTEXT, "").env(ENV_MOUNT_CONTEXT, "");
        for name in [ENV_USERS_LOCK_FD, ENV_SOCKETS, ENV_TIMELINE, ENV_TIMELINE_FILE] {
            command.env_remove(name);
        }
        Err(failed(command.exec()))
    }

    /// Runs a command in an app: returns only if that fails.
    pub fn enter(&self, arguments: &EnterArguments) -> Result<Infallible, Error> {
        if arguments.privileged {
            return Err(self.interface.own("--privileged".into()).into());
        }
        let (path, mut command) = self.command(Entrypoint::Enter, &arguments.to_arguments())?;
        Err(Error::Exec { path, source: command.exec() })
    }

    /// Attaches to an app: returns only if that fails.
    pub fn attach(&self, pod: Running, arguments: &AttachArguments) -> Result<Infallible, Error> {
        let words = arguments.to_arguments();
        let (path, mut command) = self.crossing(Entrypoint::Attach, &words, pod, &arguments.app)?;
        Err(Error::Exec { path, source: command.exec() })
    }

    /// Asks it to end the pod.
    pub fn stop(&self, arguments: StopArguments) -> Result<ExitStatus, Error> {
        let (path, mut command) = self.command(Entrypoint::Stop, &arguments.to_arguments())?;
        command.status().map_err(|source| Error::Exec { path, source })
    }

    /// Has an app changed.
    pub fn change(&self, pod: Running, change: &Change) -> Result<ExitStatus, Error> {
        let arguments = app_arguments(change.action, pod.debug, pod.uuid, &change.app);
        let entrypoint = Entrypoint::App(change.action);
        let (path, mut command) = self.crossing(entrypoint, &arguments, pod, &change.app)?;
        command.status().map_err(|source| Error::Exec { path, source })
    }

    /// Has it clean up after its pod.
    pub fn gc(&self, debug: bool, local_config: &Path, uuid: Uuid) -> Result<ExitStatus, Error> {
        let arguments = self.interface.gc_arguments(debug, local_config, uuid);
        let (path, mut command) = self.command(Entrypoint::Gc, &arguments)?;
        command.status().map_err(|source| Error::Exec { path, source })
    }

    /// An entrypoint that works in the pod: its environment is how to enter that, and nothing else (rkt/stage0/common.go).
    fn crossing(
        &self,
        entrypoint: Entrypoint,
        arguments: &[String],
        pod: Running,
        app: &AcName,
    ) -> Result<(PathBuf, Command), Error> {
        let (path, mut command) = self.command(entrypoint, arguments)?;
        let search = std::env::var_os("PATH").filter(|path| !path.is_empty());
        command.env_clear().env("PATH", search.unwrap_or_else(|| OsString::from(DEFAULT_PATH)));
        command.env(ENV_ENTER_COMMAND, self.program(Entrypoint::Enter)?);
        command.env(ENV_ENTER_PID, pod.pid.to_string()).env(ENV_ENTER_APP, app.as_str());
        Ok((path, command))
    }
}
