//! How to collect garbage, and what came of it.

use std::sync::Arc;
use std::time::Duration;

use drystone_format::RegistrationId;

use crate::gc::protocol::Gaps;
use crate::problem::Problems;
use crate::progress::{Cancel, Progress};

/// How to collect garbage.
#[derive(Debug, Clone)]
pub struct GcOptions {
    /// Share of garbage that a pack may hold before what is live in it is copied, 0 to 1.
    pub max_unused: f64,
    /// Most bytes of chunks that are copied in this run; packs with most garbage come first.
    pub max_rewrite_bytes: u64,
    /// Only says what it would do.
    pub dry_run: bool,
    /// How long to wait for runs that may rely on what is condemned; what they keep is deleted by a later run.
    pub wait: Duration,
    /// Looks at such a run that are closer together than this count once; at the third without a new sign of life it is
    /// given up. By the wall clock, as a courtesy: a wrong one costs such a run its work, never data.
    pub silence: Duration,
    /// Whether roots that are missing though their writers state them hold everything of these writers up.
    pub gaps: Gaps,
    /// Packs that no index run lists before one is written for them, where places are slow: the ends of fewer are read at once.
    pub index_from_packs: usize,
    /// Counts files, packs and stored bytes.
    pub progress: Arc<Progress>,
    /// Stops it.
    pub cancel: Cancel,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self {
            max_unused: 0.1,
            max_rewrite_bytes: u64::MAX,
            dry_run: false,
            wait: Duration::ZERO,
            silence: Duration::from_secs(900),
            gaps: Gaps::Keep,
            index_from_packs: 64,
            progress: Arc::default(),
            cancel: Cancel::default(),
        }
    }
}

/// What a run of gc found and did; of a dry run: would do.
#[derive(Debug, Clone, Default)]
pub struct GcReport {
    /// Snapshots that were marked from.
    pub snapshots: u64,
    /// Roots of other kinds that were marked from.
    pub other_roots: u64,
    /// Packs there were, and their bytes.
    pub packs: u64,
    /// Bytes of these.
    pub pack_bytes: u64,
    /// Distinct chunks that the snapshots need.
    pub live_chunks: u64,
    /// Plaintext in packs that nothing needs, bytes.
    pub unused_bytes: u64,
    /// Packs condemned in this run.
    pub condemned_packs: u64,
    /// Those of them with something in them that had to be copied.
    pub rewritten_packs: u64,
    /// Plaintext that was copied, bytes.
    pub copied_bytes: u64,
    /// Packs deleted, condemned now or earlier.
    pub deleted_packs: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Packs that stand condemned and wait for runs to end.
    pub waiting_packs: u64,
    /// The runs that they wait for.
    pub waiting_for: Vec<RegistrationId>,
    /// Runs that gave no sign of life and were given up.
    pub given_up: Vec<RegistrationId>,
    /// Packs with little live in them, left alone since a place is away (what is copied would lie at too few) or full.
    pub uncopied_packs: u64,
    /// Packs that nothing needs, left alone since a run that is under way may have written them.
    pub spared_packs: u64,
    /// What is wrong, though it kept nothing from being deleted safely.
    pub problems: Problems,
}
