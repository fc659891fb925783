//! Places on real servers: the conformance suite, refusals, servers that go away, and what a cut upload leaves.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use drystone_store::conformance::suite;
use drystone_store::retry::Policy;
use drystone_store::testing::servers::{S3, Sftp, Swift, WebDav};
use drystone_store::{Error, Name, OpenOptions, Prefix, Put, Range, Store, create, open};

use crate::front::Front;
use crate::pack;

/// No call is repeated: what goes wrong shows.
const ONCE: Policy = Policy {
    attempts: 1,
    first_delay: Duration::ZERO,
    max_delay: Duration::ZERO,
    seed: 0,
};

/// The server, or nothing after saying so aloud; a failure where nothing may be left out.
fn need<T>(started: std::result::Result<T, String>) -> Option<T> {
    match started {
        Ok(server) => Some(server),
        Err(missing) => {
            let is_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
            assert!(!is_ci, "{missing}");
            eprintln!("LEFT OUT: a test with a real server: {missing}");
            None
        }
    }
}

/// The one Swift of these tests, since it takes seconds to start.
fn swift() -> Option<&'static Swift> {
    static SWIFT: OnceLock<Option<Swift>> = OnceLock::new();
    SWIFT.get_or_init(|| need(Swift::start())).as_ref()
}

type Lookup<'a> = &'a (dyn Fn(&str) -> Option<String> + Sync);

fn options(credentials: Lookup<'_>) -> OpenOptions<'_> {
    static SEED: AtomicU32 = AtomicU32::new(1);
    let seed = SEED.fetch_add(1, Ordering::Relaxed).into();
    OpenOptions {
        retry: Policy { seed, ..ONCE },
        ..OpenOptions::new(credentials, seed)
    }
}

/// Waits for a future on a thread of the runtime.
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future))
}

