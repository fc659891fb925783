//! Deterministic CBOR (RFC 8949 section 4.2.1) over `minicbor`: shortest heads, definite lengths, ascending keys.
//!
//! - Every structure is a map with small unsigned keys, or an array; floats, tags and indefinite lengths do not occur.
//! - Keys must ascend strictly; keys a reader does not know are handed back as raw bytes so that a rewrite keeps them.

use minicbor::data::Type;

use crate::error::{Error, Result, within};
use crate::limits::{CBOR_DEPTH_MAX, CBOR_KEYS_MAX, TEXT_MAX_BYTES};

/// A key this program does not know, with its encoded value, kept for rewriting.
pub(crate) type Unknown = (u64, Vec<u8>);

/// Appends CBOR items to a vector; cannot fail, since a vector takes every write.
pub(crate) struct Writer(minicbor::Encoder<Vec<u8>>);

impl Writer {
    pub(crate) fn new() -> Self {
        Self(minicbor::Encoder::new(Vec::new()))
    }

    pub(crate) fn onto(out: Vec<u8>) -> Self {
        Self(minicbor::Encoder::new(out))
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.into_writer()
    }

    /// Writing to a vector cannot fail; the encoder's error type is not uninhabited, so this says so once.
    fn wrote(&mut self, written: bool) -> &mut Self {
        debug_assert!(written, "a vector takes every write");
        self
    }

    pub(crate) fn map(&mut self, keys: usize) -> &mut Self {
        let written = self.0.map(keys as u64).is_ok();
        self.wrote(written)
    }

    pub(crate) fn array(&mut self, items: usize) -> &mut Self {
        let written = self.0.array(items as u64).is_ok();
        self.wrote(written)
    }

    pub(crate) fn uint(&mut self, value: u64) -> &mut Self {
        let written = self.0.u64(value).is_ok();
        self.wrote(written)
    }

    pub(crate) fn int(&mut self, value: i64) -> &mut Self {
        let written = self.0.i64(value).is_ok();
        self.wrote(written)
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        let written = self.0.bytes(value).is_ok();
        self.wrote(written)
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        let written = self.0.str(value).is_ok();
        self.wrote(written)
    }

    pub(crate) fn texts(&mut self, values: &[String]) -> &mut Self {
        self.array(values.len());
        for value in values {
            self.text(value);
        }
        self
    }

    /// Unknown keys, which are all above the known ones and ascend.
    pub(crate) fn unknown(&mut self, unknown: &[Unknown]) -> &mut Self {
        for (key, value) in unknown {
            self.uint(*key);
            self.0.writer_mut().extend_from_slice(value);
        }
        self
    }
}

/// Reads CBOR items of one object, turning every failure into an [`Error`] that names it.
pub(crate) struct Reader<'a> {
    decoder: minicbor::Decoder<'a>,
    object: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(object: &'static str, bytes: &'a [u8]) -> Self {
        Self {
            decoder: minicbor::Decoder::new(bytes),
            object,
        }
    }

    pub(crate) fn position(&self) -> usize {
        self.decoder.position()
    }

    pub(crate) fn malformed(&self, why: impl Into<String>) -> Error {
        Error::malformed(self.object, self.position(), why)
    }

    fn item<T>(
        &mut self,
        read: impl FnOnce(&mut minicbor::Decoder<'a>) -> Result<T, minicbor::decode::Error>,
    ) -> Result<T> {
        read(&mut self.decoder)
            .map_err(|error| Error::malformed(self.object, self.decoder.position(), error.to_string()))
    }

    /// All input is consumed.
    pub(crate) fn end(&self) -> Result<()> {
        if self.position() == self.decoder.input().len() {
            Ok(())
        } else {
            Err(self.malformed("bytes after the end"))
        }
    }

    pub(crate) fn uint(&mut self) -> Result<u64> {
        self.item(|decoder| decoder.u64())
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.item(|decoder| decoder.u32())
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        self.item(|decoder| decoder.u8())
    }

    pub(crate) fn int(&mut self) -> Result<i64> {
        self.item(|decoder| decoder.i64())
    }

    pub(crate) fn bytes(&mut self, what: &'static str, limit: usize) -> Result<&'a [u8]> {
        let value = self.item(|decoder| decoder.bytes())?;
        within(self.object, what, value.len() as u64, limit as u64)?;
        Ok(value)
    }

    pub(crate) fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let value = self.item(|decoder| decoder.bytes())?;
        value
            .try_into()
            .map_err(|_| self.malformed(format!("a byte string of {} bytes, {N} expected", value.len())))
    }

    /// Whether the next item is a byte string.
    pub(crate) fn at_bytes(&mut self) -> Result<bool> {
        Ok(self.item(|decoder| decoder.datatype())? == Type::Bytes)
    }

    pub(crate) fn text(&mut self, what: &'static str) -> Result<String> {
        let value = self.item(|decoder| decoder.str())?;
        within(self.object, what, value.len() as u64, TEXT_MAX_BYTES as u64)?;
        Ok(value.to_owned())
    }

    pub(crate) fn array(&mut self, what: &'static str, limit: u64) -> Result<usize> {
        let length = self.item(|decoder| decoder.array())?;
        let length = length.ok_or_else(|| self.malformed("indefinite length"))?;
        within(self.object, what, length, limit)?;
        Ok(length as usize)
    }

    pub(crate) fn array_of(&mut self, what: &'static str, items: usize) -> Result<()> {
        let found = self.array(what, u64::MAX)?;
        if found == items {
            Ok(())
        } else {
            Err(self.malformed(format!("{what}: {found} items, {items} expected")))
        }
    }

    pub(crate) fn texts(&mut self, what: &'static str, limit: u64) -> Result<Vec<String>> {
        let count = self.array(what, limit)?;
        (0..count).map(|_| self.text(what)).collect()
    }

    /// Calls `field` for every key, in order; it returns whether it knew the key and consumed its value.
    pub(crate) fn map(&mut self, mut field: impl FnMut(&mut Self, u64) -> Result<bool>) -> Result<Vec<Unknown>> {
        let keys = self
            .item(|decoder| decoder.map())?
            .ok_or_else(|| self.malformed("indefinite length"))?;
        within(self.object, "number of keys", keys, CBOR_KEYS_MAX)?;
        let mut unknown = Vec::new();
        let mut previous = None;
        for _ in 0..keys {
            let key = self.uint()?;
            if previous.is_some_and(|previous| previous >= key) {
                return Err(self.malformed(format!("key {key} out of order")));
            }
            previous = Some(key);
            let start = self.position();
            if !field(self, key)? {
                self.skip(CBOR_DEPTH_MAX)?;
                let raw = self.decoder.input().get(start..self.position()).unwrap_or_default();
                unknown.push((key, raw.to_vec()));
            }
        }
        Ok(unknown)
    }

    /// Skips one item of at most `depth` levels; `minicbor` would also skip what this format never holds.
    fn skip(&mut self, depth: usize) -> Result<()> {
        let Some(below) = depth.checked_sub(1) else {
            return Err(self.malformed("nested too deeply"));
        };
        match self.item(|decoder| decoder.datatype())? {
            Type::Array => {
                for _ in 0..self.array("items", u64::MAX)? {
                    self.skip(below)?;
                }
                Ok(())
            }
            Type::Map => {
                let keys = self
                    .item(|decoder| decoder.map())?
                    .ok_or_else(|| self.malformed("indefinite length"))?;
                for _ in 0..keys.saturating_mul(2) {
                    self.skip(below)?;
                }
                Ok(())
            }
            Type::U8
            | Type::U16
            | Type::U32
            | Type::U64
            | Type::I8
            | Type::I16
            | Type::I32
            | Type::I64
            | Type::Int
            | Type::Bytes
            | Type::String => self.item(|decoder| decoder.skip()),
            other => Err(self.malformed(format!("{other}, which no object holds"))),
        }
    }
}

