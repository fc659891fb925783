//! Frames under way: from the first chunk that goes into one until its pack is durable and in the index.
//!
//! - A chunk that is not durable yet belongs to exactly one frame. Whoever relies on the chunk waits for that frame, whichever lane fills it.
//! - Frames are numbered in the order in which they are begun, and land in any order.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::Result;

/// How often a waiting thread looks whether the run was stopped.
const LOOK: Duration = Duration::from_millis(200);

/// Names a frame under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FrameId(u64);

/// What [`Commit::put`](crate::Commit::put) answers: the chunk is durable now, or once its frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(pub(crate) Option<FrameId>);

/// The frames under way of one pipeline.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    state: Mutex<UnderWay>,
    landed: Condvar,
}

#[derive(Debug, Default)]
struct UnderWay {
    begun: u64,
    frames: BTreeSet<FrameId>,
}

impl Flights {
    /// Begins a frame.
    pub(crate) fn begin(&self) -> FrameId {
        let mut state = self.state.lock();
        let id = FrameId(state.begun);
        state.begun += 1;
        state.frames.insert(id);
        id
    }

    /// Notes that these frames are durable and in the index.
    pub(crate) fn land(&self, frames: &[FrameId]) {
        let mut state = self.state.lock();
        for id in frames {
            state.frames.remove(id);
        }
        self.landed.notify_all();
    }

    /// Leaves only the frames that are still under way.
    pub(crate) fn retain(&self, frames: &mut BTreeSet<FrameId>) {
        let state = self.state.lock();
        frames.retain(|id| state.frames.contains(id));
    }

    /// Waits until these frames have landed; ends with the error of `check`, which is asked now and then.
    pub(crate) fn wait(&self, frames: &BTreeSet<FrameId>, check: &dyn Fn() -> Result<()>) -> Result<()> {
        let mut state = self.state.lock();
        while frames.iter().any(|id| state.frames.contains(id)) {
            self.landed.wait_for(&mut state, LOOK);
            check()?;
        }
        Ok(())
    }
}

/// Which frames have come to the packer: all with a number below some, and a few beyond.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    below: u64,
    beyond: BTreeSet<u64>,
}

impl Arrived {
    /// Notes that a frame has come.
    pub(crate) fn insert(&mut self, frame: FrameId) {
        self.beyond.insert(frame.0);
        while self.beyond.remove(&self.below) {
            self.below += 1;
        }
    }

    /// Returns true if the frame has come.
    pub(crate) fn has(&self, frame: FrameId) -> bool {
        frame.0 < self.below || self.beyond.contains(&frame.0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::error::Error;

    #[test]
    fn who_waits_goes_on_when_all_frames_have_landed_or_the_run_has_failed() {
        let (flights, is_over) = (Flights::default(), AtomicBool::new(false));
        let check = || match is_over.load(Ordering::Acquire) {
            true => Err(Error::Stopped),
            false => Ok(()),
        };
        let (one, two) = (flights.begin(), flights.begin());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| flights.wait(&[one, two].into(), &check));
            flights.land(&[two]);
            assert!(!waiting.is_finished());
            flights.land(&[one]);
            waiting.join().unwrap().unwrap();
        });
        let three = flights.begin();
        let mut left = BTreeSet::from([one, three]);
        flights.retain(&mut left);
        assert_eq!(left, [three].into());
        is_over.store(true, Ordering::Release);
        assert!(matches!(flights.wait(&left, &check), Err(Error::Stopped)));
        flights.wait(&BTreeSet::new(), &check).unwrap();
    }

    #[test]
    fn frames_that_came_out_of_order_are_known() {
        let mut arrived = Arrived::default();
        for number in [2, 0, 4, 1] {
            arrived.insert(FrameId(number));
        }
        let has = |number| arrived.has(FrameId(number));
        assert_eq!([0, 1, 2, 3, 4, 5].map(has), [true, true, true, false, true, false]);
        assert_eq!((arrived.below, arrived.beyond.len()), (3, 1));
    }
}
