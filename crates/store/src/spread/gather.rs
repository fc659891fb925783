//! Asks several places for the same thing until enough have answered.
//!
//! - Begins with as many as are needed; one more is asked for each failure, and when an answer takes too long.
//! - What is not needed any more is cancelled, and so are stragglers once the others have done enough.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::place::{Failure, KnownPlace};

/// What several places were asked for, or why none could help.
pub(super) type Asked<T> = Result<T, Vec<Failure>>;

/// Something that can be asked for.
pub(super) struct Attempt<T> {
    /// Whom it makes wait, if it is one place.
    place: Option<Arc<KnownPlace>>,
    /// The question.
    run: Pin<Box<dyn Future<Output = Asked<T>> + Send>>,
}

impl<T> Attempt<T> {
    pub(super) fn new(place: Option<&Arc<KnownPlace>>, run: impl Future<Output = Asked<T>> + Send + 'static) -> Self {
        Self {
            place: place.cloned(),
            run: Box::pin(run),
        }
    }
}

/// What came of attempts.
#[derive(Debug)]
pub(super) struct Gathered<T> {
    /// The answers, at most as many as were asked for, in the order in which they came.
    pub(super) good: Vec<T>,
    /// The failures on the way.
    pub(super) failed: Vec<Failure>,
}

/// The value of a task, with its panic passed on; `None` if the program is ending.
pub(super) fn joined<T>(outcome: Result<T, JoinError>) -> Option<T> {
    match outcome {
        Ok(value) => Some(value),
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => None,
        },
    }
}

/// Attempts that were begun and those that wait.
struct Race<T> {
    waiting: std::vec::IntoIter<Attempt<T>>,
    /// Whom each one begun makes wait; `None` once it has ended or was noted as slow.
    asked: Vec<Option<Arc<KnownPlace>>>,
    running: JoinSet<(usize, Asked<T>)>,
}

impl<T: Send + 'static> Race<T> {
    fn begin(&mut self) {
        if let Some(attempt) = self.waiting.next() {
            let number = self.asked.len();
            self.asked.push(attempt.place);
            self.running.spawn(async move { (number, attempt.run.await) });
        }
    }

    fn note_slow(&mut self) {
        for place in self.asked.iter_mut().filter_map(Option::take) {
            place.note_slow();
        }
    }
}

/// Makes attempts, in this order, until `count` have succeeded or all have ended.
pub(super) async fn gather<T: Send + 'static>(
    count: usize,
    attempts: Vec<Attempt<T>>,
    hedge_after: Duration,
) -> Gathered<T> {
    let (mut good, mut failed) = (Vec::new(), Vec::new());
    let mut race = Race {
        waiting: attempts.into_iter(),
        asked: Vec::new(),
        running: JoinSet::new(),
    };
    for _ in 0..count {
        race.begin();
    }
    while good.len() < count {
        let Ok(ended) = tokio::time::timeout(hedge_after, race.running.join_next()).await else {
            race.note_slow();
            race.begin();
            continue;
        };
        let Some((number, outcome)) = ended.and_then(joined) else {
            break;
        };
        if let Some(asked) = race.asked.get_mut(number) {
            *asked = None;
        }
        match outcome {
            Ok(answer) => good.push(answer),
            Err(failures) => {
                failed.extend(failures);
                race.begin();
            }
        }
    }
    Gathered { good, failed }
}

/// How many times the time that a hedged read waits for, and the time that the others took, stragglers are waited for.
const STRAGGLERS_HEDGES: u32 = 10;
const STRAGGLERS_SHARE: u32 = 3;

/// Runs everything at once and gives the answers in the order of the questions. Once `is_enough` of them are there, the others
/// are waited for no longer than ten times `hedge_after`, or three times as long as it took so far; those that have not ended by
/// then are cancelled, and `None`.
pub(super) async fn most<T, F>(
    questions: impl IntoIterator<Item = F>,
    is_enough: impl Fn(&[Option<T>]) -> bool,
    hedge_after: Duration,
) -> Vec<Option<T>>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let (mut running, begun) = (JoinSet::new(), Instant::now());
    for (number, question) in questions.into_iter().enumerate() {
        running.spawn(async move { (number, question.await) });
    }
    let mut answers: Vec<Option<T>> = (0..running.len()).map(|_| None).collect();
    let mut end: Option<Instant> = None;
    loop {
        if end.is_none() && is_enough(&answers) {
            let grace = hedge_after
                .saturating_mul(STRAGGLERS_HEDGES)
                .max(begun.elapsed() * STRAGGLERS_SHARE);
            end = Some(Instant::now() + grace);
        }
        let ended = match end {
            None => running.join_next().await,
            Some(end) => match tokio::time::timeout_at(end, running.join_next()).await {
                Ok(ended) => ended,
                Err(_) => return answers,
            },
        };
        let Some((number, answer)) = ended.and_then(joined) else {
            return answers;
        };
        if let Some(place) = answers.get_mut(number) {
            *place = Some(answer);
        }
    }
}

/// Runs everything at once and gives the answers in the order of the questions; `None` if the program is ending: then nothing is
/// known, which is not the same as no answers.
pub(super) async fn all<T, F>(questions: impl IntoIterator<Item = F>) -> Option<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut running = JoinSet::new();
    for (number, question) in questions.into_iter().enumerate() {
        running.spawn(async move { (number, question.await) });
    }
    let mut answers = Vec::new();
    while let Some(ended) = running.join_next().await {
        answers.push(joined(ended)?);
    }
    answers.sort_by_key(|(number, _)| *number);
    Some(answers.into_iter().map(|(_, answer)| answer).collect())
}
