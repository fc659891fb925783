//! Servers that answer without end, trickle, hang, or send a client elsewhere.
//!
//! - What a client has read is counted at the server's end of the socket, so memory is not guessed from time.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use drystone_store::retry::Policy;
use drystone_store::{Error, Name, OpenOptions, Prefix, Range, Store, open};
use parking_lot::Mutex;

/// What a socket may hold beyond what the client has read.
const SOCKET_BYTES: u64 = 24 << 20;
/// What a client reads of one answer at most.
const ANSWER_BYTES: u64 = 64 << 20;

/// One request: its first line, and what came after it.
struct Request {
    line: String,
    head: String,
}

/// A server on loopback whose answers a test makes up. Its threads end with the process.
struct Hostile {
    port: u16,
    sent: Arc<AtomicU64>,
    requests: Arc<Mutex<Vec<String>>>,
}

/// Where an answer goes; it says when the client has gone.
struct Answer<'a> {
    to: &'a mut TcpStream,
    sent: &'a AtomicU64,
}

impl Answer<'_> {
    fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let done = self.to.write_all(bytes.as_ref()).is_ok();
        self.sent.fetch_add(bytes.as_ref().len() as u64, Ordering::SeqCst);
        done
    }

    /// A whole answer.
    fn whole(&mut self, status: &str, headers: &str, body: &str) -> bool {
        let length = body.len();
        self.send(format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        ))
    }

    /// `start`, then `again` for ever.
    fn endless(&mut self, status: &str, start: &str, again: &str) -> bool {
        let block = again.repeat((64 << 10) / again.len() + 1);
        let mut goes_on = self.send(format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n{start}"));
        while goes_on {
            goes_on = self.send(&block);
        }
        false
    }
}

impl Hostile {
    fn start(answer: impl Fn(&Request, &mut Answer<'_>) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            sent: Arc::default(),
            requests: Arc::default(),
        };
        let (sent, requests, answer) = (server.sent.clone(), server.requests.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (sent, requests, answer) = (sent.clone(), requests.clone(), answer.clone());
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(client.try_clone().unwrap());
                    let mut client = client;
                    while let Some(request) = read_request(&mut reader) {
                        requests.lock().push(format!("{}\n{}", request.line, request.head));
                        let mut to = Answer {
                            to: &mut client,
                            sent: &sent,
                        };
                        if !answer(&request, &mut to) {
                            return;
                        }
                    }
                });
            }
        });
        server
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    fn requests(&self) -> usize {
        self.requests.lock().len()
    }
}

fn read_request(from: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    from.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut next = String::new();
        from.read_line(&mut next).ok().filter(|count| *count > 0)?;
        if next == "\r\n" {
            break;
        }
        if let Some(value) = next.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        head += &next;
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    head += &String::from_utf8_lossy(&body);
    Some(Request { line, head })
}

fn credentials(name: &str) -> Option<String> {
    let known = [
        ("AWS_ACCESS_KEY_ID", "someone"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ("ST_USER", "test:tester"),
        ("ST_KEY", "hunter2"),
        ("OS_USERNAME", "someone"),
        ("OS_PASSWORD", "hunter2"),
        ("OS_PROJECT_NAME", "project"),
        ("DRYSTONE_WEBDAV_USER", "someone"),
        ("DRYSTONE_WEBDAV_PASSWORD", "hunter2"),
    ];
    let found = known.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| (*value).to_string())
}

fn options() -> OpenOptions<'static> {
    let mut options = OpenOptions::new(&credentials, 7);
    options.retry = Policy {
        attempts: 1,
        ..options.retry
    };
    options
}

/// The kinds of services, by the URL of a place at a server.
const SERVICES: [&str; 3] = ["webdav", "s3", "swift"];

fn url(service: &str, port: u16) -> String {
    match service {
        "webdav" => format!("webdav://127.0.0.1:{port}/vault"),
        "s3" => format!("s3://bucket/vault?endpoint=http://127.0.0.1:{port}"),
        "keystone" => format!("swift://container/vault?endpoint=http://127.0.0.1:{port}/v3"),
        _ => format!("swift://container/vault?endpoint=http://127.0.0.1:{port}/auth/v1.0"),
    }
}

