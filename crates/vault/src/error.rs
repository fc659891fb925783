//! The one error of this crate: what a door does differently has a variant of its own.

pub(crate) mod damage;

use drystone_format::{ChunkId, RegistrationId};
use thiserror::Error;

use crate::places::pin::VaultPin;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the vault could not do what was asked.
#[derive(Debug, Error)]
pub enum Error {
    /// The place answers, but holds no vault.
    #[error("{place}: no vault here")]
    NoVault {
        /// Where it was looked for.
        place: String,
    },
    /// A vault is there already.
    #[error("{place}: there is a vault already; nothing was changed")]
    VaultExists {
        /// Where it lies.
        place: String,
    },
    /// None of the key slots opens with what was given.
    #[error("{place}: this key opens none of the vault's {slots} key slots{damaged}")]
    WrongKey {
        /// The vault's place.
        place: String,
        /// How many slots were tried.
        slots: usize,
        /// The slots that are damaged, if there are any, each after a semicolon.
        damaged: String,
    },
    /// A key, passphrase or recovery code could not be read at all.
    #[error("{origin}: {why}")]
    BadKey {
        /// Where it came from.
        origin: String,
        /// What is wrong with it.
        why: String,
    },
    /// A place holds another vault than the one that this machine has seen there.
    #[error(
        "{place}: vault {found} lies here, and this machine has seen vault {known} here before; nothing was read or \
         written"
    )]
    OtherVault {
        /// The place.
        place: String,
        /// The vault that this machine knows.
        known: Box<VaultPin>,
        /// The vault that lies there now.
        found: Box<VaultPin>,
    },
    /// A vault has the id of one that this machine knows, and another key.
    #[error(
        "{place}: vault {found} has the id of a vault that this machine knows, and another key than {known}: somebody \
         made it anew, or forged it; nothing was read or written"
    )]
    OtherVaultKey {
        /// The place.
        place: String,
        /// The vault that this machine knows.
        known: Box<VaultPin>,
        /// The vault that lies there now.
        found: Box<VaultPin>,
    },
    /// A key file names other vaults than the one that it opened.
    #[error(
        "{place}: vault {found} lies here, and {origin} says that it is a key of {named}; nothing was read or written. If \
         the key is for this vault too, add the line `# drystone vault: {}` to the file", found.line()
    )]
    KeyOfOtherVault {
        /// The place.
        place: String,
        /// The key file.
        origin: String,
        /// The vaults that it names.
        named: String,
        /// The vault that lies there.
        found: Box<VaultPin>,
    },
    /// A place is empty at which this machine has seen a vault.
    #[error("{place}: no vault here, and this machine has seen vault {known} here before; is the disk mounted?")]
    Emptied {
        /// The place.
        place: String,
        /// The vault that was there.
        known: VaultPin,
    },
    /// Several places were named that do not hold the same vault.
    #[error("the places that were named hold different vaults: {places}")]
    DifferentVaults {
        /// Each place and its vault.
        places: String,
    },
    /// The key epochs of a vault are older than those that this machine has seen.
    #[error(
        "{place}: keys/: the newest key epoch here is {found}, and this machine has seen {known}: the key slots were \
         rolled back, and a removed key may open what is written now"
    )]
    OlderKeys {
        /// The place.
        place: String,
        /// The epoch that this machine knows.
        known: String,
        /// The newest epoch there.
        found: String,
    },
    /// The configuration of a vault is older than the one that this machine has seen.
    #[error(
        "{place}: {object} number {found} is the newest here, and this machine has seen {known}: the places that answered \
         are stale or were rolled back"
    )]
    OlderConfiguration {
        /// The place.
        place: String,
        /// What is older.
        object: &'static str,
        /// The number that this machine knows.
        known: u64,
        /// The newest number there.
        found: u64,
    },
    /// What this machine knows cannot be read or written.
    #[error(
        "{}: cannot use what this machine knows of vaults: {why}; mend the file, or remove it to trust each vault anew on first use",
        path.display()
    )]
    Memory {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A key that an owner holds cannot be taken back.
    #[error(
        "key {id} is an owner's: whoever kept a copy of it can sign for this vault for ever, so removing it protects nothing"
    )]
    OwnerStays {
        /// The slot.
        id: String,
    },
    /// An object is sealed in a key epoch that this key does not know.
    #[error(
        "{place}: {object}: sealed in key epoch {} ({epoch:016x}), which this key does not know: it was removed, or its key \
         slot is older than the object; ask an owner of the vault (`drystone key list`)", drystone_format::keys::epoch_number(*epoch)
    )]
    NewerKeys {
        /// The object.
        object: String,
        /// The place.
        place: String,
        /// The epoch.
        epoch: u64,
    },
    /// No slot has this id, or several do.
    #[error("no single key slot is meant by `{text}`")]
    NoSlot {
        /// What was asked for.
        text: String,
    },
    /// The last key that opens the vault as owner cannot be removed.
    #[error("key {id} is the last owner key of this vault and stays")]
    LastOwner {
        /// The slot.
        id: String,
    },
    /// No place of the vault is meant by this, or several are.
    #[error("no single place of this vault is meant by `{text}`")]
    NoPlaceOf {
        /// What was asked for.
        text: String,
    },
    /// A place that must take part does not.
    #[error("{place}: this place is needed now and does not answer: {reason}")]
    Absent {
        /// The place.
        place: String,
        /// What is known about why.
        reason: String,
    },
    /// Too few places are there to read or write anything; nothing was changed.
    #[error("too few places: {there} of {total} can be used, and it takes {needed}; missing: {missing}")]
    TooFewPlaces {
        /// How many answer.
        there: usize,
        /// How many there are.
        total: usize,
        /// How many it takes.
        needed: u8,
        /// Those that do not answer, each with what is known about why.
        missing: String,
    },
    /// A place to be added belongs to a vault already.
    #[error("{place}: a vault lies here already, this one or another")]
    PlaceTaken {
        /// Where it is.
        place: String,
    },
    /// What was named are places of a spread vault whose configuration is lost there, or not places of one vault.
    #[error("{places}: no configuration was found here that could be read")]
    NotSpread {
        /// What was named.
        places: String,
    },
    /// Several places were named for a vault that lies whole at one.
    #[error("{places}: the configuration says that this vault lies whole at one place")]
    OnePlace {
        /// What was named.
        places: String,
    },
    /// The vault needs a feature that this program does not know.
    #[error(
        "{place}: this vault needs the feature `{feature}` to {deed}, and this program does not know it: the vault is newer \
         than this program"
    )]
    Feature {
        /// The vault's place.
        place: String,
        /// The feature.
        feature: String,
        /// What it is needed for.
        deed: &'static str,
    },
    /// Owners have admitted a kind of roots that this program cannot follow.
    #[error(
        "{place}: this vault holds roots of the kind `{kind}`, which this program does not know: it cannot tell what they \
         need, so it deletes nothing"
    )]
    UnknownRoots {
        /// The vault's place.
        place: String,
        /// The kind.
        kind: String,
    },
    /// Roots of this kind do not count in this vault, or this program does not know them; nothing was changed.
    #[error(
        "{place}: roots of the kind `{kind}` are not in use in this vault, or this program does not know them; nothing was changed"
    )]
    UnlistedRoots {
        /// The vault's place.
        place: String,
        /// The kind.
        kind: String,
    },
    /// It is not certain which configuration is in force; nothing was changed.
    #[error("{place}: {why}; nothing was changed")]
    UncertainConfig {
        /// The vault's place.
        place: String,
        /// What is known about it.
        why: String,
    },
    /// The configuration is another than this run has read.
    #[error(
        "{place}: there is another configuration by now ({found}), of another owner or of a change that was interrupted; \
         nothing was changed"
    )]
    ConfigMoved {
        /// The vault's place.
        place: String,
        /// Number and hash of the one in force, or `none`.
        found: String,
    },
    /// A place was given up while a run stored there; the run has published nothing.
    #[error(
        "{place}: this place was taken out of the vault, or is leaving it, while this run stored: its snapshot would miss what lies \
         there, so it was not saved"
    )]
    PlacesMoved {
        /// The place.
        place: String,
    },
    /// No configuration that an owner could choose has this hash.
    #[error("no single configuration is meant by `{text}`")]
    NoConfig {
        /// What was asked for.
        text: String,
    },
    /// No snapshot has this name.
    #[error("{place}: no snapshot `{text}`")]
    NoSnapshot {
        /// What was asked for.
        text: String,
        /// The vault's place.
        place: String,
    },
    /// Several snapshots begin with this.
    #[error("`{text}` could be any of {count} snapshots")]
    AmbiguousSnapshot {
        /// What was asked for.
        text: String,
        /// How many match.
        count: usize,
    },
    /// The key that opened the vault was removed by an owner: what it stores would count for nobody.
    #[error("{place}: this key was removed from the vault: what it stores counts for nobody")]
    KeyRemoved {
        /// The vault's place.
        place: String,
    },
    /// A chunk that was put as it is has no bytes, or more than the vault's chunks may have.
    #[error("a chunk of {bytes} bytes cannot be stored: this vault's chunks have 1 to {max_bytes}")]
    ChunkSize {
        /// Its bytes.
        bytes: usize,
        /// The most that a chunk of file data has in this vault.
        max_bytes: usize,
    },
    /// No ledger that is missed has this name.
    #[error("no ledger that is missed or damaged has the name {text}")]
    NoLedger {
        /// What was given.
        text: String,
    },
    /// A ledger that may be among the newest cannot be read; nothing was deleted.
    #[error("{place}: {why}; nothing was deleted")]
    UnknownLedger {
        /// The vault's place.
        place: String,
        /// Which, and what follows.
        why: String,
    },
    /// Snapshots are missing that an owner has stated or this machine has seen, and that nobody has forgotten; nothing was deleted.
    #[error(
        "{place}: {object} is missing{}: owners or this machine know it, nobody has forgotten it, and no place that answered has it; nothing was \
         deleted",
        others(*count)
    )]
    MissingRoots {
        /// The vault's place.
        place: String,
        /// Name of the first.
        object: String,
        /// How many are missing.
        count: usize,
    },
    /// A snapshot cannot be read that might be the latest.
    #[error("which snapshot is the latest is not known: {}", unread(object, *count))]
    LatestUnknown {
        /// The first that cannot be read, and why.
        object: String,
        /// How many cannot be read.
        count: u64,
    },
    /// Snapshots of several writers and none of an owner.
    #[error("`latest` could mean a snapshot of any of these keys: {keys}")]
    LatestOfSeveral {
        /// Names of the keys.
        keys: String,
    },
    /// All snapshots that are meant claim impossible times.
    #[error("the times of these snapshots cannot be true: {ids}")]
    LatestDoubtful {
        /// Their ids, shortened.
        ids: String,
    },
    /// No single signer of snapshots has a key that begins so.
    #[error("`{text}` does not identify exactly one key that signed a snapshot")]
    NoSigner {
        /// What was asked for.
        text: String,
    },
    /// An object is not what it should be.
    #[error("{place}: {object}: {source}; run `drystone check`")]
    Damaged {
        /// Name of the object.
        object: String,
        /// The vault's place.
        place: String,
        /// What is wrong with it.
        source: drystone_format::Error,
    },
    /// A chunk came out of its frame with other bytes than its name says.
    #[error("{place}: {pack}: chunk {id} does not match its name; run `drystone scrub`")]
    WrongChunk {
        /// The chunk.
        id: ChunkId,
        /// Name of the pack that claimed to hold it.
        pack: String,
        /// The vault's place.
        place: String,
    },
    /// No pack holds this chunk any more, or only packs of which too much is at places that are away.
    #[error("{place}: chunk {id} is in no pack that can be read; {advice}")]
    MissingChunk {
        /// The chunk.
        id: ChunkId,
        /// The vault's place.
        place: String,
        /// Where it may still be, or what to do.
        advice: &'static str,
    },
    /// No pack here holds this chunk, and somebody else who may hold it does not answer, or does not give it.
    #[error("{place}: chunk {id} is not here; it may be at {}: try again when that is back", .sources.join(", "))]
    Elsewhere {
        /// The chunk.
        id: ChunkId,
        /// The vault's place.
        place: String,
        /// Who may hold it, and why he gives nothing.
        sources: Vec<String>,
    },
    /// The credential may not do this, or bytes to be written are not well-formed.
    #[error(transparent)]
    Format(#[from] drystone_format::Error),
    /// The place failed.
    #[error(transparent)]
    Store(#[from] drystone_store::Error),
    /// The local index or state failed; it can be deleted and is rebuilt.
    #[error("{0}; the cache can be deleted, it is rebuilt by `drystone repair index`")]
    Index(#[from] drystone_index::Error),
    /// The local directory for what is rebuildable cannot be made.
    #[error("{}: cannot make the cache directory: {source}; choose another with DRYSTONE_CACHE_DIR", path.display())]
    CacheDir {
        /// The directory.
        path: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The process may not have the memory or the threads that this takes.
    #[error("{what}: {source}; the limits of this process are too low (ulimit -v, ulimit -u)")]
    Exhausted {
        /// What it is for.
        what: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// The run was interrupted; what was stored is reused by the next one.
    #[error("interrupted; what was stored so far is reused by the next run")]
    Interrupted,
    /// gc cannot read what a snapshot needs; nothing was deleted.
    #[error("{object}: {why}; nothing was deleted")]
    Unmarked {
        /// The snapshot, and the path in it.
        object: String,
        /// What is wrong with it.
        why: String,
        /// A chunk is in no pack that was listed: one that was stored since may have it.
        is_missing: bool,
    },
    /// gc took this run for dead, since it gave no sign of life for long.
    #[error("{place}: this run ({id}) was silent for so long that gc gave it up; its snapshot does not count")]
    GivenUp {
        /// The run.
        id: RegistrationId,
        /// The vault's place.
        place: String,
    },
    /// The last root of a run was published.
    #[error("this run has published its snapshot already; start another for the next")]
    Published,
    /// Another part of this run failed first, and its error was reported there.
    #[error("stopped because another part of this run failed")]
    Stopped,
    /// A lane was dropped with chunks that were promised to others.
    #[error("{chunks} chunks were taken in but never stored; nothing was published, run the backup again")]
    Unstored {
        /// How many.
        chunks: usize,
    },
}

/// Formats how many others there are beside one.
fn others(count: usize) -> String {
    match count {
        0 | 1 => String::new(),
        more => format!(", and {} more", more - 1),
    }
}

/// Formats which snapshots cannot be read: the first, and how many others.
fn unread(first: &str, count: u64) -> String {
    match count {
        0 | 1 => format!("{first}; name a snapshot by its id"),
        2 => format!("{first}; 1 more cannot be read either; name a snapshot by its id"),
        more => format!("{first}; {} more cannot be read; name a snapshot by its id", more - 1),
    }
}
