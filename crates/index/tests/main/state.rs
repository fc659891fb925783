//! The state database: pages of directories, facts, and what happens to damaged files.

use std::{fs, path::PathBuf, thread};

use drystone_index::{Error, State};

const SOURCE: [u8; 16] = [7; 16];

fn open() -> (tempfile::TempDir, PathBuf, State) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let state = State::open(&path).unwrap();
    (dir, path, state)
}

fn dir_key(number: u32) -> [u8; 16] {
    let mut key = [3; 16];
    key[..4].copy_from_slice(&number.to_be_bytes());
    key
}

fn pages(state: &State, dir: u32) -> Vec<(u64, Vec<u8>)> {
    let reader = state.reader().unwrap();
    (0..)
        .map_while(|page| reader.get_page(&SOURCE, &dir_key(dir), page).unwrap())
        .collect()
}

#[test]
fn directories_are_kept_replaced_and_shortened() {
    let (_dir, path, state) = open();
    let mut writer = state.writer(SOURCE).unwrap();
    writer
        .replace_dir(
            &dir_key(1),
            5,
            vec![b"one".to_vec(), b"two".to_vec(), b"three".to_vec()],
        )
        .unwrap();
    writer.replace_dir(&dir_key(2), 5, vec![vec![]]).unwrap();
    writer.finish().unwrap();
    assert_eq!(
        pages(&state, 1),
        [(5, b"one".to_vec()), (5, b"two".to_vec()), (5, b"three".to_vec())]
    );
    assert_eq!(pages(&state, 2), [(5, vec![])]);
    assert_eq!(pages(&state, 3), []);

    let mut writer = state.writer(SOURCE).unwrap();
    writer.replace_dir(&dir_key(1), 6, vec![b"new".to_vec()]).unwrap();
    writer.replace_dir(&dir_key(2), 6, vec![]).unwrap();
    writer.finish().unwrap();
    drop(state);
    let state = State::open(&path).unwrap();
    assert_eq!(pages(&state, 1), [(6, b"new".to_vec())]);
    assert_eq!(pages(&state, 2), []);
    assert!(
        state
            .reader()
            .unwrap()
            .get_page(&[8; 16], &dir_key(1), 0)
            .unwrap()
            .is_none(),
        "another source"
    );
}

#[test]
fn unseen_directories_are_swept_and_an_unchanged_run_sweeps_nothing() {
    let (_dir, _, state) = open();
    let mut writer = state.writer(SOURCE).unwrap();
    for number in 0..3000 {
        writer
            .replace_dir(&dir_key(number), 1, vec![vec![1; 50], vec![2; 50]])
            .unwrap();
    }
    writer.finish().unwrap();
    let mut writer = state.writer([9; 16]).unwrap();
    writer.replace_dir(&dir_key(0), 1, vec![vec![4]]).unwrap();
    writer.finish().unwrap();

    let sweep = |last: u32| {
        let seen = state.seen(&SOURCE).unwrap();
        (0..last).for_each(|number| seen.mark(&dir_key(number)));
        let mut writer = state.writer(SOURCE).unwrap();
        let swept = writer.sweep(&seen).unwrap().dirs;
        writer.finish().unwrap();
        swept
    };
    assert_eq!(sweep(3000), 0);
    let first = sweep(2000);
    assert!((900..=1000).contains(&first), "{first} of 1000 removed at once");
    assert_eq!(
        first + sweep(2000) + sweep(2000) + sweep(2000) + sweep(2000) + sweep(2000),
        1000,
        "the rest soon after"
    );
    assert_eq!(pages(&state, 1999).len(), 2);
    assert_eq!(pages(&state, 2000).len(), 0);
    assert!(
        state
            .reader()
            .unwrap()
            .get_page(&[9; 16], &dir_key(0), 0)
            .unwrap()
            .is_some(),
        "another source is left alone"
    );
}

#[test]
fn directories_are_listed_by_their_source() {
    let (_dir, _, state) = open();
    let keep = |source: [u8; 16], dirs: &[u32]| {
        let mut writer = state.writer(source).unwrap();
        for dir in dirs {
            writer.put_page(&dir_key(*dir), 0, 1, vec![1]).unwrap();
            writer.put_page(&dir_key(*dir), 1, 1, vec![2]).unwrap();
        }
        writer.finish().unwrap();
    };
    keep(SOURCE, &[5, 2, 900]);
    keep([9; 16], &[7]);
    let listed = |source| state.reader().unwrap().dirs_of(&source).unwrap();
    assert_eq!(listed(SOURCE), [2, 5, 900].map(dir_key));
    assert_eq!(listed([9; 16]), [dir_key(7)]);
    assert!(listed([1; 16]).is_empty());
}

#[test]
fn a_large_directory_is_written_in_parts_that_carry_its_epoch() {
    let (_dir, _, state) = open();
    let mut writer = state.writer(SOURCE).unwrap();
    for page in 0..100 {
        writer
            .put_page(&dir_key(1), page, 8, vec![page as u8; 100 << 10])
            .unwrap();
    }
    let before_the_end = pages(&state, 1).len();
    assert!(
        (40..100).contains(&before_the_end),
        "{before_the_end} pages are on disk, the rest is buffered"
    );
    writer.end_dir(&dir_key(1), 100).unwrap();
    writer.finish().unwrap();
    assert!(
        pages(&state, 1)
            .iter()
            .zip(0u8..)
            .all(|((epoch, page), number)| *epoch == 8 && page[0] == number)
    );
}

