//! Presence of a writer: that a run is under way, and what it knew when it began. Layout: docs/format.md, "Presence".
//!
//! - It is neither sealed nor signed: all that a false one does is to keep garbage for longer.
//! - A run that is not known to have seen an epoch counts as not having seen it.

use std::collections::BTreeSet;

use crate::cbor::{Reader, Writer, required};
use crate::error::Result;
use crate::header::body;
use crate::id::RootId;
use crate::keys::VerifyKey;
use crate::limits::{FORMAT_VERSION, PRESENCE_EPOCHS_MAX};

const OBJECT: &str = "presence of a writer";
const MAGIC: &[u8; 7] = b"DRYWRIT";

/// What a writer says of itself when it registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// The key that signs its packs.
    pub writer: VerifyKey,
    /// The epochs of gc that it had read before it learned which packs there are; the latest ones, if there are many.
    pub seen: BTreeSet<(u64, RootId)>,
}

impl Presence {
    /// The object.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::onto([MAGIC.as_slice(), &[FORMAT_VERSION]].concat());
        let left_out = self.seen.len().saturating_sub(PRESENCE_EPOCHS_MAX);
        out.map(2).uint(0).bytes(&self.writer.0);
        out.uint(1).array(self.seen.len() - left_out);
        for (number, id) in self.seen.iter().skip(left_out) {
            out.array(2).uint(*number).bytes(&id.0);
        }
        out.finish()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(object: &[u8]) -> Result<Self> {
        let (mut writer, mut seen) = (None, BTreeSet::new());
        let mut reader = Reader::new(OBJECT, body(OBJECT, MAGIC, object)?);
        reader.map(|reader, key| {
            match key {
                0 => writer = Some(VerifyKey(reader.fixed()?)),
                1 => {
                    for _ in 0..reader.array("number of epochs", PRESENCE_EPOCHS_MAX as u64)? {
                        reader.array_of("epoch", 2)?;
                        seen.insert((reader.uint()?, RootId(reader.fixed()?)));
                    }
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        reader.end()?;
        Ok(Self {
            writer: required(OBJECT, "writer", writer)?,
            seen,
        })
    }
}
