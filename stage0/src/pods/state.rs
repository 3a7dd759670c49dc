//! Where a pod is, and what that means.

use std::fmt;

/// The directories of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Embryo,
    Prepare,
    Prepared,
    Run,
    ExitedGarbage,
    Garbage,
}

/// What a pod is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Embryo,
    Preparing,
    AbortedPrepare,
    Prepared,
    Running,
    Exited,
    ExitedDeleting,
    ExitedGarbage,
    Deleting,
    Garbage,
}

impl Place {
    /// All of them; where pods begin comes first.
    pub const ALL: [Self; 6] =
        [Self::Embryo, Self::Prepare, Self::Prepared, Self::Run, Self::ExitedGarbage, Self::Garbage];
    /// Those whose pods users see.
    pub const VISIBLE: [Self; 4] = [Self::Prepare, Self::Prepared, Self::Run, Self::ExitedGarbage];

    /// The directory's name.
    pub fn directory(self) -> &'static str {
        match self {
            Self::Embryo => "embryo",
            Self::Prepare => "prepare",
            Self::Prepared => "prepared",
            Self::Run => "run",
            Self::ExitedGarbage => "exited-garbage",
            Self::Garbage => "garbage",
        }
    }

    /// The state of a pod in this place.
    pub fn state(self, locked: bool) -> State {
        match (self, locked) {
            (Self::Embryo, _) => State::Embryo,
            (Self::Prepare, true) => State::Preparing,
            (Self::Prepare, false) => State::AbortedPrepare,
            (Self::Prepared, _) => State::Prepared,
            (Self::Run, true) => State::Running,
            (Self::Run, false) => State::Exited,
            (Self::ExitedGarbage, true) => State::ExitedDeleting,
            (Self::ExitedGarbage, false) => State::ExitedGarbage,
            (Self::Garbage, true) => State::Deleting,
            (Self::Garbage, false) => State::Garbage,
        }
    }
}

impl State {
    /// Whether the pod's directory is being made, or was never made to its end.
    pub fn is_unfinished(self) -> bool {
        matches!(self, Self::Embryo | Self::Preparing | Self::AbortedPrepare)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embryo => "embryo",
            Self::Preparing => "preparing",
            Self::AbortedPrepare => "aborted prepare",
            Self::Prepared => "prepared",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::ExitedDeleting => "exited deleting",
            Self::ExitedGarbage => "exited garbage",
            Self::Deleting => "deleting",
            Self::Garbage => "garbage",
        })
    }
}
