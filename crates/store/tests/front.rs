//! A front before a server that counts requests and cuts connections, for tests of what goes over the wire.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// Passes connections on to a server on loopback, until it is dropped.
pub(crate) struct Front {
    port: u16,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    server: u16,
    /// HTTP requests passed on.
    requests: AtomicU64,
    /// Bytes of requests still passed on before all connections are cut.
    left: AtomicU64,
    is_over: AtomicBool,
}

impl Front {
    /// Begins to pass on everything.
    pub(crate) fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            server,
            requests: AtomicU64::new(0),
            left: AtomicU64::new(u64::MAX),
            is_over: AtomicBool::new(false),
        });
        let inner = Arc::clone(&shared);
        let accepting = std::thread::spawn(move || {
            for client in listener.incoming() {
                if inner.is_over.load(Ordering::SeqCst) {
                    return;
                }
                if let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", inner.server))) {
                    pass_on(&inner, client, server);
                }
            }
        });
        Self {
            port,
            shared,
            accepting: Some(accepting),
        }
    }

    /// `url`, which names the server's port, with the front's instead.
    pub(crate) fn url(&self, url: &str) -> String {
        let server = format!("127.0.0.1:{}", self.shared.server);
        assert!(url.contains(&server), "{url}");
        url.replace(&server, &format!("127.0.0.1:{}", self.port))
    }

    /// HTTP requests since the last call.
    pub(crate) fn take_requests(&self) -> u64 {
        self.shared.requests.swap(0, Ordering::SeqCst)
    }

    /// Cuts connections after so many more bytes of requests.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.shared.left.store(bytes, Ordering::SeqCst);
    }

    /// Cuts no more.
    pub(crate) fn mend(&self) {
        self.cut_after(u64::MAX);
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// Copies both ways on threads that end with their connection.
fn pass_on(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) {
    let (mut answers, mut asker) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut answers, &mut asker);
        let _ = asker.shutdown(Shutdown::Both);
    });
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        let (mut client, mut server) = (client, server);
        let mut buffer = vec![0; 16 << 10];
        while let Ok(len @ 1..) = client.read(&mut buffer) {
            let mark = b" HTTP/1.1\r\n";
            let read = buffer.get(..len).unwrap_or_default();
            let requests = read.windows(mark.len()).filter(|window| window == mark).count();
            shared.requests.fetch_add(requests as u64, Ordering::SeqCst);
            let left = shared.left.load(Ordering::SeqCst);
            let passed = len.min(usize::try_from(left).unwrap_or(usize::MAX));
            if left != u64::MAX {
                shared.left.fetch_sub(passed as u64, Ordering::SeqCst);
            }
            if server.write_all(read.get(..passed).unwrap_or_default()).is_err() || passed < len {
                break;
            }
        }
        let _ = (server.shutdown(Shutdown::Both), client.shutdown(Shutdown::Both));
    });
}
