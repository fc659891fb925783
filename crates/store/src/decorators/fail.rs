//! A decorator that fails as told: for tests of what happens above a store that misbehaves.
//!
//! - Of several faults that a call meets, the one added first takes effect; each counts the calls that it could meet.
//! - Some faults break the promises of [`Store`] on purpose (torn puts, short and altered gets), as real places do.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::error::OWN_DIRECTORY;
use crate::{Error, Listed, Name, Op, Prefix, Put, Range, Result, Space, Store, Traits};

/// The error that a fault answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// [`Error::NotFound`].
    NotFound,
    /// [`Error::Full`].
    Full,
    /// [`Error::Denied`].
    Denied,
    /// [`Error::ReadOnly`].
    ReadOnly,
    /// [`Error::Unavailable`], the only transient one.
    Unavailable,
    /// [`Error::Io`].
    Io,
}

impl Failure {
    fn error(self, place: &str, name: String) -> Error {
        let (place, during) = (place.to_string(), "working on");
        match self {
            Failure::NotFound => Error::NotFound { name, place },
            Failure::Full => Error::Full { name, place },
            Failure::Denied => Error::Denied {
                name,
                place,
                during,
                advice: OWN_DIRECTORY,
            },
            Failure::ReadOnly => Error::ReadOnly { name, place },
            Failure::Unavailable => Error::Unavailable {
                name,
                place,
                reason: "injected fault".to_string(),
            },
            Failure::Io => Error::Io {
                name,
                place,
                during,
                source: io::Error::other("injected fault"),
            },
        }
    }
}

/// A scripted fault: which calls it meets, and what becomes of them.
#[derive(Debug, Clone)]
pub struct Fault {
    op: Op,
    only: Prefix,
    nth: Option<u64>,
    effect: Effect,
    met: u64,
}

#[derive(Debug, Clone, Copy)]
enum Effect {
    Error(Failure),
    LostReply,
    Delay(Duration),
    TornPut { kept_bytes: usize },
    ShortGet { missing_bytes: usize },
    AlteredGet,
}

impl Fault {
    fn new(op: Op, effect: Effect) -> Self {
        Self {
            op,
            only: Prefix::All,
            nth: None,
            effect,
            met: 0,
        }
    }

    /// Nothing is done, and the call fails.
    pub fn error(op: Op, failure: Failure) -> Self {
        Self::new(op, Effect::Error(failure))
    }

    /// Everything is done, but the caller is told [`Error::Unavailable`].
    pub fn lost_reply(op: Op) -> Self {
        Self::new(op, Effect::LostReply)
    }

    /// The call takes so much longer, in tokio's time.
    pub fn delay(op: Op, delay: Duration) -> Self {
        Self::new(op, Effect::Delay(delay))
    }

    /// Only the first `kept_bytes` of an object are stored, under its name, and the put fails with
    /// [`Error::Unavailable`].
    pub fn torn_put(kept_bytes: usize) -> Self {
        Self::new(Op::Put, Effect::TornPut { kept_bytes })
    }

    /// A get succeeds with fewer bytes than it should have.
    pub fn short_get(missing_bytes: usize) -> Self {
        Self::new(Op::Get, Effect::ShortGet { missing_bytes })
    }

    /// A get succeeds with one bit in the middle flipped.
    pub fn altered_get() -> Self {
        Self::new(Op::Get, Effect::AlteredGet)
    }

    /// Meets only the nth of its calls from when it was added, counted from 1, instead of all of them.
    pub fn nth(mut self, nth: u64) -> Self {
        self.nth = Some(nth);
        self
    }

    /// Meets only calls about these objects, and only listings of exactly this prefix.
    pub fn only(mut self, prefix: Prefix) -> Self {
        self.only = prefix;
        self
    }

    /// The effect on a call of kind `op`, which `covered` says whether its object is meant.
    fn meet(&mut self, op: Op, covered: impl Fn(&Prefix) -> bool) -> Option<Effect> {
        if self.op != op || !covered(&self.only) {
            return None;
        }
        self.met += 1;
        self.nth.is_none_or(|nth| nth == self.met).then_some(self.effect)
    }
}

