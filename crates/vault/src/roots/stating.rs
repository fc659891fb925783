//! What this client states in ledgers, and what follows from what others have stated about the configuration.
//!
//! - Only owners state; each ledger carries over all that the newest ones say (`ledger/next.rs`).
//! - What is stated protects: a root goes on counting whatever becomes of its signer, a configuration is missed where places hide it.

use std::collections::BTreeMap;

use drystone_format::ledger::{KindWord, LedgerName};
use drystone_format::root::{RootKind, RootName};
use drystone_store::{Name, Prefix};

use crate::base::Base;
use crate::context::Source;
use crate::error::{Error, Result};
use crate::places::allow::Act;
use crate::places::config::{Found, Signed};
use crate::problem::Problems;
use crate::roots::ledger::{Change, View};
use crate::roots::resolve::PREFIX_MIN;

/// How many snapshots may be unstated before an owner who finds them puts a ledger.
const UNSTATED_MAX: usize = 32;

/// The word by which ledgers name a kind of roots.
pub(crate) fn kind_word(kind: RootKind) -> Option<KindWord> {
    KindWord::new(kind.word())
}

impl Base {
    /// Puts the ledger that adds `change` to the newest ones, which were read just before; durable on return. Returns false if they state
    /// all of that already. Needs an owner's key.
    pub(crate) fn put_ledger(&self, change: &Change) -> Result<bool> {
        let own = self.all_sightings()?;
        let mut random = Source(&*self.context.entropy);
        let now = self.context.clock.now();
        let has_put = self.ledgers.put(change, &own, now, &mut random)?;
        self.epochs.follow(&self.ledgers);
        Ok(has_put)
    }

    /// Puts a ledger if many of these verified snapshots are in none, and if this client may. Whoever comes next tries again after a failure.
    pub(crate) fn state_many(&self, view: &View, signed: &[RootName]) {
        let is_unstated = |root: &&RootName| !view.stated.live.contains_key(&root.numbered());
        let is_due = signed.iter().filter(is_unstated).count() >= UNSTATED_MAX;
        if is_due && self.role().may_govern() && self.allow(Act::Forget).is_ok() {
            let seen = signed
                .iter()
                .filter_map(|root| Some((root.numbered(), kind_word(root.kind)?)));
            let _ = self.put_ledger(&Change {
                seen: seen.collect(),
                ..Change::default()
            });
        }
    }

    /// States all roots that are found, so that they count whatever becomes of the keys that signed them; in the same ledger, that
    /// `configuration` is in force.
    pub(crate) fn state_roots(&self, configuration: Option<&Signed>) -> Result<()> {
        let names = self.confirmed_root_names(&Prefix::AllRoots)?;
        let view = self.ledgers.refresh()?;
        let mut seen = BTreeMap::new();
        for root in names.iter().filter(|root| view.is_live(&root.numbered())) {
            let read = self.signed_root(root);
            // What nobody can read is not vouched for.
            let read = read.and_then(|signed| match root.kind.known() {
                Some(_) => self.kept_by(&signed).map(|_| signed),
                None => Ok(signed),
            });
            match read {
                Ok(signed) if !self.is_revoked(&view, &signed) => {
                    seen.extend(kind_word(root.kind).map(|kind| (root.numbered(), kind)));
                }
                Err(error) if !error.is_damage() => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        self.put_ledger(&Change {
            seen,
            configuration: configuration.map(|signed| (signed.config.number, signed.hash)),
            ..Change::default()
        })?;
        Ok(())
    }

    /// States in a ledger that a configuration is in force, so that a machine that has seen none misses it where places hide it. The
    /// configuration counts without that too.
    pub(crate) fn state_config(&self, signed: &Signed) -> Result<()> {
        self.ledgers.refresh()?;
        self.put_ledger(&Change {
            configuration: Some((signed.config.number, signed.hash)),
            ..Change::default()
        })?;
        Ok(())
    }

    /// Configurations that ledgers state to be in force, and that no place that answered has: the one in use may be older.
    pub(crate) fn missing_configs(&self) -> Result<Problems> {
        let mut problems = Problems::default();
        let view = self.ledgers.view();
        let stated = &view.stated.configuration.heads;
        if stated.iter().all(|(_, hash)| self.standing().knows(hash)) {
            return Ok(problems);
        }
        // Another owner may have changed it since this vault was opened.
        let mut found = Found::default();
        found.read(&self.place, &self.secrets)?;
        for (number, hash) in stated.iter().filter(|(_, hash)| !found.is_known(hash)) {
            let what = "an owner has stated that this configuration is in force, and no place that answered has it: they are stale, were \
                        rolled back, or it is lost (to go on with the one in use: drystone vault resolve)";
            problems.push(Name::config(*number, hash).as_str(), what);
        }
        Ok(problems)
    }

    /// Gives up the ledger that `text` names by number and hash, or the beginning of the hash: what it alone states is lost, and gc works again.
    /// Returns its name; durable on return. Needs an owner's key.
    ///
    /// [`Error::NoLedger`] unless exactly one is meant that is missed and that no place gives back.
    pub fn give_up_ledger(&self, text: &str) -> Result<String> {
        self.may_govern("give up a ledger")?;
        self.allow(Act::Change)?;
        let view = self.ledgers.refresh()?;
        let is_meant = |(number, hash): &&LedgerName| {
            format!("{number}-{hash}") == text || text.len() >= PREFIX_MIN && hash.to_string().starts_with(text)
        };
        let meant: Vec<LedgerName> = view.unreadable.iter().filter(is_meant).copied().collect();
        let [name] = meant.as_slice() else {
            return Err(Error::NoLedger { text: text.to_owned() });
        };
        self.put_ledger(&Change {
            given_up: [*name].into(),
            ..Change::default()
        })?;
        Ok(Name::ledger(name.0, &name.1).to_string())
    }
}
