//! A writer that lives on: commits, tickets, what they cost, and what becomes of them when gc gives the writer up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use drystone_format::kinds::{Kept, TestRoot};
use drystone_format::recipe::Recipe;
use drystone_format::root::RootKind;
use drystone_format::{ChunkId, RootId};
use drystone_store::record::Call;
use drystone_store::{Memory, Op, Prefix, Record};
use drystone_vault::{Commit, Error, GcOptions, Vault, Writer, WriterOptions};

use crate::support::{Fixture, back_up, check, lines, noise};

/// An open vault with a kind of roots for these tests.
fn opened(fixture: &Fixture, store: Arc<dyn drystone_store::Store>) -> Arc<Vault> {
    let vault = fixture.create(store).unwrap();
    Arc::new(vault.admit_roots(RootKind::TEST).unwrap())
}

fn writer(vault: &Arc<Vault>) -> Writer {
    vault.writer(WriterOptions::default()).unwrap()
}

/// A root that keeps these chunks alive.
fn naming(chunks: &[(ChunkId, u64)]) -> Vec<u8> {
    let kept = chunks
        .iter()
        .map(|(id, bytes)| Kept::Stream(Recipe::single(*id, *bytes)));
    TestRoot(kept.collect()).encode()
}

/// Commits these chunks under one root.
fn commit(writer: &Writer, chunks: &[&[u8]]) -> drystone_vault::Result<(RootId, Vec<ChunkId>)> {
    let commit = writer.commit()?;
    let ids = chunks.iter().map(|chunk| Ok(commit.put(chunk)?.0));
    let ids = ids.collect::<drystone_vault::Result<Vec<ChunkId>>>()?;
    let named: Vec<(ChunkId, u64)> = ids
        .iter()
        .copied()
        .zip(chunks.iter().map(|chunk| chunk.len() as u64))
        .collect();
    Ok((commit.publish(RootKind::TEST, &naming(&named))?, ids))
}

fn gc_that_fences() -> GcOptions {
    GcOptions {
        silence: Duration::ZERO,
        wait: Duration::ZERO,
        ..GcOptions::default()
    }
}

/// Everything is whole as a machine sees it that has never seen the vault.
fn assert_whole(fixture: &Fixture, store: Arc<dyn drystone_store::Store>, chunks: &[(ChunkId, Vec<u8>)]) {
    let vault = fixture.elsewhere().open(store).unwrap();
    assert_eq!(lines(&check(&vault).problems), "");
    let reader = vault.reader().unwrap();
    for (id, bytes) in chunks {
        assert_eq!(&*reader.chunk(id).unwrap(), &bytes[..]);
    }
}

#[test]
fn a_small_commit_costs_two_puts_and_one_list() {
    let (fixture, store) = (Fixture::new(), Arc::new(Record::new(Arc::new(Memory::new()))));
    let vault = opened(&fixture, store.clone());
    let writer = writer(&vault);
    commit(&writer, &[&noise(1, 4096)]).unwrap();
    store.take();
    commit(&writer, &[&noise(2, 4096)]).unwrap();
    let calls = store.take();
    let shown: Vec<(Op, &str)> = calls
        .iter()
        .map(|call: &Call| (call.op, call.name.split('/').next().unwrap()))
        .collect();
    // The list is of one page, and an empty one, if any epoch stands.
    assert_eq!(
        shown,
        [
            (Op::Put, "packs"),
            (Op::Put, "roots"),
            (Op::List, "epochs"),
            (Op::List, "epochs")
        ]
    );
    drop(writer);
    assert_eq!(lines(&check(&vault).problems), "");
}

