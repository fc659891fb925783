//! The conformance suite over spreads of many kinds.

use std::sync::Arc;

use drystone_store::conformance::suite;
use drystone_store::{Local, Memory, Put, Range, Spread, Store};
use parking_lot::Mutex;
use tempfile::TempDir;

use super::{World, options, pack, place, shard};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn directories() {
    let kept = Mutex::new(Vec::new());
    suite(|| {
        let directories: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let open = |directory: &TempDir| Arc::new(Local::open(directory.path()).unwrap()) as Arc<dyn Store>;
        let places = (0..)
            .zip(directories.iter().map(open))
            .map(|(n, store)| place(n, store))
            .collect();
        kept.lock().push(directories);
        Arc::new(Spread::new(options(2, 3, places)).unwrap())
    })
    .await;
}

async fn conforms(needed: u8, total: u8, places: usize) {
    suite(|| Arc::new(World::new(needed, total, places).spread)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mirror() {
    conforms(1, 2, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_of_three() {
    conforms(2, 3, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn four_of_six() {
    conforms(4, 6, 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_place() {
    conforms(2, 3, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fewer_places_than_shards() {
    conforms(3, 5, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn more_places_than_shards() {
    conforms(2, 3, 5).await;
}

#[tokio::test]
async fn a_shard_that_was_cut_short_is_replaced_by_a_put() {
    let directory = tempfile::tempdir().unwrap();
    let places: [Arc<dyn Store>; 2] = [
        Arc::new(Memory::new()),
        Arc::new(Local::open(directory.path()).unwrap()),
    ];
    for place in places {
        let (pack, whole) = pack(1, 5000);
        let name = shard(&pack, 2, 1);
        place.put(&name, whole.slice(..77)).await.unwrap();
        assert_eq!(place.put(&name, whole.clone()).await.unwrap(), Put::Created);
        assert_eq!(place.get(&name, Range::All).await.unwrap(), whole);
        assert_eq!(place.put(&name, whole.clone()).await.unwrap(), Put::Existed);
    }
}
