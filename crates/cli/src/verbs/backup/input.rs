//! What is backed up as one stream.

use std::io::{self, Read};

use drystone_vault::Cancel;
use rustix::event::{PollFd, PollFlags, poll};

/// How often a wait for standard input looks whether it should stop, seconds.
const WAIT_SECONDS: f64 = 0.2;

/// Standard input that stops waiting when the run is to stop.
pub(super) struct Input {
    pub(super) stdin: io::StdinLock<'static>,
    pub(super) cancel: Cancel,
}

impl Read for Input {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let wait = rustix::fs::Timespec {
            tv_sec: 0,
            tv_nsec: (WAIT_SECONDS * 1e9) as i64,
        };
        loop {
            self.cancel.check().map_err(io::Error::other)?;
            // Not through std's buffer of 8 KiB: what is in the pipe goes straight to where it is chunked.
            match poll(&mut [PollFd::new(&self.stdin, PollFlags::IN)], Some(&wait)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => {
                    return rustix::io::retry_on_intr(|| rustix::io::read(&self.stdin, &mut *bytes))
                        .map_err(Into::into);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
