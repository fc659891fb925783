//! A store in memory whose power can be cut at a chosen change: for tests of what is left afterwards.
//!
//! - A put or delete that was answered is durable; one in flight at the cut is done or undone as chosen, never torn.
//! - Changes are in flight over at least one turn of the tokio scheduler, so that those of several tasks overlap.
//! - After the cut every call fails with [`Error::Unavailable`]; [`Crash::reopen`] gives what is left.

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::{Error, Listed, Memory, Name, Prefix, Put, Range, Result, Store, Traits};

/// What becomes of changes that are in flight at the cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InFlight {
    /// None is done.
    Lost,
    /// All are done, though nobody was told.
    Kept,
    /// Each is done or not by a bit of this number: the first one that began, and was not answered, by the lowest.
    Mixed(u64),
}

/// When the power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// How many changes (puts and deletes) are answered before. The next one, and all in flight with it, are not.
    pub after_changes: u64,
    /// What becomes of those in flight.
    pub in_flight: InFlight,
}

/// A store in memory with a power switch.
#[derive(Debug)]
pub struct Crash {
    durable: Memory,
    cut: Option<Cut>,
    state: Mutex<Power>,
}

#[derive(Debug, Default)]
struct Power {
    answered: u64,
    is_down: bool,
    next: u64,
    in_flight: Vec<(u64, Change)>,
}

#[derive(Debug, Clone)]
enum Change {
    Put(Name, Bytes),
    Delete(Name),
}

impl Change {
    fn name(&self) -> &Name {
        match self {
            Change::Put(name, _) | Change::Delete(name) => name,
        }
    }

    fn apply(self, durable: &Memory) -> Result<Put> {
        match self {
            Change::Put(name, bytes) => durable.put_now(&name, bytes),
            Change::Delete(name) => {
                durable.delete_now(&name);
                Ok(Put::Existed)
            }
        }
    }
}

impl Crash {
    /// A store that begins with the objects of `durable` and loses power at `cut`, or never.
    pub fn new(durable: Memory, cut: Option<Cut>) -> Self {
        Self {
            durable,
            cut,
            state: Mutex::default(),
        }
    }

    /// How many changes were answered: the count of points at which a cut makes a difference.
    pub fn changes(&self) -> u64 {
        self.state.lock().answered
    }

    /// Whether the power was cut.
    pub fn is_down(&self) -> bool {
        self.state.lock().is_down
    }

    /// A store of its own with what was durable.
    pub fn reopen(&self) -> Memory {
        let _state = self.state.lock();
        self.durable.clone()
    }

    fn down(&self, name: &impl ToString) -> Error {
        let (name, place) = (name.to_string(), self.place().to_string());
        Error::Unavailable {
            name,
            place,
            reason: "the power was cut".to_string(),
        }
    }

    /// The store for a read, if there is power.
    fn powered(&self, name: &impl ToString) -> Result<&Memory> {
        if self.is_down() {
            Err(self.down(name))
        } else {
            Ok(&self.durable)
        }
    }

    async fn change(&self, change: Change) -> Result<Put> {
        let name = change.name().clone();
        let number = self.begin(change)?;
        tokio::task::yield_now().await;
        let mut state = self.state.lock();
        if state.is_down {
            return Err(self.down(&name));
        }
        if let Some(cut) = self.cut
            && state.answered == cut.after_changes
        {
            state.is_down = true;
            self.apply_kept(std::mem::take(&mut state.in_flight), cut.in_flight);
            return Err(self.down(&name));
        }
        state.answered += 1;
        match state.in_flight.iter().position(|(found, _)| *found == number) {
            Some(at) => state.in_flight.remove(at).1.apply(&self.durable),
            None => Err(self.down(&name)),
        }
    }

    fn begin(&self, change: Change) -> Result<u64> {
        let mut state = self.state.lock();
        if state.is_down {
            return Err(self.down(change.name()));
        }
        let number = state.next;
        state.next += 1;
        state.in_flight.push((number, change));
        Ok(number)
    }

    /// Does what the cut leaves of the changes in flight.
    fn apply_kept(&self, in_flight: Vec<(u64, Change)>, fate: InFlight) {
        for (bit, (_, change)) in in_flight.into_iter().enumerate() {
            let is_kept = match fate {
                InFlight::Lost => false,
                InFlight::Kept => true,
                InFlight::Mixed(bits) => bits >> (bit % 64) & 1 == 1,
            };
            if is_kept {
                // Nobody is left to be told of an object that is too large.
                let _ = change.apply(&self.durable);
            }
        }
    }
}

#[async_trait]
impl Store for Crash {
    fn place(&self) -> &str {
        self.durable.place()
    }

    fn traits(&self) -> Traits {
        self.durable.traits()
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> Result<Put> {
        self.change(Change::Put(name.clone(), bytes)).await
    }

    async fn get(&self, name: &Name, range: Range) -> Result<Bytes> {
        self.powered(name)?.get(name, range).await
    }

    async fn stat(&self, name: &Name) -> Result<u64> {
        self.powered(name)?.stat(name).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        self.powered(prefix)?.list(prefix, after, limit).await
    }

    async fn delete(&self, name: &Name) -> Result<()> {
        self.change(Change::Delete(name.clone())).await.map(|_| ())
    }
}