#[test]
fn tickets_tell_when_a_chunk_is_durable_also_one_that_another_commit_stores() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = opened(&fixture, store.clone());
    let writer = writer(&vault);
    let (one, two) = (writer.commit().unwrap(), writer.commit().unwrap());
    let packs = || {
        store
            .contents()
            .keys()
            .filter(|name| Prefix::Packs.covers(name))
            .count()
    };
    let chunk = noise(1, 5000);
    let (id, first) = one.put(&chunk).unwrap();
    let (same, second) = two.put(&chunk).unwrap();
    assert_eq!((id, first), (same, second));
    assert!(!one.is_durable(&first) && packs() == 0);
    // The second waits for what lies in the open frame of the first.
    two.flush().unwrap();
    assert!(one.is_durable(&first) && two.is_durable(&second) && packs() == 1);
    let root = two.publish(RootKind::TEST, &naming(&[(id, 5000)])).unwrap();
    drop(one);
    let (_, third) = writer.commit().unwrap().put(&chunk).unwrap();
    assert!(writer.commit().unwrap().is_durable(&third) && packs() == 1);
    for _ in 0..2 {
        vault.gc(&GcOptions::default()).unwrap();
    }
    assert_whole(&fixture, store, &[(id, chunk)]);
    let (roots, problems) = vault.roots(RootKind::TEST).unwrap();
    assert_eq!(
        (roots.len(), roots[0].name.hash, lines(&problems).as_str()),
        (1, root, "")
    );
}

#[test]
fn what_is_put_without_a_flush_is_stored_once_its_pack_is_old() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = opened(&fixture, store.clone());
    let options = WriterOptions {
        pack_age: Duration::from_millis(1),
        ..WriterOptions::default()
    };
    let writer = vault.writer(options).unwrap();
    let commit = writer.commit().unwrap();
    let mut lane = commit.lane();
    let mut content = lane.content();
    content.write(&noise(1, 20_000)).unwrap();
    content.finish().unwrap();
    lane.finish().unwrap();
    crate::support::watched(move || {
        while !store.contents().keys().any(|name| Prefix::Packs.covers(name)) {
            std::thread::yield_now();
        }
    });
}

