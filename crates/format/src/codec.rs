//! Compression of frames: which codecs exist, how they are named, and their bounds.
//!
//! - What does not shrink is stored as it is ([`Codec::None`]), decided per frame and at little cost.
//! - Decompression never yields more than the length it was promised, so a hostile frame cannot exhaust memory.

use std::fmt;
use std::io::{Cursor, Read, Write};
use std::str::FromStr;

use crate::error::{Error, Result, within};
use crate::limits::FRAME_MAX_BYTES;

/// How the payload of a frame is compressed; the number is its code in the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Stored as it is.
    None = 0,
    /// Zstandard (RFC 8878), one frame.
    Zstd = 1,
    /// LZ4 block format.
    Lz4 = 2,
    /// zlib (RFC 1950).
    Zlib = 3,
    /// bzip2.
    Bzip2 = 4,
    /// LZO1X.
    Lzo = 5,
}

/// All codecs, in the order of their codes.
pub const CODECS: [Codec; 6] = [
    Codec::None,
    Codec::Zstd,
    Codec::Lz4,
    Codec::Zlib,
    Codec::Bzip2,
    Codec::Lzo,
];

impl Codec {
    /// The name users write.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Zlib => "zlib",
            Self::Bzip2 => "bzip2",
            Self::Lzo => "lzo",
        }
    }

    pub(crate) fn from_code(code: u8) -> Result<Self> {
        CODECS
            .into_iter()
            .find(|codec| *codec as u8 == code)
            .ok_or_else(|| Error::malformed("frame", 0, format!("unknown codec {code}: written by a newer drystone")))
    }

    fn failed(self, why: impl ToString) -> Error {
        Error::Codec {
            codec: self.name(),
            why: why.to_string(),
        }
    }
}

/// A codec and its level, as written `zstd`, `zstd:19`, `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    codec: Codec,
    level: i32,
}

impl Compression {
    /// zstd at level 3: more levels cost twice the time for a twentieth of the size.
    pub const DEFAULT: Self = Self {
        codec: Codec::Zstd,
        level: 3,
    };

    /// The codec at `level`, or at its usual one; an error names the range that it has.
    pub fn new(codec: Codec, level: Option<i32>) -> Result<Self> {
        let (range, usual) = match codec {
            Codec::Zstd => (-7..=22, 3),
            Codec::Zlib => (1..=9, 6),
            Codec::Bzip2 => (1..=9, 9),
            Codec::None | Codec::Lz4 | Codec::Lzo => (0..=0, 0),
        };
        let level = level.unwrap_or(usual);
        if range.contains(&level) {
            return Ok(Self { codec, level });
        }
        let why = format!(
            "{} has levels {} to {}, not {level}",
            codec.name(),
            range.start(),
            range.end()
        );
        Err(Error::malformed("compression", 0, why))
    }

    /// The codec.
    pub fn codec(self) -> Codec {
        self.codec
    }

    /// Working memory of a compressor of frames, bytes; as large as the codec takes it, or somewhat larger.
    pub fn memory_bytes(self) -> usize {
        match (self.codec, self.level) {
            (Codec::None, _) => 0,
            (Codec::Zstd, ..=1) => 2 << 20,
            (Codec::Zstd, 2..=3) => 4 << 20,
            (Codec::Zstd, 4..=6) => 6 << 20,
            (Codec::Zstd, 7..=8) => 10 << 20,
            (Codec::Zstd, 9) => 16 << 20,
            (Codec::Zstd, 10..=12) => 26 << 20,
            (Codec::Zstd, _) => 40 << 20,
            (Codec::Bzip2, _) => 8 << 20,
            (Codec::Lz4 | Codec::Zlib | Codec::Lzo, _) => 1 << 20,
        }
    }

    /// Slow enough that a cheap look at a sample pays before it is tried on data that does not shrink.
    fn is_slow(self) -> bool {
        self.codec == Codec::Bzip2 || self.codec == Codec::Zlib || self.codec == Codec::Zstd && self.level > 6
    }
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, level) = text
            .split_once(':')
            .map_or((text, None), |(name, level)| (name, Some(level)));
        let unknown = || {
            let names = CODECS.map(Codec::name).join(", ");
            Error::malformed(
                "compression",
                0,
                format!("`{text}` is none of {names}, with an optional `:LEVEL`"),
            )
        };
        let codec = CODECS
            .into_iter()
            .find(|codec| codec.name() == name)
            .ok_or_else(unknown)?;
        let level = level.map(|level| level.parse().map_err(|_| unknown())).transpose()?;
        Self::new(codec, level)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.codec {
            Codec::Zstd | Codec::Zlib | Codec::Bzip2 => write!(f, "{}:{}", self.codec.name(), self.level),
            _ => f.write_str(self.codec.name()),
        }
    }
}

/// Compresses frames; keeps its working memory, so each thread has its own.
pub struct Compressor {
    compression: Compression,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    probe: Option<zstd::bulk::Compressor<'static>>,
}

