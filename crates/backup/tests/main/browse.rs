//! Looking into snapshots: paths, listings, finding, comparing.

use drystone_backup::{Change, Depth, Diff, Difference, Error, FileKind, FindOptions, List, Patterns, Selection, find};
use drystone_format::snapshot::Snapshot;
use drystone_format::tree::{Kind, Time};
use drystone_vault::Cancel;

use crate::vaults::{Fixture, entry, noise};

/// `home/user` with files, next to `etc`; `edit` changes the entries of `home/user` before they are stored.
fn sample(fixture: &Fixture, edit: impl FnOnce(&mut Vec<drystone_format::tree::Entry>)) -> Snapshot {
    fixture.put(|putter| {
        let pictures = vec![
            entry("a.jpg", putter.file(&noise(1, 5000))),
            entry("b.png", putter.file(&noise(2, 70_000))),
        ];
        let pictures = putter.dir(pictures);
        let mut user = vec![
            entry("Pictures", Kind::Dir(pictures)),
            entry("notes", putter.file(b"notes")),
            entry("link", Kind::Symlink(b"notes".to_vec())),
        ];
        edit(&mut user);
        let user = putter.dir(user);
        let home = putter.dir(vec![entry("user", Kind::Dir(user))]);
        let etc = vec![entry("hosts", putter.file(b"hosts"))];
        let etc = putter.dir(etc);
        putter.dir(vec![entry("home", Kind::Dir(home)), entry("etc", Kind::Dir(etc))])
    })
}

fn names(listed: impl Iterator<Item = drystone_backup::Result<drystone_backup::Listed>>) -> Vec<String> {
    listed
        .map(|listed| String::from_utf8(listed.unwrap().path).unwrap())
        .collect()
}

#[test]
fn paths_are_found_or_refused() {
    let fixture = Fixture::new();
    let snapshot = sample(&fixture, |_| {});
    let reader = fixture.vault.reader().unwrap();
    let find = |path: &str| Selection::find(&reader, &snapshot, path.as_bytes());
    for whole in ["", "/", "//"] {
        assert_eq!(find(whole).unwrap(), Selection::whole(&snapshot));
    }
    let notes = find("home//user/notes/").unwrap();
    assert_eq!(notes.path(), b"/home/user/notes");
    assert_eq!(notes.content().unwrap().size_bytes, 5);
    assert!(matches!(find("/home/nobody"), Err(Error::NotFound { .. })));
    assert!(matches!(find("/home/user/notes/x"), Err(Error::WrongKind { .. })));
    assert!(matches!(find("/home/user/link/x"), Err(Error::WrongKind { .. })));
    assert!(matches!(find("/home").unwrap().content(), Err(Error::WrongKind { .. })));
}

#[test]
fn listings_go_one_level_or_all_the_way() {
    let fixture = Fixture::new();
    let snapshot = sample(&fixture, |_| {});
    let reader = fixture.vault.reader().unwrap();
    let list = |path: &str, depth| {
        let selection = Selection::find(&reader, &snapshot, path.as_bytes()).unwrap();
        names(List::new(&reader, &selection, depth))
    };
    assert_eq!(list("", Depth::One), ["/etc", "/home"]);
    assert_eq!(
        list("/home", Depth::All),
        [
            "/home/user",
            "/home/user/Pictures",
            "/home/user/Pictures/a.jpg",
            "/home/user/Pictures/b.png",
            "/home/user/link",
            "/home/user/notes",
        ]
    );
    assert_eq!(list("/home/user/notes", Depth::One), ["/home/user/notes"]);
    assert_eq!(list("", Depth::All).len(), 9);
}

#[test]
fn entries_are_found_by_what_they_are() {
    let fixture = Fixture::new();
    let snapshot = sample(&fixture, |user| user[1].mtime = Time { seconds: 9, nanos: 0 });
    let reader = fixture.vault.reader().unwrap();
    let any = FindOptions {
        patterns: Patterns::NONE,
        kinds: Vec::new(),
        min_bytes: None,
        max_bytes: None,
        newer: None,
        older: None,
    };
    let found = |options: FindOptions| names(find(&reader, &Selection::whole(&snapshot), options, Cancel::default()));
    assert_eq!(found(any.clone()).len(), 9);
    let patterns = Patterns::new(["*.jpg", "/etc/*"]).unwrap();
    let by_name = FindOptions {
        patterns,
        ..any.clone()
    };
    assert_eq!(found(by_name), ["/etc/hosts", "/home/user/Pictures/a.jpg"]);
    let by_kind = FindOptions {
        kinds: vec![FileKind::Symlink],
        ..any.clone()
    };
    assert_eq!(found(by_kind), ["/home/user/link"]);
    let by_size = FindOptions {
        min_bytes: Some(6),
        max_bytes: Some(5000),
        ..any.clone()
    };
    assert_eq!(found(by_size), ["/home/user/Pictures/a.jpg"]);
    let older = Some(Time { seconds: 10, nanos: 0 });
    assert_eq!(found(FindOptions { older, ..any.clone() }), ["/home/user/notes"]);
    let newer = Some(Time {
        seconds: 1_500_000_000,
        nanos: 123_456_789,
    });
    assert_eq!(found(FindOptions { newer, ..any }).len(), 8);
}

