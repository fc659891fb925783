//! What is known of each service beyond what OpenDAL says about it.
//!
//! - What is not known is assumed to the user's safety: no service that shows half an object is passed on as it is.

use std::time::Duration;

/// Largest upload in one piece: the limit of S3 and of Swift, bytes.
const UPLOAD_MAX_BYTES: u64 = 5 << 30;
/// Swift updates its listings behind a put when it is busy; an hour is what its operators call a bad day.
const SWIFT_STALE: Duration = Duration::from_secs(60 * 60);

/// What is known of a service beyond what OpenDAL says about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Service {
    /// An upload becomes the object when it is complete; otherwise it must be renamed.
    pub(crate) whole_puts: bool,
    /// Objects lie in directories that must exist, the place itself being one.
    pub(crate) directories: bool,
    /// What the service acknowledges survives a power cut.
    pub(crate) durable: bool,
    /// How old its listings may be.
    pub(crate) stale_list: Option<Duration>,
    /// Largest object of one upload, bytes.
    pub(crate) max_object_bytes: Option<u64>,
    /// What to do when access is denied.
    pub(crate) denied: &'static str,
    /// What to do when the bucket or directory is missing.
    pub(crate) missing: &'static str,
}

pub(crate) const S3: Service = Service {
    whole_puts: true,
    directories: false,
    durable: true,
    stale_list: None,
    max_object_bytes: Some(UPLOAD_MAX_BYTES),
    denied: "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), and what they may do in the bucket",
    missing: "there is no such bucket; check its name, region and endpoint, or make it, for example with `aws s3 mb`",
};
pub(crate) const SWIFT: Service = Service {
    stale_list: Some(SWIFT_STALE),
    denied: "check ST_AUTH, ST_USER and ST_KEY, or OS_AUTH_URL, OS_USERNAME, OS_PASSWORD and OS_PROJECT_NAME",
    missing: "there is no such container; check its name, or make it, for example with `swift post`",
    ..S3
};
pub(crate) const WEBDAV: Service = Service {
    whole_puts: false,
    directories: true,
    durable: false,
    stale_list: None,
    max_object_bytes: None,
    denied: "check DRYSTONE_WEBDAV_USER and DRYSTONE_WEBDAV_PASSWORD, and what this user may do there",
    missing: "no such directory on the server; check the URL, or create a vault there with `drystone init`",
};
pub(crate) const OTHER: Service = Service {
    whole_puts: true,
    directories: false,
    durable: true,
    stale_list: None,
    max_object_bytes: None,
    denied: "check the options of the URL and the variables that they name",
    missing: "there is no such bucket or container; check the URL",
};
