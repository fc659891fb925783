//! What is backed up as one stream: standard input, or what a command prints.
//!
//! - A stream that did not end well is an error, so that no snapshot is made of it: a command that failed, or standard
//!   input that gave nothing, which is what a command before a pipe leaves when it fails.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use drystone_vault::Cancel;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::config::own_variables;
use crate::exit::{Exit, Failure, Result};
use crate::shown::{shown, shown_path};

/// How often a wait looks whether it should stop.
const WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};
/// Time that a command has to end after it was told to.
const GRACE: Duration = Duration::from_secs(5);

const NO_COMMAND: &str = "drystone backup --stdin-from-command --name shop.sql -- pg_dump shop; \
                          for a pipe: -- bash -c 'set -o pipefail; a | b'";

/// Waits until `fd` can be read from, or an error if the run is to stop before.
fn wait_for(fd: impl AsFd, cancel: &Cancel) -> io::Result<()> {
    loop {
        cancel.check().map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&WAIT)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads once, not through std's buffer of 8 KiB: what is in the pipe goes straight to where it is chunked.
fn read_from(fd: impl AsFd, bytes: &mut [u8], cancel: &Cancel) -> io::Result<usize> {
    wait_for(&fd, cancel)?;
    Ok(rustix::io::retry_on_intr(|| rustix::io::read(&fd, &mut *bytes))?)
}

/// Standard input, which must give something.
pub(super) struct StandardInput {
    stdin: io::StdinLock<'static>,
    cancel: Cancel,
    is_empty: bool,
}

impl StandardInput {
    pub(super) fn new(cancel: Cancel) -> Self {
        Self {
            stdin: io::stdin().lock(),
            cancel,
            is_empty: true,
        }
    }
}

impl Read for StandardInput {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("standard input: {error}"));
        let count = read_from(&self.stdin, bytes, &self.cancel).map_err(failed)?;
        if count == 0 && self.is_empty {
            return Err(io::Error::other("standard input is closed or empty"));
        }
        self.is_empty = false;
        Ok(count)
    }
}

/// A command and what it prints. It is ended with the run.
pub(super) struct Producer {
    child: Child,
    output: ChildStdout,
    shown: String,
    cancel: Cancel,
}

impl Producer {
    /// Starts the command, without the variables of drystone's own, which hold its secrets.
    pub(super) fn start(words: &[PathBuf], cancel: Cancel) -> Result<Self> {
        let Some((program, arguments)) = words.split_first() else {
            return Err(Failure::usage("no command was given").next(NO_COMMAND));
        };
        let mut command = Command::new(program);
        for name in own_variables() {
            command.env_remove(name);
        }
        let failed = |error: &io::Error| {
            let program = shown_path(program);
            Failure::new(Exit::Error, format!("cannot start the command `{program}`: {error}")).next(NO_COMMAND)
        };
        let mut child = command
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&error))?;
        let output = child
            .stdout
            .take()
            .ok_or_else(|| failed(&io::ErrorKind::BrokenPipe.into()))?;
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_os_str().as_encoded_bytes()).collect();
        Ok(Self {
            child,
            output,
            shown: shown(&words.join(&b' ')),
            cancel,
        })
    }

    /// Waits for the end of the command; an error unless it succeeded.
    fn end(&mut self) -> io::Result<()> {
        if let Ok(running) = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()) {
            wait_for(&running, &self.cancel)?;
        }
        let status = self.child.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!(
                "the command `{}` failed: {status}",
                self.shown
            )))
        }
    }
}

impl Read for Producer {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = read_from(&self.output, bytes, &self.cancel)?;
        if count == 0 {
            self.end()?;
        }
        Ok(count)
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let pid = Pid::from_child(&self.child);
        // Best effort, here and below: a command that cannot be ended is not to keep the run.
        let _ = kill_process(pid, Signal::TERM);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < GRACE {
            if let Ok(running) = pidfd_open(pid, PidfdFlags::empty()) {
                let _ = poll(&mut [PollFd::new(&running, PollFlags::IN)], Some(&WAIT));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
