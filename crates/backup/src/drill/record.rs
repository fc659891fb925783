//! The results of the last drills, in the file that this door keeps on the machine.
//!
//! - Kept as long as the file is: whoever deletes it has to drill again to know.

use drystone_format::RootId;
use drystone_format::tree::Time;
use drystone_vault::Vault;

use crate::cache::file;
use crate::error::Result;

/// State key of the last drill.
const LAST: &str = "drill/last";
/// State key of the last drill without problems.
const LAST_SOUND: &str = "drill/last_sound";

/// The result of a drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drilled {
    /// When it ended.
    pub at: Time,
    /// The newest snapshot that was restored from.
    pub snapshot: RootId,
    /// How many snapshots.
    pub snapshots: u64,
    /// Files restored, and found as they were recorded.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What was not as it should be.
    pub problems: u64,
    /// How long it took, seconds.
    pub seconds: u64,
}

/// What is known of drills on this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LastDrills {
    /// The last.
    pub last: Option<Drilled>,
    /// The last without problems.
    pub last_sound: Option<Drilled>,
}

impl Drilled {
    fn encode(&self) -> Vec<u8> {
        let numbers = [
            self.at.seconds as u64,
            self.at.nanos.into(),
            self.snapshots,
            self.files,
            self.bytes,
            self.problems,
            self.seconds,
        ];
        let numbers = numbers.iter().flat_map(|number| number.to_le_bytes());
        self.snapshot.0.into_iter().chain(numbers).collect()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (snapshot, numbers) = bytes.split_first_chunk()?;
        let (numbers, _) = numbers.as_chunks();
        let [seconds, nanos, snapshots, files, bytes, problems, took] = numbers else {
            return None;
        };
        Some(Self {
            at: Time {
                seconds: i64::from_le_bytes(*seconds),
                nanos: u32::try_from(u64::from_le_bytes(*nanos)).ok()?,
            },
            snapshot: RootId(*snapshot),
            snapshots: u64::from_le_bytes(*snapshots),
            files: u64::from_le_bytes(*files),
            bytes: u64::from_le_bytes(*bytes),
            problems: u64::from_le_bytes(*problems),
            seconds: u64::from_le_bytes(*took),
        })
    }
}

/// Remembers the result of a drill on this machine.
pub fn record_drill(vault: &Vault, drilled: &Drilled) -> Result<()> {
    let encoded = drilled.encode();
    let state = file::open(vault, &[LAST, LAST_SOUND])?;
    if drilled.problems == 0 {
        state.set(LAST_SOUND, &encoded)?;
    }
    Ok(state.set(LAST, &encoded)?)
}

/// The last drills on this machine.
pub fn last_drills(vault: &Vault) -> Result<LastDrills> {
    let state = file::open(vault, &[LAST, LAST_SOUND])?;
    let get = |key| -> Result<Option<Drilled>> { Ok(state.get(key)?.as_deref().and_then(Drilled::decode)) };
    Ok(LastDrills {
        last: get(LAST)?,
        last_sound: get(LAST_SOUND)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let drilled = Drilled {
            at: Time {
                seconds: -5,
                nanos: 999_999_999,
            },
            snapshot: RootId([7; 16]),
            snapshots: 1,
            files: 2,
            bytes: u64::MAX,
            problems: 3,
            seconds: 4,
        };
        let bytes = drilled.encode();
        assert_eq!(Drilled::decode(&bytes), Some(drilled));
        for length in 0..bytes.len() {
            assert_eq!(Drilled::decode(&bytes[..length]), None);
        }
    }
}
