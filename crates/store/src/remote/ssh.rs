//! The connection that `ssh` makes to an SFTP server, and what its failures mean.
//!
//! - One connection serves all requests; one that breaks is replaced by the next request.
//! - No request waits longer than a minute, and `ssh` never asks anything.
//! - `ssh` gets none of the variables that the caller named as secrets.

use std::ffi::OsString;
use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use openssh_sftp_client::error::{Error as SftpError, SftpErrorKind};
use openssh_sftp_client::{Sftp as Client, SftpOptions};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::remote::frames::Frames;
use crate::remote::limits::{ANSWER_LIMIT, CONNECT_LIMIT, IDLE_LIMIT};
use crate::remote::url::PlaceUrl;
use crate::{Error, Result};

/// What an error names when the place as a whole is meant.
pub(crate) const WHOLE: &str = "the place";
/// Most bytes of what `ssh` says that are shown.
const REASON_MAX_BYTES: u64 = 1 << 10;
/// Time that it may take to say it.
const REASON_LIMIT: Duration = Duration::from_secs(1);
/// What to look at when the server refuses a request.
const DENIED: &str = "check the user, and the owner of the directory";
/// What `ssh` says when a login is refused, and what to look at then.
const REFUSED: [(&str, &str); 4] = [
    (
        "Host key verification failed",
        "the server's host key is not known, or is another than the known one. If it is new: connect once with ssh, or add \
         ?known_hosts=add. If it has changed: find out why first",
    ),
    (
        "UNPROTECTED PRIVATE KEY",
        "others may read the private key file: chmod 600 it",
    ),
    (
        "Too many authentication failures",
        "the agent offered too many keys: name the right one with ?key=FILE or in ~/.ssh/config",
    ),
    (
        "Permission denied",
        "check user and key (?key=FILE, the agent or ~/.ssh/config)",
    ),
];

/// The outcome of a request.
pub(crate) type Outcome<T> = std::result::Result<T, SftpError>;

/// The way to one server.
#[derive(Debug)]
pub(crate) struct Ssh {
    /// The URL of the place, for host, user and options.
    pub(crate) url: PlaceUrl,
    /// Variables of the environment that `ssh` does not get.
    hidden: Arc<[OsString]>,
    connection: Mutex<Option<Arc<Connection>>>,
}

#[derive(Debug)]
struct Connection {
    client: Client,
    // Killed when the connection is dropped.
    _ssh: Child,
}

/// Waits for one request, but not for ever.
pub(crate) async fn limited<T>(request: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    within(ANSWER_LIMIT, request).await
}

/// The same for data, many pieces of which share a line that may be slow.
pub(crate) async fn limited_data<T>(request: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    within(IDLE_LIMIT, request).await
}

async fn within<T>(limit: Duration, request: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let stalled = || {
        let what = format!("no answer for {} seconds", limit.as_secs());
        SftpError::IOError(io::Error::new(io::ErrorKind::TimedOut, what))
    };
    timeout(limit, request).await.unwrap_or_else(|_| Err(stalled()))
}

/// Whether the server answered that the request failed for a reason that the protocol has no word for.
fn is_failure(error: &SftpError) -> bool {
    matches!(
        error,
        SftpError::SftpError(SftpErrorKind::Failure | SftpErrorKind::OpUnsupported, _)
    )
}

impl Ssh {
    /// Nothing is sent before the first request.
    pub(crate) fn new(url: PlaceUrl, hidden: Arc<[OsString]>) -> Self {
        Self {
            url,
            hidden,
            connection: Mutex::default(),
        }
    }

    fn command(&self) -> Command {
        let mut ssh = Command::new("ssh");
        let limit = CONNECT_LIMIT.as_secs();
        ssh.args([
            "-s",
            "-x",
            "-a",
            "-T",
            "-oBatchMode=yes",
            "-oServerAliveInterval=15",
            "-oServerAliveCountMax=4",
        ])
        .args(["-oControlMaster=no", "-oControlPath=none", "-oClearAllForwardings=yes"])
        .arg(format!("-oConnectTimeout={limit}"));
        if let Some(port) = self.url.port {
            ssh.arg("-p").arg(port.to_string());
        }
        if let Some(user) = &self.url.user {
            ssh.arg("-l").arg(user);
        }
        if let Some(key) = self.url.option("key") {
            ssh.arg("-oIdentitiesOnly=yes").arg("-i").arg(key);
        }
        match self.url.option("known_hosts").as_deref() {
            None => ssh.arg("-oStrictHostKeyChecking=yes"),
            Some("add") => ssh.arg("-oStrictHostKeyChecking=accept-new"),
            Some(file) => ssh
                .arg("-oStrictHostKeyChecking=yes")
                .arg(format!("-oUserKnownHostsFile={file}")),
        };
        ssh.arg("--").arg(&self.url.host).arg("sftp");
        for name in self.hidden.iter() {
            ssh.env_remove(name);
        }
        ssh.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            // A signal from the terminal is for the program, which may still have something to store.
            .process_group(0);
        ssh
    }

