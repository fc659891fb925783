//! Real servers on loopback for tests: S3 (moto), OpenStack Swift, OpenSSH's sftp, WebDAV (wsgidav).
//!
//! - Each has a free port and a directory of its own, and is killed when it is dropped or the test process ends in whatever way.
//! - What is not installed is an error text that says how to install it: a test leaves itself out loudly, or fails if `CI=true`.
//! - The servers run in `tests/servers/serve.py`, with the Python that `./test` prepares.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tempfile::TempDir;

/// What `./test` installs.
const ADVICE: &str = "run ./test, which installs what its tests need";

/// A server that runs until it is dropped.
#[derive(Debug)]
struct Server {
    directory: TempDir,
    port: u16,
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Server {
    fn start(kind: &str, options: &[&str]) -> Result<Self, String> {
        let failed = |error: io::Error| format!("{kind}: {error}; {ADVICE}");
        let directory = tempfile::Builder::new()
            .prefix("drystone-server-")
            .tempdir_in(if Path::new("/dev/shm").is_dir() && kind != "swift" {
                "/dev/shm"
            } else {
                "/var/tmp"
            })
            .map_err(failed)?;
        let port = free_port().map_err(failed)?;
        let mut child = Command::new(python())
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/serve.py"))
            .arg(kind)
            .arg(directory.path())
            .arg(port.to_string())
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (commands, answers) = (child.stdin.take(), child.stdout.take());
        let answers = BufReader::new(answers.ok_or_else(|| format!("{kind}: no answers"))?);
        let mut server = Self {
            directory,
            port,
            child,
            commands,
            answers,
        };
        server
            .tell("start", "ready")
            .map_err(|error| format!("{kind}: {error}; {ADVICE}"))?;
        Ok(server)
    }

    /// Sends a command and waits until it is done.
    fn tell(&mut self, command: &str, done: &str) -> Result<(), String> {
        let mut answer = String::new();
        let mut send = || {
            if let Some(commands) = &mut self.commands {
                writeln!(commands, "{command}")?;
            }
            self.answers.read_line(&mut answer)
        };
        match send() {
            Ok(_) if answer.trim() == done => Ok(()),
            Ok(_) => Err(answer.trim().to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The end of its input is what makes it kill its servers and clean up.
        self.commands = None;
        let _ = self.child.wait();
    }
}

/// A port that is free now.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The Python that `./test` prepares, or the system's.
fn python() -> PathBuf {
    let prepared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/python/bin/python3");
    if prepared.exists() {
        prepared
    } else {
        PathBuf::from("python3")
    }
}

macro_rules! server {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            server: Server,
        }

        impl $name {
            /// Starts one; the error says what is not installed.
            pub fn start() -> Result<Self, String> {
                Ok(Self { server: Server::start($kind, &[])? })
            }

            /// Its port on 127.0.0.1.
            pub fn port(&self) -> u16 {
                self.server.port
            }

            /// Kills it; what it keeps on disk stays.
            pub fn stop(&mut self) -> Result<(), String> {
                self.server.tell("stop", "stopped")
            }

            /// Starts it again on the same port.
            pub fn start_again(&mut self) -> Result<(), String> {
                self.server.tell("start", "ready")
            }
        }
    };
}

server!(
    /// An S3 server with the bucket `bucket`. It checks no signature and keeps everything in memory.
    S3,
    "s3"
);
server!(
    /// OpenStack Swift with one replica and TempAuth, and the container `container`. Takes some seconds to start.
    Swift,
    "swift"
);
server!(
    /// OpenSSH's sftp server, with keys of its own.
    Sftp,
    "sftp"
);
server!(
    /// A WebDAV server.
    WebDav,
    "webdav"
);

impl S3 {
    /// The URL of the place `prefix` in its bucket.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://bucket/{prefix}?endpoint=http://127.0.0.1:{}", self.port())
    }

    /// What a place needs to be opened.
    pub fn credentials(&self) -> impl Fn(&str) -> Option<String> + Send + Sync + use<> {
        lookup(&[("AWS_ACCESS_KEY_ID", "someone"), ("AWS_SECRET_ACCESS_KEY", "something")])
    }
}

impl Swift {
    /// Starts one whose tokens live for so many seconds.
    pub fn with_token_life(seconds: u32) -> Result<Self, String> {
        let server = Server::start("swift", &[&format!("token_life={seconds}")])?;
        Ok(Self { server })
    }

    /// The address of its TempAuth login.
    pub fn auth_url(&self) -> String {
        format!("http://127.0.0.1:{}/auth/v1.0", self.port())
    }

    /// The URL of the place `prefix` in its container.
    pub fn url(&self, prefix: &str) -> String {
        format!("swift://container/{prefix}?endpoint={}", self.auth_url())
    }

    /// What a place needs to be opened.
    pub fn credentials(&self) -> impl Fn(&str) -> Option<String> + Send + Sync + use<> {
        lookup(&[("ST_USER", "test:tester"), ("ST_KEY", "testing")])
    }
}

impl Sftp {
    /// The directory that holds `name`, as the server's user sees it.
    pub fn files(&self) -> PathBuf {
        self.server.path("files")
    }

    /// The URL of the directory `path` below its files.
    pub fn url(&self, path: &str) -> String {
        self.url_with("key", path)
    }

    /// The URL of the directory `path`, with a key that the server does not know.
    pub fn url_with_wrong_key(&self, path: &str) -> String {
        self.url_with("other-key", path)
    }

    fn url_with(&self, key: &str, path: &str) -> String {
        let (port, files) = (self.port(), self.files());
        let (key, hosts) = (self.server.path(key), self.server.path("known-hosts"));
        format!(
            "sftp://127.0.0.1:{port}{}/{path}?key={}&known_hosts={}",
            files.display(),
            key.display(),
            hosts.display()
        )
    }

    /// What a place needs to be opened: nothing, since the key is named in the URL.
    pub fn credentials(&self) -> impl Fn(&str) -> Option<String> + Send + Sync + use<> {
        lookup(&[])
    }
}

impl WebDav {
    /// The directory that it serves.
    pub fn files(&self) -> PathBuf {
        self.server.path("files")
    }

    /// The URL of the directory `path`.
    pub fn url(&self, path: &str) -> String {
        format!("webdav://127.0.0.1:{}/{path}", self.port())
    }

    /// What a place needs to be opened.
    pub fn credentials(&self) -> impl Fn(&str) -> Option<String> + Send + Sync + use<> {
        lookup(&[
            ("DRYSTONE_WEBDAV_USER", "tester"),
            ("DRYSTONE_WEBDAV_PASSWORD", "testing"),
        ])
    }
}

/// Credentials of these names.
fn lookup(known: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<String> + Send + Sync + use<> {
    |name| {
        let found = known.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_string())
    }
}