/// The value of a required key, or an error that names it.
pub(crate) fn required<T>(object: &'static str, key: &'static str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Error::malformed(object, 0, format!("no {key}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_must_ascend_and_unknown_ones_are_kept() {
        let mut writer = Writer::new();
        writer
            .map(3)
            .uint(0)
            .uint(7)
            .uint(5)
            .array(1)
            .text("new")
            .uint(300)
            .bytes(b"x");
        let bytes = writer.finish();
        let mut seven = 0;
        let unknown = Reader::new("test", &bytes)
            .map(|reader, key| {
                if key == 0 {
                    seven = reader.uint()?;
                }
                Ok(key == 0)
            })
            .unwrap();
        assert_eq!(seven, 7);
        let mut again = Writer::new();
        again.map(3).uint(0).uint(seven).unknown(&unknown);
        assert_eq!(again.finish(), bytes);

        let mut writer = Writer::new();
        writer.map(2).uint(1).uint(0).uint(1).uint(0);
        assert!(Reader::new("test", &writer.finish()).map(|_, _| Ok(false)).is_err());
    }

    /// Whether bytes are read as the value of a key that is not known.
    fn is_kept(value: &[u8]) -> bool {
        let bytes = [&[0xa1, 0x09], value].concat();
        Reader::new("test", &bytes).map(|_, _| Ok(false)).is_ok()
    }

    #[test]
    fn what_no_object_holds_is_refused_in_unknown_values_too() {
        let kept: [&[u8]; 4] = [&[0x41, 7], &[0x80], &[0xa0], &[0x20]];
        let refused: [&[u8]; 9] = [
            &[0xf5],
            &[0xf6],
            &[0xf9, 0x3c, 0x00],
            &[0xfb, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x9f, 0xff],
            &[0xbf, 0xff],
            &[0x5f, 0x41, 7, 0xff],
            &[0x7f, 0x61, b'x', 0xff],
            &[0xc1, 0x00],
        ];
        for value in kept {
            assert!(is_kept(value) && is_kept(&[&[0x81], value].concat()), "{value:x?}");
        }
        for value in refused {
            assert!(!is_kept(value) && !is_kept(&[&[0x81], value].concat()), "{value:x?}");
        }
    }

    #[test]
    fn deep_and_endless_nesting_is_refused() {
        let mut deep = vec![0xa1, 0x00];
        deep.extend([0x81; 4096]);
        deep.push(0);
        assert!(matches!(
            Reader::new("test", &deep).map(|_, _| Ok(false)),
            Err(Error::Malformed { .. })
        ));
        let huge = [0xa1, 0x00, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert!(Reader::new("test", &huge).map(|_, _| Ok(false)).is_err());
    }
}