/// Bytes looked at before a slow codec is tried on a frame.
const PROBE_BYTES: usize = 64 << 10;

impl Compressor {
    /// A compressor with its own working memory (zstd 3: about 1.5 MiB).
    pub fn new(compression: Compression) -> Result<Self> {
        let new = |level| zstd::bulk::Compressor::new(level).map_err(|error| Codec::Zstd.failed(error));
        let zstd = (compression.codec == Codec::Zstd)
            .then(|| new(compression.level))
            .transpose()?;
        let probe = compression.is_slow().then(|| new(1)).transpose()?;
        Ok(Self {
            compression,
            zstd,
            probe,
        })
    }

    /// Appends the compressed form of `plaintext` to `out` and says with which codec; [`Codec::None`] if that is no longer.
    pub fn compress(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<Codec> {
        let start = out.len();
        let codec = self.compression.codec;
        if codec != Codec::None && self.promises(plaintext) {
            self.run(plaintext, out)?;
            if out.len() - start < plaintext.len() {
                return Ok(codec);
            }
            out.truncate(start);
        }
        out.extend_from_slice(plaintext);
        Ok(Codec::None)
    }

    /// Whether a sample from the middle of `plaintext` shrinks at all; always true for codecs that find out fast.
    fn promises(&mut self, plaintext: &[u8]) -> bool {
        let Some(probe) = &mut self.probe else { return true };
        let start = (plaintext.len() / 2).saturating_sub(PROBE_BYTES / 2);
        let sample = plaintext
            .get(start..plaintext.len().min(start + PROBE_BYTES))
            .unwrap_or_default();
        probe
            .compress(sample)
            .map_or(true, |compressed| compressed.len() < sample.len() - sample.len() / 64)
    }

    fn run(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let Compression { codec, level } = self.compression;
        let level = level.unsigned_abs();
        match codec {
            Codec::None => out.extend_from_slice(plaintext),
            Codec::Zstd => {
                let Some(zstd) = &mut self.zstd else {
                    return Err(codec.failed("no context"));
                };
                out.reserve(zstd::zstd_safe::compress_bound(plaintext.len()));
                // A cursor writes into the spare room as it is; filling it with zeros first would cost a pass over it.
                let start = out.len() as u64;
                let mut cursor = Cursor::new(std::mem::take(out));
                cursor.set_position(start);
                let written = zstd.compress_to_buffer(plaintext, &mut cursor);
                *out = cursor.into_inner();
                written.map_err(|error| codec.failed(error))?;
            }
            Codec::Lz4 => out.extend_from_slice(&lz4_flex::block::compress(plaintext)),
            Codec::Zlib => {
                let mut encoder = flate2::write::ZlibEncoder::new(&mut *out, flate2::Compression::new(level));
                encoder
                    .write_all(plaintext)
                    .and_then(|()| encoder.try_finish())
                    .map_err(|error| codec.failed(error))?;
            }
            Codec::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(&mut *out, bzip2::Compression::new(level));
                encoder
                    .write_all(plaintext)
                    .and_then(|()| encoder.try_finish())
                    .map_err(|error| codec.failed(error))?;
            }
            Codec::Lzo => {
                out.extend_from_slice(
                    &lzokay::compress::compress(plaintext).map_err(|error| codec.failed(format!("{error:?}")))?,
                );
            }
        }
        Ok(())
    }
}

/// The plaintext of `payload`, which must come out at exactly `plaintext_bytes`, at most [`FRAME_MAX_BYTES`].
pub fn decompress(codec: Codec, payload: &[u8], plaintext_bytes: usize) -> Result<Vec<u8>> {
    within(
        "frame",
        "plaintext bytes",
        plaintext_bytes as u64,
        FRAME_MAX_BYTES as u64,
    )?;
    let plaintext = match codec {
        Codec::None => payload.to_vec(),
        Codec::Zstd => zstd::bulk::decompress(payload, plaintext_bytes).map_err(|error| codec.failed(error))?,
        Codec::Lz4 => lz4_flex::block::decompress(payload, plaintext_bytes).map_err(|error| codec.failed(error))?,
        Codec::Zlib => read_bounded(codec, flate2::read::ZlibDecoder::new(payload), plaintext_bytes)?,
        Codec::Bzip2 => read_bounded(codec, bzip2::read::BzDecoder::new(payload), plaintext_bytes)?,
        Codec::Lzo => {
            let mut plaintext = vec![0; plaintext_bytes];
            let written = lzokay::decompress::decompress(payload, &mut plaintext)
                .map_err(|error| codec.failed(format!("{error:?}")))?;
            plaintext.truncate(written);
            plaintext
        }
    };
    if plaintext.len() == plaintext_bytes {
        return Ok(plaintext);
    }
    Err(codec.failed(format!(
        "{} bytes came out, {plaintext_bytes} were promised",
        plaintext.len()
    )))
}

