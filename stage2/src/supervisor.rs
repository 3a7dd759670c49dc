//! The supervisor's loop.

use pod::control::ExitStatus;
use pod::plan::Plan;

use crate::Connections;

pub(crate) fn run(_plan: &Plan, _connections: Connections) -> ExitStatus {
    ExitStatus::Code(pod::abi::EXIT_ERROR)
}
