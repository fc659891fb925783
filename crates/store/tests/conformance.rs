//! Every store and every decorator passes the one suite.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use drystone_store::conformance::suite;
use drystone_store::limit::Limits;
use drystone_store::retry::Policy;
use drystone_store::{Crash, Fail, Limit, Local, Memory, OpenOptions, Record, Retry, Store, open};
use parking_lot::Mutex;

fn memory() -> Arc<dyn Store> {
    Arc::new(Memory::new())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn local() {
    let places = Mutex::new(Vec::new());
    suite(|| {
        let place = tempfile::tempdir().unwrap();
        let store = Local::create(&place.path().join("vault")).unwrap();
        places.lock().push(place);
        Arc::new(store)
    })
    .await;
    for place in places.into_inner() {
        let left = std::fs::read_dir(place.path().join("vault/tmp")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "temporary files are left");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_memory() {
    suite(memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn record() {
    suite(|| Arc::new(Record::new(memory()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fail_without_faults() {
    suite(|| Arc::new(Fail::new(memory()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn crash_without_a_cut() {
    suite(|| Arc::new(Crash::new(Memory::new(), None))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn retry() {
    let policy = Policy {
        attempts: 3,
        first_delay: Duration::from_secs(60),
        max_delay: Duration::MAX,
        seed: 1,
    };
    suite(|| Arc::new(Retry::new(memory(), policy))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn limit() {
    let limits = Limits {
        requests: NonZeroUsize::new(2),
        put_bytes_per_s: NonZeroU64::new(1 << 40),
        get_bytes_per_s: NonZeroU64::new(1 << 40),
    };
    suite(|| Arc::new(Limit::new(memory(), limits))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_decorators_on_local() {
    let places = Mutex::new(Vec::new());
    let policy = Policy {
        attempts: 3,
        first_delay: Duration::from_secs(60),
        max_delay: Duration::MAX,
        seed: 1,
    };
    suite(|| {
        let place = tempfile::tempdir().unwrap();
        let local = Arc::new(Local::open(place.path()).unwrap());
        places.lock().push(place);
        let limit = Arc::new(Limit::new(
            local,
            Limits {
                requests: NonZeroUsize::new(4),
                ..Limits::default()
            },
        ));
        Arc::new(Record::new(Arc::new(Retry::new(Arc::new(Fail::new(limit)), policy))))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn through_opendal() {
    suite(|| {
        let options = OpenOptions::new(&|_| None, 1);
        let opening = open("opendal+memory:///vault", &options);
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(opening)).unwrap()
    })
    .await;
}
