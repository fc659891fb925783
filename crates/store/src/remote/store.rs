//! What the store of a place over a network can do beyond others: look whether the place is there, and make it.
//!
//! - An object counts as missing only where the place itself is there.

use async_trait::async_trait;

use crate::{Error, Result, Store};

/// The store of a place over a network, which may turn out not to exist, or to need making.
#[async_trait]
pub(crate) trait RemoteStore: Store {
    /// [`Error::NoPlace`] if it does not exist; other errors if it does not answer or denies access.
    async fn check(&self) -> Result<()>;

    /// Makes it if it is a directory, and makes sure that nothing foreign is in it.
    async fn make(&self) -> Result<()>;

    /// Requests that may be in flight at once.
    fn requests(&self) -> usize;

    /// An object is missing, unless it is the whole place that is.
    async fn missing(&self, error: Error) -> Error {
        match error {
            Error::NotFound { .. } => self.check().await.err().unwrap_or(error),
            error => error,
        }
    }
}
