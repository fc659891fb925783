//! What an SFTP server sends, packet by packet: none is longer than honest ones are.
//!
//! - A packet begins with its length in four bytes, big endian (draft-ietf-secsh-filexfer-02, section 3). The client below
//!   makes room for whatever a server states, so that is looked at before.
//! - Nothing is held back or changed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// Longest packet: OpenSSH sends up to 256 KiB, and this client asks for less.
const PACKET_MAX_BYTES: u32 = 1 << 20;
/// Shortest: a kind and the number of the request, or the version.
const PACKET_MIN_BYTES: u32 = 5;

/// Passes on what a server sends, up to the first packet of an impossible length.
#[derive(Debug)]
pub(crate) struct Frames<R> {
    inner: R,
    /// Bytes of the present packet that are still to come.
    left: u32,
    /// The length of the next packet, as far as it has come.
    head: Vec<u8>,
}

impl<R> Frames<R> {
    /// Passes on what comes from `inner`.
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            left: 0,
            head: Vec::with_capacity(4),
        }
    }

    /// Follows the packets through what has come.
    fn follow(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let skipped = bytes.len().min(self.left as usize);
                self.left -= skipped as u32;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            self.head.push(*first);
            bytes = rest;
            if let Some(head) = self.head.first_chunk() {
                self.left = u32::from_be_bytes(*head);
                self.head.clear();
                if !(PACKET_MIN_BYTES..=PACKET_MAX_BYTES).contains(&self.left) {
                    let what = format!("the server sends a packet of {} bytes", self.left);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
            }
        }
        Ok(())
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Frames<R> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buf))?;
        let came = buf.filled().get(before..).unwrap_or_default().to_vec();
        let outcome = self.follow(&came);
        if outcome.is_err() {
            // Not even the length reaches the client, which would make room for it.
            buf.set_filled(before);
        }
        Poll::Ready(outcome)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn through(bytes: &[u8], step: usize) -> io::Result<Vec<u8>> {
        let (mut from, mut to) = (Frames::new(bytes), Vec::new());
        let mut buffer = vec![0; step];
        loop {
            match from.read(&mut buffer).await? {
                0 => return Ok(to),
                count => to.extend_from_slice(&buffer[..count]),
            }
        }
    }

    #[tokio::test]
    async fn packets_pass_however_they_are_cut_and_an_impossible_one_does_not() {
        let mut packets = Vec::new();
        for length in [5_u32, 9, 70_000, 1 << 20] {
            packets.extend_from_slice(&length.to_be_bytes());
            packets.resize(packets.len() + length as usize, 7);
        }
        for step in [1 << 20, 4096, 3] {
            assert!(through(&packets, step).await.unwrap() == packets, "{step}");
        }
        for length in [0, 4, (1 << 20) + 1, u32::MAX] {
            let mut hostile = packets.clone();
            hostile.extend_from_slice(&length.to_be_bytes());
            for step in [1 << 20, 1] {
                let error = through(&hostile, step).await.unwrap_err();
                assert!(error.to_string().contains(&length.to_string()), "{error}");
            }
        }
    }
}