#[test]
fn differences_are_told_apart() {
    let fixture = Fixture::new();
    let before = sample(&fixture, |_| {});
    let after = fixture.put(|putter| {
        let pictures = vec![
            entry("b.png", putter.file(&noise(3, 70_000))),
            entry("c", Kind::Symlink(b"x".to_vec())),
        ];
        let mut pictures = entry("Pictures", Kind::Dir(putter.dir(pictures)));
        pictures.mode = 0o700;
        let new = vec![entry("inside", putter.file(b"x"))];
        let user = vec![
            pictures,
            entry("notes", Kind::Fifo),
            entry("link", Kind::Symlink(b"elsewhere".to_vec())),
            entry("new", Kind::Dir(putter.dir(new))),
        ];
        let user = putter.dir(user);
        let home = putter.dir(vec![entry("user", Kind::Dir(user))]);
        let etc = vec![entry("hosts", putter.file(b"hosts"))];
        let etc = putter.dir(etc);
        putter.dir(vec![entry("home", Kind::Dir(home)), entry("etc", Kind::Dir(etc))])
    });
    let reader = fixture.vault.reader().unwrap();
    let diff = |first: &Snapshot, second: &Snapshot| -> Vec<(String, Difference)> {
        let (first, second) = (Selection::whole(first), Selection::whole(second));
        Diff::new((&reader, &first), (&reader, &second))
            .map(|change| {
                let Change { path, difference, .. } = change.unwrap();
                (String::from_utf8(path).unwrap(), difference)
            })
            .collect()
    };
    let expected = |changes: &[(&str, Difference)]| -> Vec<(String, Difference)> {
        let own = |(path, difference): &(&str, Difference)| ((*path).to_owned(), *difference);
        changes.iter().map(own).collect()
    };
    assert_eq!(diff(&before, &before), []);
    use Difference::{Added, Attributes, Content, Kind as Type, Removed};
    let forward = [
        ("home/user/Pictures", Attributes),
        ("home/user/Pictures/a.jpg", Removed),
        ("home/user/Pictures/b.png", Content),
        ("home/user/Pictures/c", Added),
        ("home/user/link", Content),
        ("home/user/new", Added),
        ("home/user/new/inside", Added),
        ("home/user/notes", Type),
    ];
    assert_eq!(diff(&before, &after), expected(&forward));
    assert_eq!(diff(&after, &before).len(), forward.len());
}

#[test]
fn a_damaged_directory_ends_there_and_the_listing_goes_on() {
    let fixture = Fixture::new();
    let snapshot = fixture.put(|putter| {
        let evil = entry("../evil", putter.file(b"x")).encode();
        let first = entry("!first", putter.file(b"x")).encode();
        let broken = entry("broken", Kind::Dir(putter.raw_dir(&[first, evil])));
        let good = entry("good", putter.file(b"x"));
        putter.dir(vec![broken, good])
    });
    let reader = fixture.vault.reader().unwrap();
    let mut list = List::new(&reader, &Selection::whole(&snapshot), Depth::All);
    let mut seen = Vec::new();
    while let Some(listed) = list.next() {
        seen.push(match listed {
            Ok(listed) => String::from_utf8(listed.path).unwrap(),
            Err(error) => {
                assert!(error.is_damage(), "{error}");
                format!("damage in {}", String::from_utf8(list.path()).unwrap())
            }
        });
    }
    assert_eq!(seen, ["/broken", "/broken/!first", "damage in /broken", "/good"]);
}

#[test]
fn the_wish_to_stop_is_heard_where_nothing_is_found_and_nothing_differs() {
    let fixture = Fixture::new();
    let before = sample(&fixture, |_| {});
    let after = sample(&fixture, |user| user.retain(|entry| entry.name != b"link"));
    let reader = fixture.vault.reader().unwrap();
    let (before, after) = (Selection::whole(&before), Selection::whole(&after));
    let cancel = Cancel::default();
    cancel.cancel();
    let nothing = FindOptions {
        patterns: Patterns::new(&["no such name".to_owned()]).unwrap(),
        kinds: Vec::new(),
        min_bytes: None,
        max_bytes: None,
        newer: None,
        older: None,
    };
    let mut found = find(&reader, &before, nothing, cancel.clone());
    assert!(matches!(
        found.next(),
        Some(Err(Error::Vault(drystone_vault::Error::Interrupted)))
    ));
    let mut changes = Diff::new((&reader, &before), (&reader, &after)).until(cancel);
    assert!(matches!(
        changes.next(),
        Some(Err(Error::Vault(drystone_vault::Error::Interrupted)))
    ));
    assert!(changes.next().is_none());
}
