//! Nobody takes for whole what is marked as not whole, and no pattern that matches nothing goes unsaid.

use drystone_backup::{
    CopyOptions, DrillOptions, DrillReport, Keep, Patterns, RestoreMode, Selection, Share, Watch, copy, drill, dump_tar,
};
use drystone_format::codec::Compression;
use drystone_format::recipe::Recipe;
use drystone_format::snapshot::Snapshot;
use drystone_format::tree::{Entry, Kind, Marks};
use drystone_vault::{Cancel, CheckOptions, Problems, Progress};

use crate::vaults::{Fixture, Putter, entry, options};

fn said(problems: &Problems) -> Vec<String> {
    let mut said: Vec<String> = problems
        .iter()
        .map(|problem| String::from_utf8(problem.path.clone()).unwrap())
        .collect();
    said.sort();
    said
}

fn marked(name: &str, kind: Kind, marks: u64) -> Entry {
    Entry {
        marks: Marks(marks),
        ..entry(name, kind)
    }
}

/// A file with a hole where bytes were lost, one that mixes two states, a directory that is not all there, and good ones.
fn tree(putter: &mut Putter) -> Recipe {
    let inner = vec![
        marked("lost", putter.sparse(&[Ok(b"head"), Err(5000)]), Marks::INCOMPLETE),
        entry("good", putter.file(b"good")),
    ];
    let entries = vec![
        marked("mixed", putter.file(b"mixed"), Marks::CHANGED_WHILE_READ),
        marked("part", Kind::Dir(putter.dir(inner)), Marks::INCOMPLETE),
        entry("good", putter.file(b"good")),
    ];
    putter.dir(entries)
}

const EXPECTED: [&str; 3] = ["mixed", "part", "part/lost"];

fn run_drill(fixture: &Fixture, snapshot: &Snapshot) -> DrillReport {
    let into = tempfile::tempdir().unwrap();
    let options = DrillOptions {
        share: Share::ALL,
        seed: 1,
        into: into.path().join("scratch"),
        keep: Keep::Remove,
        source: None,
        within: None,
        threads: 2,
        progress: Default::default(),
        cancel: Cancel::default(),
    };
    drill(&fixture.vault, snapshot, &options).unwrap()
}

#[test]
fn what_is_marked_as_not_whole_is_said_by_whatever_gives_it_back() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    let snapshot = fixture.put(tree);
    fixture.publish(&snapshot);
    let mut options = options(&target.path().join("new"));
    for mode in [RestoreMode::DryRun, RestoreMode::Write, RestoreMode::Write] {
        options.mode = mode;
        let report = fixture.restore(&snapshot, &options);
        assert!(report.problems.is_empty());
        assert_eq!(
            (said(&report.incomplete), report.files),
            (EXPECTED.map(str::to_owned).to_vec(), 4)
        );
    }
    let reader = fixture.vault.reader().unwrap();
    for (path, expected) in [
        ("/part", vec![".", "lost"]),
        ("/part/lost", vec!["lost"]),
        ("/good", vec![]),
    ] {
        let selection = Selection::find(&reader, &snapshot, path.as_bytes()).unwrap();
        options.target = target.path().join(format!("alone{}", path.replace('/', "-")));
        let report = drystone_backup::restore(&fixture.vault, &selection, &options).unwrap();
        assert_eq!(said(&report.incomplete), expected);
    }
    let (progress, cancel, mut out) = (Progress::default(), Cancel::default(), Vec::new());
    let watch = Watch {
        progress: &progress,
        cancel: &cancel,
    };
    let dumped = dump_tar(&reader, &Selection::whole(&snapshot), &mut out, watch).unwrap();
    assert_eq!(
        (said(&dumped.incomplete), dumped.problems.count()),
        (EXPECTED.map(str::to_owned).to_vec(), 0)
    );
    let drilled = run_drill(&fixture, &snapshot);
    assert_eq!(
        (said(&drilled.incomplete), drilled.problems.count()),
        (EXPECTED.map(str::to_owned).to_vec(), 0)
    );
    let checked = fixture.vault.check(&CheckOptions::default()).unwrap();
    assert!(checked.problems.is_empty());
    assert_eq!(checked.incomplete.count(), 3);
}

/// The root directory of the source cannot be read to its end: no entry of the copy can say so.
#[test]
fn a_copy_without_the_rest_of_its_root_says_so() {
    let (from, to) = (Fixture::new(), Fixture::new());
    let snapshot = from.put(|putter| {
        let good = entry("a", putter.file(b"a")).encode();
        putter.raw_dir(&[good, b"no entry".to_vec()])
    });
    let id = from.publish(&snapshot);
    let how = CopyOptions {
        compression: Compression::DEFAULT,
        mode: Default::default(),
        threads: 2,
        progress: Default::default(),
        cancel: Cancel::default(),
    };
    let report = copy(&from.vault, &to.vault, &[id], &how).unwrap();
    let copied = to.vault.snapshot(&report.copied[0].1.unwrap()).unwrap();
    let target = tempfile::tempdir().unwrap();
    for mode in [RestoreMode::DryRun, RestoreMode::Write] {
        let mut options = options(target.path());
        options.mode = mode;
        assert_eq!(said(&to.restore(&copied, &options).incomplete), ["."]);
    }
    let (progress, cancel, mut out) = (Progress::default(), Cancel::default(), Vec::new());
    let watch = Watch {
        progress: &progress,
        cancel: &cancel,
    };
    let reader = to.vault.reader().unwrap();
    let dumped = dump_tar(&reader, &Selection::whole(&copied), &mut out, watch).unwrap();
    assert_eq!(said(&dumped.incomplete), ["."]);
    assert_eq!(said(&run_drill(&to, &copied).incomplete), ["."]);
}

#[test]
fn patterns_that_match_nothing_are_named() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    let snapshot = fixture.put(tree);
    let mut options = options(target.path());
    let mut unmatched = |include: &[&str], exclude: &[&str]| {
        options.include = Patterns::new(include).unwrap();
        options.exclude = Patterns::new(exclude).unwrap();
        let report = fixture.restore(&snapshot, &options);
        options.mode = match options.mode {
            RestoreMode::Write => RestoreMode::DryRun,
            RestoreMode::DryRun => RestoreMode::Write,
        };
        report.unmatched
    };
    for _ in 0..2 {
        assert_eq!(unmatched(&["good"], &[]), Vec::<String>::new());
        // Also those that say no more than the ones before or after.
        assert_eq!(
            unmatched(&["part/", "lost", "/part/lost", "g*", "good"], &[]),
            Vec::<String>::new()
        );
        assert_eq!(unmatched(&["part", "typo", "/home/me"], &[]), ["typo", "/home/me"]);
        assert_eq!(unmatched(&["lost", "good"], &["part"]), ["lost"]);
        assert_eq!(unmatched(&["*", "!mixed"], &[]), Vec::<String>::new());
    }
    for never in ["./x", "../x", "a/../b", "a/./b", "#h", "", "!./x"] {
        assert!(Patterns::new([never]).is_err(), "{never}");
    }
    assert!(Patterns::new(["\\#h", "a.b/..c", "~/x"]).is_ok());
}