/// Answers what opening a place asks, and says whether it was that.
fn opens(request: &Request, to: &mut Answer<'_>, port: &str) -> Option<bool> {
    const FOUND: &str = "<?xml version=\"1.0\"?><d:multistatus xmlns:d=\"DAV:\"><d:response><d:href>/vault/</d:href><d:propstat>\
        <d:status>HTTP/1.1 200 OK</d:status><d:prop><d:getlastmodified>Tue, 01 Nov 2022 00:00:00 GMT</d:getlastmodified>\
        <d:resourcetype><d:collection/></d:resourcetype></d:prop></d:propstat></d:response></d:multistatus>";
    if request.line.starts_with("GET /auth/v1.0") {
        let headers = format!("x-storage-url: http://127.0.0.1:{port}/v1/a\r\nx-auth-token: token\r\n");
        return Some(to.whole("200 OK", &headers, ""));
    }
    if request.line.starts_with("PROPFIND") && request.head.to_ascii_lowercase().contains("depth: 0") {
        return Some(to.whole("207 Multi-Status", "content-type: application/xml\r\n", FOUND));
    }
    None
}

/// The port that a request came to.
fn port_of(request: &Request) -> String {
    let host = request
        .head
        .lines()
        .find(|line| line.to_ascii_lowercase().starts_with("host:"));
    host.and_then(|host| host.rsplit(':').next())
        .unwrap_or_default()
        .trim()
        .to_string()
}

/// A place at this server; S3 and Swift look at their listings when they open, so the first is an empty one.
async fn opened(service: &str, server: &Hostile) -> Arc<dyn Store> {
    open(&url(service, server.port), &options()).await.unwrap()
}

const NO_S3: &str = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";

