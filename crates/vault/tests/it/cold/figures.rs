//! What opening costs over a network of 20 ms a round trip: requests and seconds.
//!
//! `cargo test --release -p drystone-vault --test it cold::figures -- --ignored --nocapture`

use std::time::{Duration, Instant};

use drystone_format::index_part::PackTail;
use drystone_format::kinds::{Kept, TestRoot};
use drystone_format::recipe::Recipe;
use drystone_format::root::RootKind;
use drystone_store::Op;
use drystone_vault::{GcOptions, Vault};

use super::{Far, far, honest_pack, part_of, put_pack, put_root, root_of_kind, root_with};
use crate::support::{Fixture, back_up, content, noise, snapshot};

const ROUND_TRIP: Duration = Duration::from_millis(20);

/// A vault with so many snapshots, each with so many packs of its own, and one that can be read. A root of another kind keeps a chunk of each
/// pack alive.
fn grown(snapshots: u32, packs: u64) -> Far {
    let (far, vault) = far(ROUND_TRIP);
    let small = noise(1, 1000);
    let (id, _) = back_up(&vault, &[("big", &noise(2, 300_000)), ("small", &small)]).unwrap();
    let shot = vault.snapshot(&id).unwrap();
    vault.admit_roots(RootKind::TEST).unwrap();
    let (vault, secrets, mut kept) = (far.again(), far.secrets(), Vec::new());
    for at in 1..snapshots {
        let mut nonce = [9; 16];
        nonce[..4].copy_from_slice(&at.to_be_bytes());
        let own = (0..packs).map(|pack| honest_pack(&vault, &secrets, u64::from(at) * packs + pack));
        let tails: Vec<PackTail> = own
            .map(|(pack, chunk)| {
                put_pack(&far, &pack);
                kept.push(Kept::Stream(Recipe::single(chunk, 20)));
                PackTail::of(&pack)
            })
            .collect();
        let part = part_of(&secrets, nonce, tails);
        let mut shot = snapshot(shot.tree.clone());
        shot.started.seconds = i64::from(at);
        put_root(&far, root_with(&secrets, nonce, &shot.encode(), Some(&part)));
    }
    let payload = TestRoot(kept).encode();
    put_root(&far, root_of_kind(RootKind::TEST, &secrets, [1; 16], (&payload, None)));
    far
}

fn collect(vault: &Vault) {
    let options = GcOptions {
        max_rewrite_bytes: 0,
        ..GcOptions::default()
    };
    let report = vault.gc(&options).unwrap();
    assert_eq!(report.deleted_packs, 0);
}

/// Does something in a process of its own, and tells what it cost.
fn measure(far: &Far, what: &str, machine: &Fixture, work: impl FnOnce(&Vault)) -> f64 {
    far.store.take();
    let start = Instant::now();
    work(&far.open(machine));
    let took = start.elapsed().as_secs_f64();
    let calls = far.store.take();
    let count = |op: Op, of: &str| {
        calls
            .iter()
            .filter(|call| call.op == op && call.name.starts_with(of))
            .count()
    };
    let bytes: u64 = calls.iter().map(|call| call.bytes).sum();
    println!(
        "{what}: {took:.2} s, {} requests ({} roots, {} packs, {} listings), {bytes} bytes",
        calls.len(),
        count(Op::Get, "roots/"),
        count(Op::Get, "packs/"),
        count(Op::List, ""),
    );
    took
}

fn list(vault: &Vault) {
    let (_, problems) = vault.candidates().unwrap();
    assert!(problems.is_empty());
}

fn first_file(vault: &Vault) {
    let newest = vault.resolve("latest").unwrap();
    let reader = vault.reader().unwrap();
    let small = reader
        .tree(&newest.snapshot.tree)
        .map(Result::unwrap)
        .find(|entry| entry.name == b"small");
    assert_eq!(
        content(&reader, small.unwrap().recipe().unwrap()).unwrap(),
        noise(1, 1000)
    );
}

fn all_figures(snapshots: u32, packs: u64) -> [f64; 5] {
    let far = grown(snapshots, packs);
    println!(
        "{snapshots} snapshots of {packs} packs each, {} ms a round trip",
        ROUND_TRIP.as_millis()
    );
    let machine = far.fixture.elsewhere();
    let cold = measure(&far, "snapshots, cold", &machine, list);
    let warm = measure(&far, "snapshots, warm", &machine, list);
    let file_kept = measure(&far, "first file, roots kept", &machine, first_file);
    let file_warm = measure(&far, "first file, warm", &machine, first_file);
    let file = measure(&far, "first file, cold", &far.fixture.elsewhere(), first_file);
    measure(&far, "gc, which writes runs", &machine, collect);
    let machine = far.fixture.elsewhere();
    measure(&far, "first file, cold, with runs", &machine, first_file);
    measure(&far, "first file, roots kept, with runs", &machine, first_file);
    measure(&far, "gc with nothing to do", &machine, collect);
    [cold, warm, file_kept, file_warm, file]
}

#[test]
#[ignore = "takes a minute; prints figures"]
fn of_1200_packs_and_600_snapshots() {
    let [cold, warm, _, _, file] = all_figures(600, 2);
    assert!(cold <= 3.0 && warm <= 0.5 && file <= 5.0, "{cold} {warm} {file}");
}

#[test]
#[ignore = "takes minutes; prints figures"]
fn of_65000_packs_and_2000_snapshots() {
    all_figures(2000, 32);
}
