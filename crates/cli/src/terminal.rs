//! The terminal a person sits at: asks for a passphrase without showing it, and tells the width.
//!
//! - The terminal's settings are restored on every way out, Ctrl-C included.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use zeroize::Zeroizing;

/// Longest passphrase typed, bytes.
const TYPED_MAX_BYTES: usize = 1024;
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const CTRL_U: u8 = 21;

/// Columns of the terminal behind standard error, if it is one.
pub(crate) fn columns() -> Option<usize> {
    tcgetwinsize(io::stderr())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0)
}

/// Whether a person sees standard error.
pub(crate) fn is_there() -> bool {
    io::stderr().is_terminal()
}

/// Asks on the terminal, showing nothing of the answer; `None` if there is no terminal.
///
/// An error of kind `Interrupted` means Ctrl-C.
pub(crate) fn ask(question: &str) -> io::Result<Option<Zeroizing<String>>> {
    if !is_there() {
        return Ok(None);
    }
    let Ok(terminal) = OpenOptions::new().read(true).write(true).open("/dev/tty") else {
        return Ok(None);
    };
    // Before the question, so that not even a fast answer is shown; what was typed ahead is kept.
    let hidden = Hidden::new(&terminal)?;
    write!(&terminal, "{question}: ")?;
    let answer = read_line(&mut &terminal);
    drop(hidden);
    writeln!(&terminal)?;
    answer.map(Some)
}

/// Asks on the terminal whether to go on; `None` if there is no terminal. Anything but `y` and `yes` is no.
pub(crate) fn confirm(question: &str) -> io::Result<Option<bool>> {
    if !is_there() {
        return Ok(None);
    }
    let Ok(mut terminal) = OpenOptions::new().read(true).write(true).open("/dev/tty") else {
        return Ok(None);
    };
    write!(terminal, "{question}")?;
    let answer = read_line(&mut terminal)?;
    Ok(Some(["y", "yes"].contains(&answer.trim().to_lowercase().as_str())))
}

/// The terminal with echo, line editing and signals off; restored when dropped.
struct Hidden<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut modes = before.clone();
        modes.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(terminal, OptionalActions::Now, &modes)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // Nothing better can be done about a terminal that is gone.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

fn read_line(from: &mut dyn Read) -> io::Result<Zeroizing<String>> {
    let mut typed = Zeroizing::new(Vec::with_capacity(TYPED_MAX_BYTES));
    let mut byte = [0];
    loop {
        if from.read(&mut byte)? == 0 {
            break;
        }
        match byte {
            [b'\n' | b'\r'] => break,
            [CTRL_D] if typed.is_empty() => break,
            [CTRL_C] => return Err(io::ErrorKind::Interrupted.into()),
            [CTRL_U] => typed.clear(),
            [0x7f | 0x08] => {
                // A whole letter, not only its last byte.
                while typed.pop().is_some_and(|last| last & 0xc0 == 0x80) {}
            }
            [byte] if typed.len() < TYPED_MAX_BYTES => typed.push(byte),
            _ => {}
        }
    }
    let text = std::str::from_utf8(&typed).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_line_can_be_edited_and_interrupted() {
        let read = |typed: &[u8]| read_line(&mut &*typed).map(|line| line.to_string());
        assert_eq!(read(b"secret\nrest").unwrap(), "secret");
        assert_eq!(read("aé\x7fb\x15xyé\x08z\r".as_bytes()).unwrap(), "xyz");
        assert_eq!(read(b"\x04").unwrap(), "");
        assert_eq!(read(b"ab\x03").unwrap_err().kind(), io::ErrorKind::Interrupted);
    }
}