/// Fails calls to another store by a script.
#[derive(Debug)]
pub struct Fail {
    inner: Arc<dyn Store>,
    faults: Mutex<Vec<Fault>>,
}

impl Fail {
    /// Passes everything on to `inner` until faults are added.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            faults: Mutex::default(),
        }
    }

    /// Adds a fault.
    pub fn add(&self, fault: Fault) {
        self.faults.lock().push(fault);
    }

    /// Removes all faults.
    pub fn clear(&self) {
        self.faults.lock().clear();
    }

    /// The effect on the call that begins now; errors and delays have been carried out.
    async fn begin(&self, op: Op, name: &impl ToString, covered: impl Fn(&Prefix) -> bool) -> Result<Option<Effect>> {
        let effect = {
            let mut faults = self.faults.lock();
            // Every fault counts the call, even if an earlier one takes effect.
            let effects: Vec<Effect> = faults.iter_mut().filter_map(|fault| fault.meet(op, &covered)).collect();
            effects.first().copied()
        };
        match effect {
            Some(Effect::Error(failure)) => Err(failure.error(self.place(), name.to_string())),
            Some(Effect::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                Ok(None)
            }
            other => Ok(other),
        }
    }

    /// The reply to a call that was passed on.
    fn reply<T>(&self, effect: Option<Effect>, name: &impl ToString, outcome: Result<T>) -> Result<T> {
        match effect {
            Some(Effect::LostReply | Effect::TornPut { .. }) => {
                outcome?;
                Err(Failure::Unavailable.error(self.place(), name.to_string()))
            }
            _ => outcome,
        }
    }
}

#[async_trait]
impl Store for Fail {
    fn place(&self) -> &str {
        self.inner.place()
    }

    fn traits(&self) -> Traits {
        self.inner.traits()
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> Result<Put> {
        let effect = self.begin(Op::Put, name, |prefix| prefix.covers(name)).await?;
        let stored = match effect {
            Some(Effect::TornPut { kept_bytes }) => bytes.slice(..kept_bytes.min(bytes.len())),
            _ => bytes,
        };
        let outcome = self.inner.put(name, stored).await;
        self.reply(effect, name, outcome)
    }

    async fn get(&self, name: &Name, range: Range) -> Result<Bytes> {
        let effect = self.begin(Op::Get, name, |prefix| prefix.covers(name)).await?;
        let bytes = self.inner.get(name, range).await;
        let bytes = self.reply(effect, name, bytes)?;
        Ok(match effect {
            Some(Effect::ShortGet { missing_bytes }) => bytes.slice(..bytes.len().saturating_sub(missing_bytes)),
            Some(Effect::AlteredGet) => {
                let mut altered = Vec::from(bytes);
                let middle = altered.len() / 2;
                if let Some(byte) = altered.get_mut(middle) {
                    *byte ^= 1;
                }
                altered.into()
            }
            _ => bytes,
        })
    }

    async fn stat(&self, name: &Name) -> Result<u64> {
        let effect = self.begin(Op::Stat, name, |prefix| prefix.covers(name)).await?;
        let outcome = self.inner.stat(name).await;
        self.reply(effect, name, outcome)
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        let covered = |only: &Prefix| *only == Prefix::All || only == prefix;
        let effect = self.begin(Op::List, prefix, covered).await?;
        let outcome = self.inner.list(prefix, after, limit).await;
        self.reply(effect, prefix, outcome)
    }

    async fn delete(&self, name: &Name) -> Result<()> {
        let effect = self.begin(Op::Delete, name, |prefix| prefix.covers(name)).await?;
        let outcome = self.inner.delete(name).await;
        self.reply(effect, name, outcome)
    }

    async fn space(&self) -> Result<Option<Space>> {
        self.inner.space().await
    }
}
