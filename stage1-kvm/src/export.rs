//! The `export` entrypoint: what an app of an ended pod has left, as an ACI on standard output. A throw-away guest reads the pod's
//! disk, for the host's kernel is to understand no file system that a guest has written. It cannot change the disk: neither the
//! file nor the device is open for writing.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use pod::abi::{ExportArguments, PodDirectory};
use pod::control::{ExitStatus, FromSupervisor, Stream, StreamHello, ToSupervisor};
use pod::plan;
use pod::types::AcName;
use stage1::error::Causes;
use vmm::{MachineConfig, Start, probe};

use crate::error::Error;
use crate::handshake::{self, Guest};
use crate::running::Running;
use crate::waiting::Waiting;
use crate::{machine, templates};

/// The image in the guest, after its own root.
const IMAGE_DEVICE: &str = "/dev/pmem0p2";
/// Where the archive comes from.
const ARCHIVE: StreamHello = StreamHello { app: 0, stream: Stream::Stdout };
const CHUNK_BYTES: usize = 64 << 10;

/// Prints what an app of the ended pod in the working directory has left.
pub fn export(arguments: impl Iterator<Item = String>) -> Result<(), Error> {
    let ExportArguments { app } = ExportArguments::parse(arguments)
        .map_err(|source| stage1::Error::Pod { what: "cannot carry out these arguments".into(), source })?;
    let kvm = probe::open_checked().map_err(Error::Kvm)?;
    let directory = stage1::pod::here()?;
    let path = directory.app_image(&app);
    let image = File::open(&path).map_err(|source| Error::NoImage {
        app: app.clone(),
        path: path.clone(),
        source,
    })?;
    let scratch = open_scratch(&directory)?;
    let order = order(&directory, &app, scratch.is_some())?;
    let (doors, ends) = handshake::doors(vec![ARCHIVE])
        .map_err(|source| Error::System { action: "make the guest's connections", source })?;
    let shape = machine::reader_shape(&kvm, &image)?;
    let start = templates::start(&kvm, &shape, machine::kernel()?, &|| false);
    let start = start.map_or_else(|| machine::kernel().map(Start::Kernel), Ok)?;
    let running =
        Running::start(machine::reader(MachineConfig::new(kvm, shape, start), image, scratch)?, ends, false)?;
    let result = doors.welcome(&order, &|| false).map_err(Error::from).and_then(|guest| take(guest, &app));
    result.map_err(|error| running.explain(error))
}

/// The pod's disk; `None` if the pod has ended before it had one.
fn open_scratch(directory: &PodDirectory) -> Result<Option<File>, Error> {
    let path = directory.scratch();
    match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some).map_err(|source| Error::Read { path, source }),
    }
}

fn order(directory: &PodDirectory, app: &AcName, has_scratch: bool) -> Result<ToSupervisor, Error> {
    let path = directory.app_manifest(app);
    let manifest = std::fs::read_to_string(&path).map_err(|source| Error::Read { path, source })?;
    let scratch = has_scratch.then_some(Path::new(machine::SCRATCH_DEVICE));
    let layers = plan::export_layers(app, Path::new(IMAGE_DEVICE));
    Ok(ToSupervisor::Export(Box::new(plan::export(app, &layers, scratch, manifest))))
}

/// Passes the archive on as it comes, and hears whether it is whole. A guest that fails earlier has no archive.
fn take(guest: Guest, app: &AcName) -> Result<(), Error> {
    let Guest { control, streams } = guest;
    if let Some((_, archive)) = streams.into_iter().next() {
        pass_on(&archive.into())?;
    }
    match Waiting::new("said how its work has ended", &|| false).read_message(&control.into())? {
        FromSupervisor::PodExited { status: ExitStatus::SUCCESS } => Ok(()),
        FromSupervisor::Failed { causes, .. } => match Causes::new(causes) {
            Some(source) => Err(Error::Export { app: app.clone(), source }),
            None => Err(Error::Protocol("it fails for no reason".into())),
        },
        _ => Err(Error::Protocol("it does not say how its work has ended".into())),
    }
}

fn pass_on(archive: &UnixStream) -> Result<(), Error> {
    let mut output = io::stdout().lock();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = Waiting::new("sent more of the archive", &|| false).read(archive, &mut chunk)?;
        let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        output.write_all(bytes).map_err(|source| Error::System { action: "pass the archive on", source })?;
    }
    output.flush().map_err(|source| Error::System { action: "pass the archive on", source })
}
