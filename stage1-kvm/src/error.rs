//! The crate's one error type.

use std::io;
use std::path::PathBuf;

use pod::types::AcName;
use vmm::virtio::net::vhost::VHOST_DEVICE;

/// Why a pod could not be run in a VM, or ended against expectation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What both stage1s do.
    #[error(transparent)]
    Stage1(#[from] stage1::Error),
    /// The program was called by a name that is no entrypoint's.
    #[error(
        "\"{0}\" is not an entrypoint of this stage1: it is started as init, enter, stats, stop, export or gc, by rkt"
    )]
    Entrypoint(String),
    /// KVM is not usable.
    #[error("--stage1=kvm is not possible on this host; rkt doctor shows more, --stage1=nspawn needs no KVM")]
    Kvm(#[source] vmm::probe::Problem),
    /// `--net=host`.
    #[error(
        "--net=host is not possible in a VM: its kernel has a network of its own; \
         leave --net out, or use --stage1=nspawn"
    )]
    HostNetwork,
    /// The objects of the host's kernel.
    #[error("--ipc=parent is not possible in a VM: its kernel has objects of its own")]
    ParentIpc,
    /// A VM has no use for a user namespace.
    #[error("--private-users is not possible here: a VM's kernel has users of its own already")]
    PrivateUsers,
    /// A network cannot be had in a VM.
    #[error("cannot attach the VM to the pod's network")]
    Network(#[from] net::Error),
    /// No tap for a network.
    #[error("cannot attach the VM to the pod's network")]
    Tap(#[from] vmm::virtio::net::tap::TapError),
    /// The host's kernel has vhost-net, but not for this process.
    #[error(
        "cannot open {VHOST_DEVICE}, by which the host's kernel serves the VM's network: allow this process to use the device, or \
         take the module vhost_net from this host"
    )]
    Vhost(#[source] io::Error),
    /// The apps' limits contradict what a VM can have.
    #[error("cannot give a VM these limits")]
    Limits(#[source] pod::Error),
    /// An app's image is there only as a tree.
    #[error("the image of app \"{app}\" is not at {path}: a VM needs the EROFS file; fetch the image again")]
    NoImage {
        /// The app.
        app: AcName,
        /// Where it should be.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A part of this stage1 is missing.
    #[error("cannot open {path}, which belongs to --stage1=kvm: build or install it again")]
    Part {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The pod's volumes contradict each other.
    #[error("cannot tell the pod's volumes")]
    Volumes(#[source] pod::Error),
    /// An app that comes into a pod cannot be what its manifest says.
    #[error("cannot run this app in the pod")]
    App(#[source] pod::Error),
    /// A volume of the host could not be opened.
    #[error("cannot use {path} as volume \"{volume}\"")]
    Volume {
        /// Its name.
        volume: String,
        /// Where it should come from.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: nix::errno::Errno,
    },
    /// A volume of the host is nothing that a VM can have.
    #[error(
        "volume \"{volume}\" is {path}, which is neither a directory nor a regular file: devices, sockets and pipes of \
         the host do not reach into a VM; use --stage1=nspawn"
    )]
    VolumeKind {
        /// Its name.
        volume: String,
        /// Where it should come from.
        path: PathBuf,
    },
    /// No process for the machine, or for the server of a volume.
    #[error("cannot start a process of the VM")]
    Jail(#[from] jail::Error),
    /// The server of a volume could not begin.
    #[error("cannot serve volume \"{volume}\" to the VM: {why}")]
    VolumeServer {
        /// Its name.
        volume: String,
        /// What it said.
        why: String,
    },
    /// What the guest is to see of the processors cannot be had.
    #[error(transparent)]
    Processors(#[from] vmm::Error),
    /// A template that has just been made is none.
    #[error("{path} is not the template that was made there")]
    Template {
        /// Where it is.
        path: PathBuf,
    },
    /// The scratch disk could not be opened.
    #[error("cannot make the scratch disk {path}")]
    ScratchFile {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The host lacks the disk space that somebody asked for.
    #[error(
        "the pod is to have {wanted} bytes of disk space (--disk-space, resource/disk-space), and where {path} is to be, there are {free} \
         left: make room, or ask for less"
    )]
    NoSpace {
        /// The scratch disk's file.
        path: PathBuf,
        /// What is wanted.
        wanted: u64,
        /// What there is.
        free: u64,
    },
    /// The scratch disk could not be formatted.
    #[error("cannot format the scratch disk {path}")]
    Scratch {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: scratch::Error,
    },
    /// The machine could not be built, or failed.
    #[error(transparent)]
    Machine(#[from] stage1::error::Causes),
    /// What an app has left cannot be read.
    #[error("cannot read what app \"{app}\" has left")]
    Export {
        /// The app.
        app: AcName,
        /// What the guest says.
        #[source]
        source: stage1::error::Causes,
    },
    /// A file of the pod cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A thing that has no file to name.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The machine's process made a system call that none of its threads may make.
    #[error(
        "the VM's process has made the forbidden system call {call} and was killed: the guest may have taken it over"
    )]
    Forbidden {
        /// The call's number, as far as it could tell.
        call: String,
    },
    /// The machine's process ended without a report.
    #[error("the VM's process has ended unexpectedly: {end}")]
    VmmGone {
        /// How.
        end: String,
    },
    /// The guest's init reset the machine, and how its pod has ended was not heard.
    #[error("the guest has left without a word; the last lines of its console:\n{console}")]
    GuestGone {
        /// The end of the console's output.
        console: String,
    },
    /// The machine was reset, but not by its init.
    #[error(
        "the guest has reset the machine in the middle of its work: its kernel crashed (a triple fault), \
         or a process in the pod did it; the last lines of its console:\n{console}"
    )]
    GuestReset {
        /// The end of the console's output.
        console: String,
    },
    /// The guest attacks its images. The pod runs on.
    #[error(
        "warning: the pod's guest writes to the memory of its images, which no honest program does: they are read-only, and nothing is changed; \
         how often is told at the pod's end"
    )]
    ImageWritten,
    /// The same, at the end.
    #[error(
        "warning: the pod's guest has tried {count} times to write to the memory of its images, to no effect"
    )]
    ImageWrites {
        /// How often.
        count: u64,
    },
    /// The guest hangs.
    #[error("the guest has not {what} within {seconds} s; the last lines of its console:\n{console}")]
    Silent {
        /// What it should have done.
        what: &'static str,
        /// The limit.
        seconds: u64,
        /// The end of the console's output.
        console: String,
    },
    /// The guest does not keep to the protocol.
    #[error("the guest is not to be trusted: {0}")]
    Protocol(String),
}