fn read_bounded(codec: Codec, decoder: impl Read, plaintext_bytes: usize) -> Result<Vec<u8>> {
    let mut plaintext = Vec::with_capacity(plaintext_bytes);
    // One byte more than promised, so that an overlong payload is noticed.
    let mut bounded = decoder.take(plaintext_bytes as u64 + 1);
    bounded
        .read_to_end(&mut plaintext)
        .map_err(|error| codec.failed(error))?;
    Ok(plaintext)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(bytes: usize) -> Vec<u8> {
        let mut output = blake3::Hasher::new().finalize_xof();
        let mut noise = vec![0; bytes];
        output.fill(&mut noise);
        noise
    }

    proptest! {
        #[test]
        fn every_codec_round_trips(data in proptest::collection::vec(0u8..4, 0..4000), which in 0usize..6) {
            let mut compressor = Compressor::new(Compression::new(CODECS[which], None).unwrap()).unwrap();
            let mut out = b"before".to_vec();
            let codec = compressor.compress(&data, &mut out).unwrap();
            prop_assert_eq!(&out[..6], b"before");
            prop_assert_eq!(decompress(codec, &out[6..], data.len()).unwrap(), data);
        }

        #[test]
        fn hostile_payloads_are_refused_or_come_out_at_the_promised_length(
            payload in proptest::collection::vec(any::<u8>(), 0..400), which in 0usize..6, promised in 0usize..2000,
        ) {
            if let Ok(plaintext) = decompress(CODECS[which], &payload, promised) {
                prop_assert_eq!(plaintext.len(), promised);
            }
        }
    }

    #[test]
    fn noise_is_stored_as_it_is_by_every_codec() {
        let noise = noise(100_000);
        for codec in CODECS {
            let mut out = Vec::new();
            let mut compressor = Compressor::new(Compression::new(codec, None).unwrap()).unwrap();
            assert_eq!(compressor.compress(&noise, &mut out).unwrap(), Codec::None, "{codec:?}");
            assert_eq!(out, noise);
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        for codec in CODECS.into_iter().skip(1) {
            let mut out = Vec::new();
            let mut compressor = Compressor::new(Compression::new(codec, None).unwrap()).unwrap();
            assert_eq!(compressor.compress(&vec![0; 1 << 20], &mut out).unwrap(), codec);
            assert!(decompress(codec, &out, 1000).is_err(), "{codec:?}");
        }
        assert!(matches!(
            decompress(Codec::Zstd, &[], FRAME_MAX_BYTES + 1),
            Err(Error::Limit { .. })
        ));
    }

    /// Not even its end, which would shrink, makes a slow codec try what the middle says is not worth it.
    #[test]
    fn what_does_not_shrink_in_the_middle_is_kept_as_it_is() {
        let mut plaintext = noise(3 * PROBE_BYTES);
        plaintext.resize(6 * PROBE_BYTES, 0);
        plaintext.splice(..0, vec![0; 2 * PROBE_BYTES]);
        let compression = Compression::new(Codec::Zstd, Some(12)).unwrap();
        let mut compressor = Compressor::new(compression).unwrap();
        let mut out = Vec::new();
        assert_eq!(compressor.compress(&plaintext, &mut out).unwrap(), Codec::None);
        assert!(out == plaintext);
        plaintext.rotate_left(3 * PROBE_BYTES);
        assert_eq!(compressor.compress(&plaintext, &mut out).unwrap(), Codec::Zstd);
    }

    #[test]
    fn names_and_levels_are_read_back() {
        for text in ["none", "zstd:3", "zstd:-7", "lz4", "zlib:9", "bzip2:1", "lzo"] {
            assert_eq!(text.parse::<Compression>().unwrap().to_string(), text);
        }
        for text in ["", "zip", "zstd:23", "zstd:x", "lz4:1", "zlib:0"] {
            assert!(text.parse::<Compression>().is_err(), "{text}");
        }
    }

    #[test]
    fn zstd_takes_no_more_memory_than_is_said() {
        let plaintext: Vec<u8> = (0..crate::limits::DATA_FRAME_BYTES as u32)
            .map(|at| (at.wrapping_mul(at) >> 11) as u8)
            .collect();
        for level in -7..=22 {
            let compression = Compression::new(Codec::Zstd, Some(level)).unwrap();
            let mut compressor = Compressor::new(compression).unwrap();
            compressor.compress(&plaintext, &mut Vec::new()).unwrap();
            let contexts = [compressor.zstd.as_mut(), compressor.probe.as_mut()];
            let taken: usize = contexts
                .into_iter()
                .flatten()
                .map(|zstd| zstd.context_mut().sizeof())
                .sum();
            let said = compression.memory_bytes();
            assert!(taken <= said && said <= 8 * taken, "level {level}: {taken} of {said}");
        }
    }
}
