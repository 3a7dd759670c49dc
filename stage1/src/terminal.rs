//! The caller's terminal.

use std::io::IsTerminal;

use ::pod::control::TerminalSize;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::Error;

mod ioctl {
    #![allow(missing_docs)]
    nix::ioctl_read_bad!(window_size, libc::TIOCGWINSZ, libc::winsize);
}

/// The caller's terminal in raw mode, so that every key, Ctrl-C included, is a byte for the app; as it was before when
/// this is dropped.
#[derive(Debug)]
pub struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Takes the terminal on standard input; an error if there is none.
    pub fn take() -> Result<Self, Error> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Err(Error::NoTerminal);
        }
        let failed = |source| Error::System { action: "switch the terminal to raw mode", source };
        let before = tcgetattr(&stdin).map_err(failed)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSADRAIN, &raw).map_err(failed)?;
        Ok(Self { before })
    }

    /// Its size; 0 by 0 if it does not know.
    pub fn size(&self) -> TerminalSize {
        let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: TIOCGWINSZ writes a winsize to where it is pointed, and `size` is one.
        let _ = unsafe { ioctl::window_size(libc::STDIN_FILENO, &raw mut size) };
        TerminalSize { rows: size.ws_row, columns: size.ws_col }
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &self.before);
    }
}