/// With retries: moto and wsgidav answer 500 to some of the requests that race for one name.
async fn conforms(url: impl Fn(&str) -> String, credentials: Lookup<'_>) {
    let count = AtomicU32::new(0);
    suite(|| {
        let place = format!("a b/vault-{}", count.fetch_add(1, Ordering::Relaxed));
        let mut options = options(credentials);
        options.retry.attempts = 8;
        options.retry.first_delay = Duration::from_millis(10);
        options.retry.max_delay = Duration::from_millis(100);
        wait(create(&url(&place.replace(' ', "%20")), &options)).unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s3_conforms() {
    let Some(server) = need(S3::start()) else { return };
    conforms(|place| server.url(place), &server.credentials()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn swift_conforms() {
    let Some(server) = swift() else { return };
    conforms(|place| server.url(place), &server.credentials()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sftp_conforms() {
    let Some(server) = need(Sftp::start()) else { return };
    conforms(|place| server.url(place), &server.credentials()).await;
    for vault in std::fs::read_dir(server.files().join("a b")).unwrap() {
        let left = std::fs::read_dir(vault.unwrap().path().join("tmp")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "temporary files are left");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn webdav_conforms() {
    let Some(server) = need(WebDav::start()) else { return };
    conforms(|place| server.url(place), &server.credentials()).await;
    for vault in std::fs::read_dir(server.files().join("a b")).unwrap() {
        let left = std::fs::read_dir(vault.unwrap().path().join("tmp")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "temporary files are left");
    }
}

/// A lookup that has one credential wrong.
fn wrong<'a>(inner: Lookup<'a>, name: &'static str) -> impl Fn(&str) -> Option<String> + Sync + 'a {
    move |asked| match asked == name {
        true => Some("wrong-secret".to_string()),
        false => inner(asked),
    }
}

/// Opening is denied, with a text that says what to set.
async fn is_denied(url: &str, credentials: Lookup<'_>, advice: &str) {
    let error = open(url, &options(credentials)).await.unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    assert!(error.to_string().contains(advice), "{error}");
    assert!(!format!("{error} {error:?}").contains("wrong-secret"), "{error}");
}

#[tokio::test]
async fn wrong_credentials_are_denied() {
    if let Some(server) = swift() {
        is_denied(&server.url("x"), &wrong(&server.credentials(), "ST_KEY"), "ST_KEY").await;
    }
    if let Some(server) = need(WebDav::start()) {
        let name = "DRYSTONE_WEBDAV_PASSWORD";
        is_denied(&server.url(""), &wrong(&server.credentials(), name), name).await;
        is_denied(&server.url(""), &|_| None, name).await;
    }
    if let Some(server) = need(Sftp::start()) {
        is_denied(&server.url_with_wrong_key(""), &server.credentials(), "key").await;
        // Another host key than the known one is somebody else.
        let url = server.url("").replace("known-hosts", "authorized");
        is_denied(&url, &server.credentials(), "host key").await;
    }
}

async fn is_no_place(url: &str, credentials: Lookup<'_>) {
    let error = open(url, &options(credentials)).await.unwrap_err();
    assert!(matches!(error, Error::NoPlace { .. }), "{error}");
}

#[tokio::test]
async fn what_does_not_exist_is_no_place() {
    if let Some(server) = need(S3::start()) {
        let missing = server.url("x").replace("bucket", "tub");
        is_no_place(&missing, &server.credentials()).await;
        assert!(matches!(
            create(&missing, &options(&server.credentials())).await,
            Err(Error::NoPlace { .. })
        ));
    }
    if let Some(server) = swift() {
        let missing = server.url("x").replace("container/", "barrel/");
        is_no_place(&missing, &server.credentials()).await;
    }
    if let Some(server) = need(WebDav::start()) {
        is_no_place(&server.url("x/y"), &server.credentials()).await;
        directories_are_not_made_again(&server.url("vault"), &server.files(), &server.credentials()).await;
    }
    if let Some(server) = need(Sftp::start()) {
        is_no_place(&server.url("x/y"), &server.credentials()).await;
        directories_are_not_made_again(&server.url("vault"), &server.files(), &server.credentials()).await;
    }
}

/// A place that vanishes is neither empty nor made again: it may only be not mounted.
async fn directories_are_not_made_again(url: &str, files: &Path, credentials: Lookup<'_>) {
    std::fs::create_dir(files.join("vault")).unwrap();
    std::fs::write(files.join("vault/letter"), b"x").unwrap();
    let error = create(url, &options(credentials)).await.unwrap_err();
    assert!(
        matches!(&error, Error::Occupied { found, .. } if found == "letter"),
        "{error}"
    );
    std::fs::remove_file(files.join("vault/letter")).unwrap();
    let store = create(url, &options(credentials)).await.unwrap();
    let (name, bytes) = pack(1, 100);
    store.put(&name, bytes.clone()).await.unwrap();
    std::fs::remove_dir_all(files.join("vault")).unwrap();
    for error in [
        store.put(&name, bytes).await.unwrap_err(),
        store.get(&name, Range::All).await.unwrap_err(),
        store.stat(&name).await.unwrap_err(),
        store.list(&Prefix::Packs, None, 10).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::NoPlace { .. }), "{error}");
    }
    assert!(!files.join("vault").exists());
}

/// What the store does while its server is gone, and after; `true` stops it, `false` starts it again.
async fn outlives_its_server(store: Arc<dyn Store>, mut stop: impl FnMut(bool), keeps: bool) {
    let (name, bytes) = pack(1, 100_000);
    store.put(&name, bytes.clone()).await.unwrap();
    stop(true);
    for error in [
        store.put(&pack(2, 10).0, bytes.clone()).await.unwrap_err(),
        store.get(&name, Range::All).await.unwrap_err(),
        store.stat(&name).await.unwrap_err(),
        store.list(&Prefix::All, None, 10).await.unwrap_err(),
        store.delete(&name).await.unwrap_err(),
    ] {
        assert!(error.is_transient(), "{error:?}");
    }
    stop(false);
    if keeps {
        assert_eq!(store.get(&name, Range::All).await.unwrap(), bytes);
    }
    let (name, bytes) = pack(3, 100_000);
    assert_eq!(store.put(&name, bytes.clone()).await.unwrap(), Put::Created);
    assert_eq!(store.get(&name, Range::All).await.unwrap(), bytes);
}

macro_rules! goes_and_comes_back {
    ($server:ident, $keeps:literal) => {
        if let Some(mut server) = need($server::start()) {
            let store = create(&server.url("x"), &options(&server.credentials())).await.unwrap();
            let stop = |stop: bool| match stop {
                true => server.stop().unwrap(),
                false => server.start_again().unwrap(),
            };
            outlives_its_server(store, stop, $keeps).await;
        }
    };
}

#[tokio::test]
async fn a_server_may_go_and_come_back() {
    goes_and_comes_back!(S3, false);
    goes_and_comes_back!(WebDav, true);
    goes_and_comes_back!(Sftp, true);
}

/// An upload that is cut at any point is an error that may pass, and leaves nothing in any listing.
async fn cut_uploads_leave_nothing(front: &Front, store: &dyn Store, kept: &(Name, Bytes)) {
    store.put(&kept.0, kept.1.clone()).await.unwrap();
    for (n, bytes) in [(11, 0), (12, 300), (13, 5000), (14, 1_500_000), (15, 2_900_000)] {
        let (name, whole) = pack(n, 3_000_000);
        front.cut_after(bytes);
        let error = store.put(&name, whole.clone()).await.unwrap_err();
        assert!(error.is_transient(), "cut after {bytes}: {error:?}");
        front.mend();
        let listed = store.list(&Prefix::All, None, 10).await.unwrap();
        let names: Vec<&Name> = listed.iter().map(|listed| &listed.name).collect();
        assert_eq!(names, [&kept.0], "cut after {bytes}");
        assert!(store.stat(&name).await.unwrap_err().is_not_found());
        assert_eq!(store.put(&name, whole.clone()).await.unwrap(), Put::Created);
        assert!(store.get(&name, Range::All).await.unwrap() == whole);
        store.delete(&name).await.unwrap();
    }
}

/// Requests that operations cost, over HTTP.
async fn requests_are_few(front: &Front, store: &dyn Store, kept: &(Name, Bytes), put: u64) {
    let (name, whole) = kept;
    let len = whole.len();
    front.take_requests();
    assert_eq!(
        store.get(name, Range::Last(100)).await.unwrap(),
        whole.slice(len - 100..)
    );
    assert_eq!(front.take_requests(), 1, "last bytes");
    let range = Range::From { offset: 10, len: 100 };
    assert_eq!(store.get(name, range).await.unwrap(), whole.slice(10..110));
    assert_eq!(front.take_requests(), 1, "a range");
    store.get(name, Range::All).await.unwrap();
    assert_eq!(front.take_requests(), 1, "all");
    store.stat(name).await.unwrap();
    assert_eq!(front.take_requests(), 1, "size");
    let (name, whole) = pack(20, 1000);
    store.put(&name, whole).await.unwrap();
    assert_eq!(front.take_requests(), put, "put");
    store.delete(&name).await.unwrap();
    assert_eq!(front.take_requests(), 1, "delete");
}

#[tokio::test]
async fn what_goes_over_the_wire() {
    let kept = pack(1, 200_000);
    if let Some(server) = need(S3::start()) {
        let front = Front::before(server.port());
        let store = open(&front.url(&server.url("x")), &options(&server.credentials()))
            .await
            .unwrap();
        cut_uploads_leave_nothing(&front, &*store, &kept).await;
        requests_are_few(&front, &*store, &kept, 2).await;
        store.list(&Prefix::Packs, Some(&kept.0), 10).await.unwrap();
        assert_eq!(front.take_requests(), 1, "a page of a listing");
    }
    if let Some(server) = need(WebDav::start()) {
        let front = Front::before(server.port());
        let store = create(&front.url(&server.url("x")), &options(&server.credentials()))
            .await
            .unwrap();
        cut_uploads_leave_nothing(&front, &*store, &kept).await;
        // Look, upload, and three for the renaming; one makes the pack's directory.
        requests_are_few(&front, &*store, &kept, 7).await;
    }
}

/// A file system of a few MiB, until dropped.
struct Tiny(PathBuf);

impl Tiny {
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        let done = mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(at).output();
        let mounted = done.is_ok_and(|output| output.status.success());
        need(
            mounted
                .then(|| Self(at.to_path_buf()))
                .ok_or_else(|| "root, to mount a full place".to_string()),
        )
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// What does not fit is told as such and leaves nothing, and what is there can still be read and removed.
async fn fills_up(store: Arc<dyn Store>) {
    let (name, bytes) = pack(1, 3 << 20);
    store.put(&name, bytes.clone()).await.unwrap();
    let (second, more) = pack(2, 3 << 20);
    let error = store.put(&second, more.clone()).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert_eq!(store.list(&Prefix::All, None, 10).await.unwrap().len(), 1);
    assert!(store.get(&name, Range::All).await.unwrap() == bytes);
    store.delete(&name).await.unwrap();
    assert_eq!(store.put(&second, more).await.unwrap(), Put::Created);
}

#[tokio::test]
async fn a_full_place_says_so() {
    if let Some(server) = need(WebDav::start()) {
        let Some(_tiny) = Tiny::mount(&server.files().join("tiny")) else {
            return;
        };
        fills_up(
            create(&server.url("tiny"), &options(&server.credentials()))
                .await
                .unwrap(),
        )
        .await;
    }
    if let Some(server) = need(Sftp::start()) {
        let Some(_tiny) = Tiny::mount(&server.files().join("tiny")) else {
            return;
        };
        fills_up(
            create(&server.url("tiny"), &options(&server.credentials()))
                .await
                .unwrap(),
        )
        .await;
    }
}

/// One request to a server on loopback; status and lower-case header lines.
fn ask(port: u16, request: &str) -> (u16, Vec<String>) {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    connection.write_all(request.as_bytes()).unwrap();
    let mut lines = BufReader::new(connection).lines().map_while(std::io::Result::ok);
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .unwrap_or(0);
    (status, lines.take_while(|line| !line.is_empty()).collect())
}

fn header(headers: &[String], name: &str) -> String {
    let found = headers.iter().filter_map(|line| line.split_once(": "));
    let mut values = found
        .filter(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value);
    values.next().unwrap().to_string()
}

/// Storage address and token of a TempAuth login.
fn log_in(port: u16) -> (String, String) {
    // The address that it names is made from the host that it is asked by.
    let login = format!(
        "GET /auth/v1.0 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Auth-User: test:tester\r\nX-Auth-Key: testing\r\nConnection: close\r\n\r\n"
    );
    let (status, headers) = ask(port, &login);
    assert_eq!(status, 200);
    (header(&headers, "x-storage-url"), header(&headers, "x-auth-token"))
}

#[tokio::test]
async fn an_expired_token_is_replaced() {
    let Some(server) = need(Swift::with_token_life(1)) else {
        return;
    };
    let store = open(&server.url("x"), &options(&server.credentials())).await.unwrap();
    let (name, bytes) = pack(1, 1000);
    store.put(&name, bytes.clone()).await.unwrap();
    // The store's token is older than this one: when this one is refused, the store's has expired too.
    let (_, token) = log_in(server.port());
    let probe = format!("HEAD /v1/AUTH_test HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {token}\r\nConnection: close\r\n\r\n");
    let started = Instant::now();
    while ask(server.port(), &probe).0 != 401 {
        assert!(started.elapsed() < Duration::from_secs(30), "the token does not expire");
        store.stat(&name).await.unwrap();
    }
    let (second, more) = pack(2, 1000);
    store.put(&second, more).await.unwrap();
    assert_eq!(store.get(&name, Range::All).await.unwrap(), bytes);
}

/// An identity service that speaks Keystone's version 3 and hands out the tokens of a Swift's TempAuth.
struct Keystone {
    port: u16,
    serving: Option<JoinHandle<()>>,
}

impl Keystone {
    fn before(swift: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if !Self::answer(connection.unwrap(), swift) {
                    return;
                }
            }
        });
        Self {
            port,
            serving: Some(serving),
        }
    }

    /// Answers one login; `false` at the end.
    fn answer(mut connection: TcpStream, swift: u16) -> bool {
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        let mut head = Vec::new();
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap() > 2 {
            head.push(std::mem::take(&mut line).trim_end().to_string());
        }
        if head.is_empty() {
            return false;
        }
        let mut body = vec![0; header(&head, "content-length").parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        let body = String::from_utf8(body).unwrap();
        let is_right = head.iter().any(|line| line.starts_with("POST /v3/auth/tokens "))
            && ["\"me\"", "\"secret\"", "\"the project\"", "\"Default\""]
                .iter()
                .all(|word| body.contains(word));
        let (url, token) = log_in(swift);
        let endpoint = |interface: &str, region: &str, url: &str| {
            format!("{{\"interface\":\"{interface}\",\"region\":\"{region}\",\"url\":\"{url}\"}}")
        };
        let endpoints = [
            endpoint("internal", "here", "http://127.0.0.1:1"),
            endpoint("public", "there", "http://127.0.0.1:1"),
            endpoint("public", "here", &url),
        ];
        let catalog = format!(
            "{{\"token\":{{\"catalog\":[{{\"type\":\"identity\",\"endpoints\":[]}},{{\"type\":\"object-store\",\"endpoints\":[{}]}}]}}}}",
            endpoints.join(",")
        );
        let status = if is_right { "201 Created" } else { "401 Unauthorized" };
        let answer = format!(
            "HTTP/1.1 {status}\r\nX-Subject-Token: {token}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{catalog}",
            catalog.len()
        );
        connection.write_all(answer.as_bytes()).unwrap();
        true
    }
}

impl Drop for Keystone {
    fn drop(&mut self) {
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

#[tokio::test]
async fn keystone_logs_in_to_swift() {
    let Some(server) = swift() else { return };
    let identity = Keystone::before(server.port());
    let find = |name: &str| {
        let value = match name {
            "OS_USERNAME" => "me",
            "OS_PASSWORD" => "secret",
            "OS_PROJECT_NAME" => "the project",
            "OS_REGION_NAME" => "here",
            "OS_AUTH_URL" => return Some(format!("http://127.0.0.1:{}/v3", identity.port)),
            _ => return None,
        };
        Some(value.to_string())
    };
    let store = open("swift://container/keystone", &options(&find)).await.unwrap();
    let (name, bytes) = pack(1, 1000);
    assert_eq!(store.put(&name, bytes.clone()).await.unwrap(), Put::Created);
    assert_eq!(store.get(&name, Range::All).await.unwrap(), bytes);
    is_denied(
        "swift://container/keystone",
        &wrong(&find, "OS_PASSWORD"),
        "OS_PASSWORD",
    )
    .await;
    let elsewhere = open("swift://container/keystone?region=nowhere", &options(&find))
        .await
        .unwrap_err();
    assert!(elsewhere.to_string().contains("region"), "{elsewhere}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_during_an_upload_shows_nothing_of_it() {
    let Some(mut server) = need(Sftp::start()) else { return };
    let store = create(&server.url("vault"), &options(&server.credentials()))
        .await
        .unwrap();
    let tmp = server.files().join("vault/tmp");
    let sizes = |tmp: &Path| -> Vec<u64> {
        let entries = std::fs::read_dir(tmp).into_iter().flatten();
        entries
            .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
            .collect()
    };
    for n in 1..50 {
        let (name, bytes) = pack(n, 16 << 20);
        let putting = tokio::spawn({
            let (store, name, bytes) = (Arc::clone(&store), name.clone(), bytes.clone());
            async move { store.put(&name, bytes).await }
        });
        while !putting.is_finished() && sizes(&tmp).iter().all(|size| *size == 0) {
            tokio::task::yield_now().await;
        }
        server.stop().unwrap();
        let outcome = putting.await.unwrap();
        let left = sizes(&tmp);
        server.start_again().unwrap();
        if outcome.is_ok() {
            // Too late: it was complete before the server died.
            store.delete(&name).await.unwrap();
            continue;
        }
        assert!(outcome.as_ref().unwrap_err().is_transient(), "{outcome:?}");
        assert!(!left.is_empty(), "nothing was cut");
        assert_eq!(store.list(&Prefix::All, None, 10).await.unwrap(), []);
        assert_eq!(store.put(&name, bytes.clone()).await.unwrap(), Put::Created);
        assert!(store.get(&name, Range::All).await.unwrap() == bytes);
        return;
    }
    panic!("no upload was cut");
}
