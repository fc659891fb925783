//! Work that would hold up the runtime.
//!
//! - It runs on the threads that tokio has for such, so callers need a tokio runtime.

use crate::{Error, Result};

/// What errors name, where no object is meant.
const WHOLE: &str = "its directory";

/// Runs work that blocks or takes long on one of tokio's threads for such.
pub(crate) async fn blocking<T: Send + 'static>(place: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => Ok(outcome),
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Unavailable {
                name: WHOLE.to_string(),
                place: place.to_string(),
                reason: "the program is ending".to_string(),
            }),
        },
    }
}
