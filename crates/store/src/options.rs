//! What opening a place needs to know beside its URL.
//!
//! - Credentials are looked up by the caller: this crate reads no environment.

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::Stop;
use crate::decorators::retry::Policy;

/// What opening a place needs to know beside its URL.
#[derive(Clone)]
pub struct OpenOptions<'a> {
    /// Looks up a credential by its usual name, such as `AWS_SECRET_ACCESS_KEY`: from the environment, a profile, a keyring.
    pub credentials: &'a (dyn Fn(&str) -> Option<String> + Sync),
    /// How often and how soon requests over a network are repeated. Its seed must be another at each
    /// opening, on every machine: temporary names are made from it.
    pub retry: Policy,
    /// Ends every call to a place over a network soon after it was asked.
    pub stop: Stop,
    /// Variables of the environment that hold secrets: no program that is started to reach a place gets them.
    pub hidden: Arc<[OsString]>,
}

impl<'a> OpenOptions<'a> {
    /// Six calls within about half a minute.
    pub fn new(credentials: &'a (dyn Fn(&str) -> Option<String> + Sync), seed: u64) -> Self {
        let retry = Policy {
            attempts: 6,
            first_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(15),
            seed,
        };
        let stop = Stop::default();
        Self {
            credentials,
            retry,
            stop,
            hidden: Arc::default(),
        }
    }
}

impl fmt::Debug for OpenOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenOptions")
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}
