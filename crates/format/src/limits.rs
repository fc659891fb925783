//! Every size, count and fan-out of the format, each with its unit and its reason.
//!
//! - A decoder refuses what exceeds a limit before it allocates for it.
//! - Raising a limit is a format change; lowering one must still read what was written under the old one.

/// Newest format version this program writes and reads.
pub const FORMAT_VERSION: u8 = 1;

/// Default smallest content-defined chunk of file data, bytes. Files up to this size are one chunk.
pub const DATA_CHUNK_MIN_BYTES: u32 = 16 << 10;
/// Default largest chunk of file data, bytes: narrow windows resynchronise soonest (docs/decisions/0001-chunking.md).
pub const DATA_CHUNK_MAX_BYTES: u32 = 48 << 10;
/// Smallest chunk of tree and recipe streams, bytes: a changed name costs one such chunk, so they are finer than data.
pub const META_CHUNK_MIN_BYTES: u32 = 4 << 10;
/// Largest chunk of tree and recipe streams, bytes.
pub const META_CHUNK_MAX_BYTES: u32 = 12 << 10;
/// Largest chunk any vault may be configured for, bytes. Bounds the memory of one chunk in a reader.
pub const CHUNK_MAX_BYTES: u32 = 1 << 20;

/// Plaintext bytes after which a frame of file data is closed: a doubling saves a hundredth of the space and doubles what
/// must be decompressed for one chunk (docs/decisions/0001-chunking.md).
pub const DATA_FRAME_BYTES: usize = 2 << 20;
/// The same where reads are random: what a read of 4 KiB costs at least (docs/decisions/0023-random-reads.md).
pub const RANDOM_FRAME_BYTES: usize = 128 << 10;
/// Plaintext bytes after which a frame of trees is closed: metadata is read in small pieces.
pub const META_FRAME_BYTES: usize = 256 << 10;
/// Largest plaintext of any frame, bytes. Bounds what a reader must decompress to get one chunk.
pub const FRAME_MAX_BYTES: usize = 4 << 20;
/// Most chunks in one frame: a full frame of chunks of 64 bytes.
pub const FRAME_CHUNKS_MAX: usize = 1 << 16;
/// Most frames in one pack; the frame number is two bytes in an index entry.
pub const PACK_FRAMES_MAX: usize = 1 << 16;

/// Bytes after which a pack is closed and stored, in a small vault; packs of file data grow with the vault.
pub const PACK_BYTES: usize = 16 << 20;
/// The same in the largest vaults: so a vault of 8 TiB has 131,072 packs to list.
pub const PACK_LARGE_BYTES: usize = 64 << 20;
/// Together compressed frames of a run below this are one mixed pack, bytes: sealed, with its tail, it stays within 1 MiB.
pub const PACK_MIXED_BYTES: usize = 960 << 10;
/// Packs up to this size have a power of two of bytes.
pub const PACK_STEPS_FROM_BYTES: usize = 1 << 20;
/// Larger ones have a multiple of this, and none has less.
pub const PACK_STEP_BYTES: usize = 64 << 10;
/// Largest pack, bytes: `PACK_LARGE_BYTES`, one frame and the tail, and room for other configurations.
pub const PACK_MAX_BYTES: usize = 96 << 20;
/// Largest shard, bytes: a whole pack (k = 1), its checksums and footer.
pub const SHARD_MAX_BYTES: usize = 97 << 20;
/// Bytes of a shard under one checksum: what the smallest read of a shard costs; the checksum is a thousandth of it.
pub const SHARD_BLOCK_BYTES: usize = 16 << 10;
/// Largest tail (trailer, preamble, footer) of a pack, bytes: 64 MiB of chunks of 512 bytes, 40 bytes each.
pub const PACK_TAIL_MAX_BYTES: usize = 8 << 20;
/// Bytes read from the end of a pack in the first attempt at its tail: a sealed trailer of 64 KiB (1800 chunks) and the rest.
pub const PACK_TAIL_GUESS_BYTES: usize = 65 << 10;

/// Index parts up to this are carried by a root, bytes; larger ones are objects of their own.
pub const INDEX_PART_INLINE_BYTES: usize = 1 << 20;
/// Largest index part, and largest piece of an index run, bytes: what a reader holds to check it whole.
pub const INDEX_MAX_BYTES: usize = 64 << 20;
/// Chunks in one block of an index run: 52 KiB are read for one of them.
pub const INDEX_BLOCK_CHUNKS: usize = 1 << 10;
/// Packs in one block of an index run: some 60 KiB.
pub const INDEX_BLOCK_PACKS: usize = 256;
/// Largest sealed block of an index run, bytes: its packs with the longest wrapped keys.
pub const INDEX_BLOCK_MAX_BYTES: usize = 256 << 10;
/// Largest directory of an index run with preamble and footer, bytes; one of 64 MiB has some 75 KiB.
pub const INDEX_TAIL_MAX_BYTES: usize = 4 << 20;

