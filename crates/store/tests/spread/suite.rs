//! The conformance suite over spreads of many kinds.

use std::sync::Arc;

use drystone_store::conformance::suite;

use super::World;

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
