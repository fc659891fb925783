//! Headers of a tar: ustar records, with pax records before them for what does not fit (POSIX.1-2017, `pax`).

use std::io::{self, Write};

/// Size of a tar record, bytes.
const RECORD: usize = 512;
/// Bytes of a name in a ustar header.
const NAME: usize = 100;

/// One entry of a tar.
pub(crate) struct Header<'a> {
    /// Type flag: `0` file, `1` hard link, `2` symbolic link, ... `5` directory.
    pub(crate) kind: u8,
    pub(crate) path: &'a [u8],
    /// Target of a link.
    pub(crate) link: &'a [u8],
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) names: (&'a str, &'a str),
    pub(crate) size: u64,
    /// Seconds; what is negative or finer stands in `records`.
    pub(crate) mtime: i64,
    pub(crate) device: Option<(u32, u32)>,
    /// Pax records, encoded.
    pub(crate) records: Vec<u8>,
}

/// Appends a pax record: its own length in decimal, a space, `key=value` and a newline.
pub(crate) fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    length = rest + length.to_string().len();
    out.extend_from_slice(length.to_string().as_bytes());
    for piece in [b" ", key, b"=", value, b"\n"] {
        out.extend_from_slice(piece);
    }
}

/// Fills the last record of a content of so many bytes.
pub(crate) fn write_padding(out: &mut dyn Write, bytes: u64) -> io::Result<()> {
    let over = (bytes % RECORD as u64) as usize;
    let padding = [0; RECORD];
    out.write_all(padding.get(..(RECORD - over) % RECORD).unwrap_or_default())
}

/// A ustar header being filled field by field.
struct Ustar(Vec<u8>);

impl Ustar {
    /// The next field: at most `width` bytes of `value`, and zeros.
    fn bytes(mut self, width: usize, value: &[u8]) -> Self {
        let end = self.0.len() + width;
        self.0.extend(value.iter().take(width));
        self.0.resize(end, 0);
        self
    }

    /// The next field: a number in octal, one byte less than the field is wide.
    fn octal(self, width: usize, value: u64) -> Self {
        let digits = width - 1;
        self.bytes(width, format!("{value:0digits$o}").as_bytes())
    }

    /// The whole record, with its checksum.
    fn finish(self) -> Vec<u8> {
        let mut header = self.bytes(RECORD, &[]).0;
        header.truncate(RECORD);
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        // The checksum's own field, 8 bytes at 148, counts as spaces, and was written as such.
        let text = format!("{sum:06o}\0 ");
        header.splice(148..156, text.bytes());
        header
    }
}

impl Header<'_> {
    /// The records of this entry up to its content.
    pub(crate) fn encode(mut self) -> Vec<u8> {
        self.overflow();
        let mut out = Vec::new();
        if !self.records.is_empty() {
            let pax = Header {
                kind: b'x',
                path: b"././@PaxHeader",
                link: &[],
                size: self.records.len() as u64,
                owner: (0, 0),
                names: ("", ""),
                mode: 0o644,
                mtime: 0,
                device: None,
                records: Vec::new(),
            };
            out = pax.ustar();
            out.extend_from_slice(&self.records);
            out.resize(out.len().next_multiple_of(RECORD), 0);
        }
        out.extend(self.ustar());
        out
    }

    /// Adds pax records for what a ustar header cannot hold.
    fn overflow(&mut self) {
        let out = &mut self.records;
        let is_plain = |bytes: &[u8], width: usize| bytes.len() <= width && bytes.is_ascii();
        if !is_plain(self.path, NAME) {
            record(out, b"path", self.path);
        }
        if !is_plain(self.link, NAME) {
            record(out, b"linkpath", self.link);
        }
        for (key, name) in [(b"uname", self.names.0), (b"gname", self.names.1)] {
            if !is_plain(name.as_bytes(), 31) {
                record(out, key, name.as_bytes());
            }
        }
        for (key, id) in [(b"uid", self.owner.0), (b"gid", self.owner.1)] {
            if id >= 1 << 21 {
                record(out, key, id.to_string().as_bytes());
            }
        }
        if self.size >= 1 << 33 {
            record(out, b"size", self.size.to_string().as_bytes());
        }
        if self.mtime >= 1 << 33 {
            record(out, b"mtime", self.mtime.to_string().as_bytes());
        }
        if let Some((major, minor)) = self.device {
            for (key, number) in [(b"SCHILY.devmajor", major), (b"SCHILY.devminor", minor)] {
                if number >= 1 << 21 {
                    record(out, key, number.to_string().as_bytes());
                }
            }
        }
    }

    fn ustar(&self) -> Vec<u8> {
        let fit = |value: u64, bits: u32| if value < 1 << bits { value } else { 0 };
        let device = self.device.unwrap_or_default();
        Ustar(Vec::with_capacity(2 * RECORD))
            .bytes(NAME, self.path)
            .octal(8, self.mode.into())
            .octal(8, fit(self.owner.0.into(), 21))
            .octal(8, fit(self.owner.1.into(), 21))
            .octal(12, fit(self.size, 33))
            .octal(12, fit(u64::try_from(self.mtime).unwrap_or(0), 33))
            .bytes(8, b"        ")
            .bytes(1, &[self.kind])
            .bytes(NAME, self.link)
            .bytes(8, b"ustar\x0000")
            .bytes(32, self.names.0.as_bytes())
            .bytes(32, self.names.1.as_bytes())
            .octal(8, fit(device.0.into(), 21))
            .octal(8, fit(device.1.into(), 21))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pax_record_counts_its_own_length() {
        for bytes in 0..1200 {
            let mut out = Vec::new();
            record(&mut out, b"key", &vec![b'x'; bytes]);
            let text = String::from_utf8(out.clone()).unwrap();
            let length: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(length, out.len());
        }
    }
}
