//! The program's one error type.

use std::path::PathBuf;

use pod::types::AcName;
use uuid::Uuid;

/// Why a pod without isolation cannot be run, or be dealt with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What all stage1s do.
    #[error(transparent)]
    Stage1(#[from] stage1::Error),
    /// What other stage1s do.
    #[error("--stage1=fly has no entrypoint {0}: nothing of rkt is in such a pod that could do it")]
    NoEntrypoint(String),
    /// What the run entrypoint was asked for.
    #[error(
        "--stage1=fly cannot carry out {0}: its app has the host's; leave it out, or use --stage1=nspawn"
    )]
    Argument(String),
    /// The app was not started.
    #[error("cannot start app \"{app}\"")]
    NotStarted {
        /// Which.
        app: AcName,
        /// The cause.
        #[source]
        source: stage2::Error,
    },
    /// A command in the app was not.
    #[error("cannot enter app \"{app}\"")]
    NotEntered {
        /// Which.
        app: AcName,
        /// The cause.
        #[source]
        source: stage2::Error,
    },
    /// The plan has not one app, which it was made for.
    #[error("this stage1 runs pods of one app")]
    NotOneApp,
    /// An app of another name.
    #[error("the pod's app is \"{0}\"")]
    OtherApp(AcName),
    /// Nobody to enter.
    #[error("no process of the pod is left")]
    NobodyThere,
    /// Processes of a pod whose lock nobody holds any more, or which SIGKILL has not ended.
    #[error(
        "processes of pod \"{uuid}\" still run ({processes}): the pod stays until they have ended, or are killed"
    )]
    StillRun {
        /// The pod.
        uuid: Uuid,
        /// Their numbers.
        processes: String,
    },
    /// The working directory is not a pod's.
    #[error("{} is not the directory of a pod", .0.display())]
    NoPod(PathBuf),
}

impl Error {
    /// For `map_err`: arguments of an entrypoint.
    pub fn arguments(source: pod::Error) -> Self {
        stage1::Error::Pod { what: "cannot carry out these arguments".into(), source }.into()
    }
}