/// Largest root object, bytes: a snapshot names paths, tags and one tree, never its files.
pub const ROOT_MAX_BYTES: usize = 4 << 20;
/// Largest ledger, bytes: a million forgotten roots, each of a registration of its own, are 40 MB.
pub const LEDGER_MAX_BYTES: usize = 64 << 20;
/// Most predecessors that a ledger names, 19 bytes each: eight years of 20 ledgers a day.
pub const LEDGER_PREDECESSORS_MAX: usize = 64 << 10;
/// Most live roots that a ledger states, some 60 bytes each with their times: roots are counted in thousands, a flood of them is no reason to fail.
pub const LEDGER_LIVE_MAX: usize = 256 << 10;
/// Most kinds of roots that a ledger knows.
pub const LEDGER_KINDS_MAX: u64 = 256;
/// Largest key slot, bytes: the secrets of `EPOCHS_MAX` epochs (112 KiB), a copy of the header, and the lock.
pub const SLOT_MAX_BYTES: usize = 512 << 10;
/// Largest vault header, place mark or presence, bytes: room for what a presence has seen.
pub const HEADER_MAX_BYTES: usize = 256 << 10;

/// A piece of the reserve of a place, bytes. All of them together hold the ledger of some thousand roots, and the presence and the epoch of
/// a gc.
pub const RESERVE_PIECE_BYTES: usize = 256 << 10;
/// Pieces of the reserve of a place.
pub const RESERVE_PIECES: u8 = 4;

/// Most places of a vault: a shard's number is a byte, and each place is asked by every listing.
pub const PLACES_MAX: u64 = 255;
/// Most configurations that one replaces: 256 KiB of hashes, one change a day for 44 years.
pub const CONFIG_REPLACES_MAX: u64 = 16 << 10;
/// Most features that a configuration needs for one purpose.
pub const FEATURES_MAX: u64 = 256;
/// Most kinds of roots that a configuration admits.
pub const ROOT_KINDS_MAX: u64 = 256;
/// Most removed credentials in a configuration: about 600 KiB.
pub const CREDENTIALS_MAX: u64 = 16 << 10;

/// Longest name of a tree entry, bytes: Linux allows 255, other systems up to 1020.
pub const NAME_MAX_BYTES: usize = 1024;
/// Longest symbolic link target, bytes (Linux PATH_MAX is 4096).
pub const LINK_TARGET_MAX_BYTES: usize = 64 << 10;
/// Most extended attributes of one entry; Linux lists at most 64 KiB of names.
pub const XATTRS_MAX: usize = 4096;
/// Longest extended attribute name, bytes (Linux XATTR_NAME_MAX).
pub const XATTR_NAME_MAX_BYTES: usize = 255;
/// Longest extended attribute value, bytes (Linux XATTR_SIZE_MAX).
pub const XATTR_VALUE_MAX_BYTES: usize = 64 << 10;
/// Most users and groups of one entry's ACLs that are named: two ACLs of 64 KiB, 8 bytes a rule.
pub const ACL_NAMES_MAX: u64 = 16 << 10;
/// Largest encoded tree entry, bytes: bounds the buffer of a tree reader.
pub const ENTRY_MAX_BYTES: usize = 2 << 20;
/// Deepest directory nesting that is stored or read: guards explicit stacks against cyclic or hostile trees.
pub const TREE_DEPTH_MAX: usize = 16 << 10;

/// Most parts of a recipe kept inline in its entry; longer ones become chunks of parts.
pub const RECIPE_INLINE_PARTS: usize = 32;
/// Fewest parts in a recipe chunk before a content-defined cut, so that one edit changes one of them.
pub const RECIPE_NODE_MIN_PARTS: usize = 64;
/// Most parts in a recipe chunk: about 40 KiB encoded.
pub const RECIPE_NODE_MAX_PARTS: usize = 1024;
/// Deepest recipe: 512 parts on average a level, so five levels reach beyond 2^64 bytes.
pub const RECIPE_DEPTH_MAX: u8 = 6;

/// Deepest nesting of CBOR that is skipped in unknown keys.
pub const CBOR_DEPTH_MAX: usize = 16;
/// Most keys of a CBOR map.
pub const CBOR_KEYS_MAX: u64 = 256;
/// Most paths, tags or excludes of a snapshot.
pub const SNAPSHOT_LIST_MAX: u64 = 4096;
/// Longest text in roots, slots and headers (labels, host names, tags), bytes.
pub const TEXT_MAX_BYTES: usize = 4096;
/// Most key epochs in one set of secrets.
pub const EPOCHS_MAX: u64 = 1024;
/// Most epochs of gc, and most ledgers, that a presence or root names: 28 bytes each, both within `HEADER_MAX_BYTES`.
pub const PRESENCE_EPOCHS_MAX: usize = 4096;
/// Most items (packs, fences, cuts, forgotten roots; at most 46 bytes each) of one epoch object, so that it stays below
/// `ROOT_MAX_BYTES`.
pub const EPOCH_ITEMS_MAX: usize = 48 << 10;