#[test]
fn many_threads_commit_at_once_and_nothing_is_stored_twice() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = opened(&fixture, store.clone());
    let writer = writer(&vault);
    let (threads, rounds) = (8, 12);
    let (start, stored) = (Barrier::new(threads), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..threads as u64 {
            let (writer, start, stored) = (&writer, &start, &stored);
            scope.spawn(move || {
                start.wait();
                for round in 0..rounds {
                    // Half of it is everybody's.
                    let (own, shared) = (noise(100 + thread * 100 + round, 3000), noise(round, 3000));
                    commit(writer, &[&own, &shared]).unwrap();
                    stored.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let chunks: Vec<(ChunkId, Vec<u8>)> = (0..threads as u64)
        .flat_map(|thread| (0..rounds).flat_map(move |round| [100 + thread * 100 + round, round]))
        .map(|seed| (vault.hasher().id(&noise(seed, 3000)), noise(seed, 3000)))
        .collect();
    drop(writer);
    vault.gc(&GcOptions::default()).unwrap();
    assert_whole(&fixture, store, &chunks);
    let distinct = threads * rounds as usize + rounds as usize;
    assert_eq!(check(&vault).chunks, distinct as u64);
}

/// A writer stays registered and gives no sign of life between its commits, and gc gives it up in the midst of one.
#[test]
fn a_writer_that_was_given_up_registers_anew_and_keeps_what_it_commits() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = opened(&fixture, store.clone());
    let owner = fixture.elsewhere().open(store.clone()).unwrap();
    let garbage = back_up(&owner, &[("garbage", &noise(1, 900))]).unwrap().0;
    let writer = writer(&vault);
    let first = commit(&writer, &[&noise(2, 5000)]).unwrap().1[0];
    // What the commit relies on becomes garbage, and its own pack is garbage by all appearances.
    let work = writer.commit().unwrap();
    let old = relying_on_backup(&work, &vault, &noise(1, 900));
    let (new, ticket) = work.put(&noise(3, 5000)).unwrap();
    work.wait(&ticket).unwrap();
    owner.forget(&[garbage]).unwrap();
    let mut given_up = 0;
    for _ in 0..4 {
        given_up += owner.gc(&gc_that_fences()).unwrap().given_up.len();
    }
    assert!(given_up > 0, "the writer was not given up");
    assert!(
        owner.reader().unwrap().chunk(&old).is_err(),
        "the pack that it relied on is gone"
    );
    let refused = work.publish(RootKind::TEST, &naming(&[(old, 900), (new, 5000)]));
    // The one chunk cannot be stored again, since nobody has its bytes: nothing is reported.
    assert!(refused.as_ref().is_err_and(Error::is_damage), "{refused:?}");
    let second = commit(&writer, &[&noise(1, 900), &noise(3, 5000)]).unwrap().1;
    for _ in 0..4 {
        owner.gc(&gc_that_fences()).unwrap();
    }
    let kept = [
        (first, noise(2, 5000)),
        (second[0], noise(1, 900)),
        (second[1], noise(3, 5000)),
    ];
    assert_whole(&fixture, store, &kept);
}

/// Puts a chunk that a backup has stored.
fn relying_on_backup(commit: &Commit, vault: &Vault, bytes: &[u8]) -> ChunkId {
    let (id, ticket) = commit.put(bytes).unwrap();
    assert!(commit.is_durable(&ticket) && vault.contains(&id).unwrap());
    id
}

#[test]
fn a_presence_that_moves_on_holds_no_deletion_up() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = opened(&fixture, store.clone());
    let owner = fixture.elsewhere().open(store.clone()).unwrap();
    let garbage = back_up(&owner, &[("garbage", &noise(1, 50_000))]).unwrap().0;
    let writer = writer(&vault);
    let kept = commit(&writer, &[&noise(2, 5000)]).unwrap().1[0];
    owner.forget(&[garbage]).unwrap();
    let patient = GcOptions {
        wait: Duration::ZERO,
        ..GcOptions::default()
    };
    assert_eq!(
        owner.gc(&patient).unwrap().deleted_packs,
        0,
        "the writer knows nothing of it"
    );
    writer.advance().unwrap();
    let report = owner.gc(&patient).unwrap();
    assert!(report.deleted_packs > 0 && report.given_up.is_empty(), "{report:?}");
    let later = commit(&writer, &[&noise(1, 5000)]).unwrap().1[0];
    assert_whole(&fixture, store, &[(kept, noise(2, 5000)), (later, noise(1, 5000))]);
}

#[test]
fn a_chunk_that_no_vault_would_have_is_refused() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = opened(&fixture, store);
    let writer = writer(&vault);
    let commit = writer.commit().unwrap();
    let max_bytes = vault.config().data_sizes.max_bytes() as usize;
    for bytes in [0, max_bytes + 1] {
        let refused = commit.put(&vec![1; bytes]);
        assert!(matches!(refused, Err(Error::ChunkSize { bytes: found, .. }) if found == bytes));
    }
    commit.put(&noise(1, max_bytes)).unwrap();
    let unlisted = commit.publish(RootKind::HEAD, b"");
    assert!(matches!(unlisted, Err(Error::UnlistedRoots { .. })), "{unlisted:?}");
}

/// A month of commits, one gc a day, while the handle stays open.
#[test]
fn small_packs_of_a_handle_that_stays_open_are_folded() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = opened(&fixture, store.clone());
    let owner = fixture.elsewhere().open(store.clone()).unwrap();
    let writer = writer(&vault);
    let packs = || {
        store
            .contents()
            .keys()
            .filter(|name| Prefix::Packs.covers(name))
            .count()
    };
    let (mut kept, mut most) = (Vec::new(), 0);
    for day in 0..30 {
        for number in 0..10 {
            let chunk = noise(day * 100 + number, 4096);
            kept.push((commit(&writer, &[&chunk]).unwrap().1[0], chunk));
        }
        most = most.max(packs());
        owner.gc(&GcOptions::default()).unwrap();
        writer.advance().unwrap();
    }
    // What the first run has copied is deleted once the handle has said that it knows.
    owner.gc(&GcOptions::default()).unwrap();
    assert_whole(&fixture, store.clone(), &kept);
    let other = Arc::new(Memory::new());
    let fresh = fixture.elsewhere().create(other.clone()).unwrap();
    let all: Vec<u8> = kept.iter().flat_map(|(_, chunk)| chunk.clone()).collect();
    back_up(&fresh, &[("all", &all)]).unwrap();
    let of_backup = other
        .contents()
        .keys()
        .filter(|name| Prefix::Packs.covers(name))
        .count();
    assert!(
        5 * packs() <= 6 * of_backup,
        "{} packs, of a backup {of_backup}, most {most}",
        packs()
    );
}