    /// The connection, a new one if there is none.
    async fn connect(&self) -> Result<Arc<Connection>> {
        let mut present = self.connection.lock().await;
        if let Some(connection) = &*present {
            return Ok(Arc::clone(connection));
        }
        let fresh = Arc::new(self.connect_anew().await?);
        *present = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    async fn connect_anew(&self) -> Result<Connection> {
        let failed = |source| Error::Io {
            name: "`ssh` (package openssh-client)".to_string(),
            place: self.url.text.clone(),
            during: "starting",
            source,
        };
        let mut ssh = self.command().spawn().map_err(failed)?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (ssh.stdin.take(), ssh.stdout.take(), ssh.stderr.take()) else {
            return Err(failed(io::Error::other("no pipes")));
        };
        // ConnectTimeout covers the line only, so a server that says nothing is waited for here.
        let stdout = Frames::new(stdout);
        let greeting = timeout(
            CONNECT_LIMIT + Duration::from_secs(2),
            Client::new(stdin, stdout, SftpOptions::new()),
        );
        if let Ok(Ok(client)) = greeting.await {
            return Ok(Connection { client, _ssh: ssh });
        }
        let mut said = Vec::new();
        let mut listening = stderr.take(REASON_MAX_BYTES);
        let _ = timeout(REASON_LIMIT, listening.read_to_end(&mut said)).await;
        Err(self.not_connected(&String::from_utf8_lossy(&said)))
    }

    /// Sorts what `ssh` said before it gave up.
    fn not_connected(&self, said: &str) -> Error {
        let place = self.url.text.clone();
        if let Some((_, advice)) = REFUSED.iter().find(|(words, _)| said.contains(words)) {
            return self.denied(WHOLE, "logging in to", advice);
        }
        let name = WHOLE.to_string();
        match said.trim() {
            "" => {
                let reason = "ssh gives no answer".to_string();
                Error::Silent { name, place, reason }
            }
            said => {
                let reason = said.lines().collect::<Vec<_>>().join("; ");
                Error::Unavailable { name, place, reason }
            }
        }
    }

    fn denied(&self, name: &str, during: &'static str, advice: &'static str) -> Error {
        Error::Denied {
            name: name.to_string(),
            place: self.url.text.clone(),
            during,
            advice,
        }
    }

    /// Sorts an error by what the caller does about it; a connection that it broke is given up.
    async fn error(&self, connection: &Arc<Connection>, name: &str, during: &'static str, error: SftpError) -> Error {
        let (name, place) = (name.to_string(), self.url.text.clone());
        match error {
            SftpError::SftpError(SftpErrorKind::NoSuchFile, _) => Error::NotFound { name, place },
            SftpError::SftpError(SftpErrorKind::PermDenied, _) => self.denied(&name, during, DENIED),
            error if is_failure(&error) => {
                let source = io::Error::other(error.to_string());
                Error::Io {
                    name,
                    place,
                    during,
                    source,
                }
            }
            error => {
                let mut present = self.connection.lock().await;
                if present.as_ref().is_some_and(|present| Arc::ptr_eq(present, connection)) {
                    *present = None;
                }
                let reason = format!("{during}: {error}");
                match error {
                    SftpError::IOError(error) if error.kind() == io::ErrorKind::TimedOut => {
                        Error::Silent { name, place, reason }
                    }
                    _ => Error::Unavailable { name, place, reason },
                }
            }
        }
    }

    /// Runs one operation on the connection.
    pub(crate) async fn run<T>(
        &self,
        name: &str,
        during: &'static str,
        work: impl AsyncFnOnce(&Client) -> Outcome<T>,
    ) -> Result<T> {
        let connection = self.connect().await?;
        match work(&connection.client).await {
            Ok(done) => Ok(done),
            Err(error) => Err(self.error(&connection, name, during, error).await),
        }
    }
}