/// A server that opens well, and then answers every listing with `hostile`.
fn lists(hostile: impl Fn(&Request, &mut Answer<'_>) -> bool + Send + Sync + 'static) -> Hostile {
    let seen = AtomicU64::new(0);
    Hostile::start(move |request, to| {
        if let Some(goes_on) = opens(request, to, &port_of(request)) {
            return goes_on;
        }
        // The listing that opening makes.
        let is_list = request.line.contains("list-type=2") || request.line.contains("format=json");
        if is_list && seen.fetch_add(1, Ordering::SeqCst) == 0 {
            let body = if request.line.contains("format=json") {
                "[]"
            } else {
                NO_S3
            };
            return to.whole("200 OK", "", body);
        }
        hostile(request, to)
    })
}

fn assert_endless<T: std::fmt::Debug>(outcome: Result<T, Error>, server: &Hostile, answers: u64) {
    assert!(matches!(outcome, Err(Error::Endless { .. })), "{outcome:?}");
    let (sent, most) = (server.sent(), answers * ANSWER_BYTES + SOCKET_BYTES);
    assert!(sent <= most, "{sent} bytes were read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_without_end_is_given_up_after_its_budget() {
    for service in SERVICES {
        let server = lists(|request, to| {
            if request.line.starts_with("PROPFIND") {
                let again = "<d:response><d:href>/vault/packs/x</d:href></d:response>";
                return to.endless("207 Multi-Status", "<d:multistatus xmlns:d=\"DAV:\">", again);
            }
            if request.line.contains("format=json") {
                return to.endless("200 OK", "[", "{\"name\":\"vault/packs/x\",\"bytes\":1},");
            }
            to.endless(
                "200 OK",
                "<ListBucketResult>",
                "<Contents><Key>vault/packs/x</Key><Size>1</Size></Contents>",
            )
        });
        let store = opened(service, &server).await;
        assert_endless(store.list(&Prefix::Packs, None, 10).await, &server, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_without_end_are_given_up_after_their_budget() {
    for service in ["s3", "swift"] {
        let server = lists(|request, to| {
            if request.line.contains("format=json") {
                let body = "[{\"name\":\"vault/packs/x\",\"bytes\":1,\"hash\":\"x\",\"content_type\":\"x\",\
                    \"last_modified\":\"2022-01-01T00:00:00.000000\"}]";
                return to.whole("200 OK", "", body);
            }
            let body = "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>again</NextContinuationToken>\
                </ListBucketResult>";
            to.whole("200 OK", "", body)
        });
        let store = opened(service, &server).await;
        let outcome = store.list(&Prefix::Packs, None, 10).await;
        assert!(matches!(outcome, Err(Error::Endless { .. })), "{service}: {outcome:?}");
        assert!(server.requests() < 1100, "{service}: {} requests", server.requests());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_text_of_a_refusal_has_an_end_too() {
    for (service, status) in SERVICES
        .iter()
        .flat_map(|service| [(service, "404 Not Found"), (service, "500 Sorry")])
    {
        let server = lists(move |_, to| to.endless(status, "", "no "));
        let store = opened(service, &server).await;
        let name = Name::header();
        for outcome in [
            store.get(&name, Range::All).await.map(drop),
            store.put(&name, "x".into()).await.map(drop),
            store.delete(&name).await,
        ] {
            let Err(error) = outcome else { continue };
            assert!(error.to_string().len() < 4000, "{error}");
        }
        let sent = server.sent();
        assert!(
            sent < 8 * (ANSWER_BYTES + SOCKET_BYTES),
            "{service} {status}: {sent} bytes were read"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_and_a_login_without_end_are_given_up() {
    for service in SERVICES {
        let server = lists(|_, to| to.endless("200 OK", "", "x"));
        let store = opened(service, &server).await;
        let name = Name::header();
        let outcome = store.get(&name, Range::All).await;
        assert!(outcome.is_err(), "{outcome:?}");
        assert!(
            server.sent() < 2 * name.max_bytes() + SOCKET_BYTES,
            "{service}: {}",
            server.sent()
        );
    }
    let server = Hostile::start(|_, to| {
        let head =
            "HTTP/1.1 201 Created\r\nx-subject-token: token\r\nconnection: close\r\n\r\n{\"token\":{\"catalog\":[";
        let mut goes_on = to.send(head);
        while goes_on {
            goes_on = to.send("{\"type\":\"object-store\",\"endpoints\":[]},".repeat(1000));
        }
        false
    });
    assert_endless(open(&url("keystone", server.port), &options()).await, &server, 1);
    let server = Hostile::start(|_, to| {
        let mut goes_on = to.send("HTTP/1.1 200 OK\r\n");
        while goes_on {
            goes_on = to.send("x-again: and again and again\r\n".repeat(1000));
        }
        false
    });
    assert!(open(&url("swift", server.port), &options()).await.is_err());
    assert!(
        server.sent() < SOCKET_BYTES,
        "{} bytes of headers were read",
        server.sent()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_that_holds_a_trick_for_the_terminal_is_one_line() {
    let server = lists(|_, to| to.whole("403 No", "", "one\r\ntwo \u{1b}]0;title\u{7}"));
    let store = opened("webdav", &server).await;
    let error = store.get(&Name::header(), Range::All).await.unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
}

/// Opens and uses a place that answers everything with a redirect to another server; nothing may arrive there.
async fn stays_away(service: &str, status: &'static str, first: impl Fn(&Request) -> bool + Send + Sync + 'static) {
    let other = Hostile::start(|_, to| {
        to.whole(
            "200 OK",
            "x-storage-url: http://127.0.0.1:1/\r\nx-auth-token: t\r\n",
            "",
        )
    });
    let target = format!("location: http://127.0.0.1:{}/elsewhere\r\n", other.port);
    let server = Hostile::start(move |request, to| match first(request) {
        true => to.whole(status, &target, ""),
        false => opens(request, to, &port_of(request)).unwrap_or_else(|| to.whole("404 Not Found", "", "")),
    });
    let mut errors = Vec::new();
    match open(&url(service, server.port), &options()).await {
        Err(error) => errors.push(error),
        Ok(store) => {
            let name = Name::header();
            errors.extend(store.get(&name, Range::All).await.err());
            errors.extend(store.put(&name, "x".into()).await.err());
            errors.extend(store.list(&Prefix::Packs, None, 10).await.err());
        }
    }
    let arrived = other.requests.lock().clone();
    assert!(arrived.is_empty(), "{service} {status}: {arrived:?}");
    assert!(server.requests() > 0);
    let told = errors
        .iter()
        .any(|error| error.to_string().contains("127.0.0.1; nothing was sent there"));
    assert!(told, "{service} {status}: {errors:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_redirect_carries_a_credential_elsewhere() {
    for status in [
        "301 Moved",
        "302 Found",
        "303 See Other",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        for service in ["swift", "keystone", "webdav", "s3"] {
            stays_away(service, status, |_| true).await;
        }
        // The storage that a good login named sends the token on.
        stays_away("swift", status, |request| !request.line.starts_with("GET /auth")).await;
    }
}