#[test]
fn facts_are_kept() {
    let (_dir, path, state) = open();
    assert_eq!(state.get("last seen").unwrap(), None);
    state.set("last seen", b"1").unwrap();
    state.set("last seen", b"2").unwrap();
    state.set("other", b"").unwrap();
    state.remove("other").unwrap();
    drop(state);
    let state = State::open(&path).unwrap();
    assert_eq!(state.get("last seen").unwrap(), Some(b"2".to_vec()));
    assert_eq!(state.get("other").unwrap(), None);
}

#[test]
fn threads_and_openers_write_side_by_side() {
    let (_dir, path, _state) = open();
    thread::scope(|scope| {
        for place in 0..4u32 {
            let path = &path;
            scope.spawn(move || {
                let state = State::open(path).unwrap();
                for round in 0..20 {
                    let mut writer = state.writer(SOURCE).unwrap();
                    writer
                        .replace_dir(&dir_key(place * 100 + round), 1, vec![vec![place as u8; 2000]])
                        .unwrap();
                    writer.finish().unwrap();
                    state.set(&format!("{place} {round}"), b"x").unwrap();
                }
            });
        }
    });
    let state = State::open(&path).unwrap();
    for place in 0..4 {
        for round in 0..20 {
            assert_eq!(pages(&state, place * 100 + round), [(1, vec![place as u8; 2000])]);
        }
    }
}

#[test]
fn foreign_newer_and_damaged_files_are_set_aside() {
    let (_dir, path, state) = open();
    state.set("fact", b"old").unwrap();
    drop(state);
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer
        .execute_batch("PRAGMA user_version = 2; PRAGMA wal_checkpoint(TRUNCATE);")
        .unwrap();
    drop(newer);
    let state = State::open(&path).unwrap();
    assert_eq!(state.get("fact").unwrap(), None);
    state.set("fact", b"new").unwrap();
    assert!(path.with_extension("old").exists());
    drop(state);

    for content in
        [&b"this is no database, whatever its name may be; it is long enough to have a header, though"[..]; 2]
    {
        fs::remove_file(path.with_extension("old")).unwrap();
        // With its log still there SQLite would mend the file, which is fine too.
        let _ = fs::remove_file(path.with_file_name("state-wal"));
        fs::write(&path, content).unwrap();
        let state = State::open(&path).unwrap();
        assert_eq!(state.get("fact").unwrap(), None);
        assert_eq!(fs::read(path.with_extension("old")).unwrap(), content);
    }

    fs::remove_file(&path).unwrap();
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE kv (x)")
        .unwrap();
    State::open(&path).unwrap().set("fact", b"x").unwrap();
}

#[test]
fn damage_inside_reads_as_absence_and_is_gone_after_the_next_open() {
    let (_dir, path, state) = open();
    let mut writer = state.writer(SOURCE).unwrap();
    for number in 0..500 {
        writer.replace_dir(&dir_key(number), 1, vec![vec![1; 900]]).unwrap();
    }
    writer.finish().unwrap();
    drop(state);
    let checkpoint = rusqlite::Connection::open(&path).unwrap();
    checkpoint
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    drop(checkpoint);
    let mut bytes = fs::read(&path).unwrap();
    let length = bytes.len();
    bytes[8192..length - 8192].fill(0xff);
    fs::write(&path, bytes).unwrap();

    let state = State::open(&path).unwrap();
    let reader = state.reader().unwrap();
    let found = (0..500)
        .filter(|number| reader.get_page(&SOURCE, &dir_key(*number), 0).unwrap().is_some())
        .count();
    assert!(found < 500, "the damage was not met");
    let mut writer = state.writer(SOURCE).unwrap();
    writer.replace_dir(&dir_key(250), 2, vec![vec![1; 900]]).unwrap();
    assert!(matches!(writer.finish(), Err(Error::StateDamaged { .. })));
    drop((reader, state));
    let state = State::open(&path).unwrap();
    let mut writer = state.writer(SOURCE).unwrap();
    writer.replace_dir(&dir_key(250), 2, vec![vec![1; 900]]).unwrap();
    writer.finish().unwrap();
    assert_eq!(pages(&state, 250).len(), 1);
}

#[test]
fn a_state_whose_facts_cannot_be_read_is_begun_anew_at_once() {
    let (_dir, path, state) = open();
    for number in 0..400 {
        state.set(&format!("fact {number}"), &[7; 100]).unwrap();
    }
    drop(state);
    let checkpoint = rusqlite::Connection::open(&path).unwrap();
    checkpoint
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    drop(checkpoint);
    let sound = State::open_sound(&path, &["fact 0", "fact 399", "none"]).unwrap();
    assert_eq!(sound.get("fact 0").unwrap(), Some(vec![7; 100]));
    drop(sound);
    let mut bytes = fs::read(&path).unwrap();
    let length = bytes.len();
    bytes[3 * 8192..length].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let facts: Vec<String> = (0..400).map(|number| format!("fact {number}")).collect();
    let facts: Vec<&str> = facts.iter().map(String::as_str).collect();
    let state = State::open_sound(&path, &facts).unwrap();
    assert!(facts.iter().all(|fact| state.get(fact).unwrap().is_none()));
    state.set("fact 0", b"new").unwrap();
    state.sync().unwrap();
    drop(state);
    assert_eq!(
        State::open_sound(&path, &facts).unwrap().get("fact 0").unwrap(),
        Some(b"new".to_vec())
    );
}
