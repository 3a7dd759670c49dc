//! Debuggers, one after another.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};

use gdbstub::common::Signal;
use gdbstub::conn::ConnectionExt;
use gdbstub::stub::run_blocking::{BlockingEventLoop, Event, WaitForStopReasonError};
use gdbstub::stub::{DisconnectReason, GdbStub, MultiThreadStopReason};

use super::stopped::Ended;
use super::target::{FIRST, Target};

/// Serves until the machine ends. When a debugger leaves, the guest runs on, and the next one stops it again.
pub fn serve(listener: &UnixListener, mut target: Target) {
    for connection in listener.incoming() {
        let Ok(connection) = connection else { return };
        target.stop_all();
        let ended = GdbStub::new(connection).run_blocking::<Events>(&mut target);
        if let Err(error) = &ended {
            eprintln!("gdb: {error}");
        }
        if matches!(ended, Ok(DisconnectReason::Kill)) {
            target.end_machine();
        }
        target.release();
    }
}

/// What a session waits for while the guest runs.
enum Events {}

impl BlockingEventLoop for Events {
    type Target = Target;
    type Connection = UnixStream;
    type StopReason = MultiThreadStopReason<u64>;

    fn wait_for_stop_reason(
        target: &mut Target,
        connection: &mut UnixStream,
    ) -> Result<Event<Self::StopReason>, WaitForStopReasonError<Ended, io::Error>> {
        loop {
            if let Some(reason) = target.wait_for_stop() {
                return Ok(Event::TargetStopped(reason));
            }
            let connected = connection.peek().and_then(|byte| byte.map(|_| connection.read()).transpose());
            if let Some(byte) = connected.map_err(WaitForStopReasonError::Connection)? {
                return Ok(Event::IncomingData(byte));
            }
        }
    }

    fn on_interrupt(target: &mut Target) -> Result<Option<Self::StopReason>, Ended> {
        target.stop_all();
        Ok(Some(MultiThreadStopReason::SignalWithThread { tid: FIRST, signal: Signal::SIGINT }))
    }
}
