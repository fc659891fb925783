//! Dropping snapshots and collecting garbage, as a user does.

use std::fs;

use crate::runner::{Home, files_below, noise};

fn ids(home: &Home) -> Vec<String> {
    let lines = home.run(["snapshots", "--json"]).ok().json();
    let snapshots = lines.iter().filter(|line| line["type"] == "snapshot");
    snapshots.map(|line| line["id"].as_str().unwrap().to_owned()).collect()
}

fn stored_bytes(home: &Home) -> u64 {
    let files = files_below(&home.vault().join("packs"));
    files.iter().map(|file| fs::metadata(file).unwrap().len()).sum()
}

#[test]
fn what_is_forgotten_is_freed_and_the_rest_restores() {
    let home = Home::backed_up();
    home.write("src/dir/deep/c.bin", &noise(400_000)[100_000..]);
    home.run(["backup", "src"]).ok();
    let all = ids(&home);
    let before = stored_bytes(&home);

    let listed = home.run(["forget", "--keep-last", "1", "--dry-run"]).ok().out();
    assert!(
        listed.contains("drop  ") && listed.contains("keep  ") && listed.contains("(last)"),
        "{listed}"
    );
    assert_eq!(ids(&home), all);
    let lines = home.run(["forget", "--keep-last", "1", "--json"]).ok().json();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["keep"].as_array().unwrap().len(), 0);
    assert_eq!(lines[2]["forgotten"][0], *all[0]);
    assert_eq!(ids(&home), all[1..]);
    assert_eq!(stored_bytes(&home), before, "forgetting frees nothing");

    let said = home.run(["gc", "--dry-run"]).ok().out();
    assert!(said.contains("would delete"), "{said}");
    assert_eq!(stored_bytes(&home), before);
    let report = home.run(["gc", "--json"]).ok().object();
    assert_eq!((&report["type"], &report["exit"]), (&"gc".into(), &"ok".into()));
    assert!(report["deleted_bytes"].as_u64().unwrap() > 100_000, "{report}");
    assert!(stored_bytes(&home) < before - 90_000);
    home.run(["check"]).ok();
    home.run(["restore", "latest", "--target", "back"]).ok();
    let restored = files_below(&home.path("back"));
    assert_eq!(restored.iter().filter(|path| path.ends_with("c.bin")).count(), 1);
    // The next backup finds what it needs and stores what is gone.
    home.write("src/dir/deep/c.bin", &noise(300_000));
    home.run(["backup", "src"]).ok();
    home.run(["check"]).ok();
}

#[test]
fn what_is_not_meant_stays() {
    let home = Home::backed_up();
    home.run(["backup", "src", "--host", "other", "--tag", "first"]).ok();
    home.run(["backup", "src", "--host", "other"]).ok();
    let all = ids(&home);
    let drops = |filter: [&str; 2]| {
        let rules = ["forget", "--keep-last", "1", "--dry-run", "--json"];
        let lines = home.run([rules.as_slice(), &filter].concat()).ok().json();
        let dropped = lines.last().unwrap()["forgotten"].as_array().unwrap().clone();
        (lines.len() - 1, dropped)
    };
    let src = home.path("src");
    assert_eq!(drops(["--host", "other"]), (2, vec![all[1].clone().into()]));
    assert_eq!(drops(["--tag", "first"]), (1, vec![]));
    assert_eq!(drops(["--path", src.to_str().unwrap()]).0, 3);
    assert_eq!(drops(["--path", "/elsewhere"]), (0, vec![]));
    home.run(["forget", &all[0], "--host", "other"]).code(2);
}

#[test]
fn a_span_that_can_mean_minutes_or_months_is_refused_before_anything_goes() {
    let home = Home::backed_up();
    home.run(["backup", "src"]).ok();
    for option in ["--keep-within", "--grace"] {
        home.run(["forget", "--keep-last", "1", option, "7m"])
            .code(2)
            .says(&["7min", "7mo"]);
    }
    home.run(["find", "*", "--newer", "7m"]).code(2).says(&["7min", "7mo"]);
    assert_eq!(ids(&home).len(), 2);
    let kept = home.run(["forget", "--keep-within", "7mo", "--json"]).ok().json();
    assert_eq!(kept.last().unwrap()["kept"], 2);
    home.run(["forget", "--keep-daily", "x"])
        .code(2)
        .says(&["--keep-daily", "whole number"]);
}

#[test]
fn what_matches_nothing_is_said() {
    let home = Home::backed_up();
    home.run(["backup", "src", "--host", "nas", "--tag", "weekly"]).ok();
    for verb in [&["snapshots"][..], &["forget", "--keep-last", "1"]] {
        let said = |filter: &[&str]| home.run([verb, filter].concat()).ok().err();
        assert!(said(&["--host", "typo"]).contains("no snapshot is of host `typo`; there are "));
        assert!(said(&["--host", "typo", "-q"]).contains("nas"), "also with -q");
        assert!(said(&["--tag", "monthly"]).contains("no snapshot has the tag `monthly`; there are weekly"));
        assert!(said(&["--path", "/elsewhere"]).contains("no snapshot is of /elsewhere"));
        assert!(!said(&["--path", "src/dir"]).contains("no snapshot"), "from here");
        assert!(said(&["--host", "nas", "--tag", "monthly", "--path", "/elsewhere"]).contains("monthly"));
        let other = home.run(["snapshots", "--json"]).ok().json()[0]["host"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(said(&["--host", &other, "--tag", "weekly"]).contains("all of these filters together"));
        let warning = home.run([verb, &["--host", "typo", "--json"]].concat()).ok();
        assert!(
            crate::runner::json_lines(&warning.err())[0]["message"]
                .as_str()
                .unwrap()
                .contains("typo")
        );
        assert_eq!(ids(&home).len(), 2);
    }
    let said = home
        .run(["forget", "--keep-tag", "weakly", "--keep-last", "9"])
        .ok()
        .err();
    assert!(
        said.contains("no snapshot has the tag `weakly`; there are weekly"),
        "{said}"
    );
    home.run(["find", "*.nothing"])
        .code(1)
        .says(&["nothing matches `*.nothing`"]);
    home.run(["find", "a.txt", "--larger", "1GB"])
        .ok()
        .says(&["nothing was found"]);
    for line in [
        &["backup", "src", "--tag", ""][..],
        &["backup", "src", "--host", " "],
        &["snapshots", "--host", ""],
    ] {
        home.run(line).code(2).says(&["it is empty"]);
    }
}

#[test]
fn long_lists_of_paths_take_no_more_than_a_line_and_need_not_part_snapshots() {
    let home = Home::new();
    for list in 0..3 {
        let paths: Vec<String> = (0..40 + list).map(|at| format!("src/file-{at}")).collect();
        paths.iter().for_each(|path| home.write(path, b"x"));
        home.write("list", paths.join("\n").as_bytes());
        home.run(["backup", "--files-from", "list"]).ok();
    }
    let lines = home.run(["snapshots"]).ok().out();
    assert!(
        lines
            .lines()
            .all(|line| line.len() < 600 && line.contains(" more paths (all with --json)")),
        "{lines}"
    );
    assert_eq!(
        home.run(["snapshots", "--json"]).ok().json()[0]["paths"]
            .as_array()
            .unwrap()
            .len(),
        40
    );
    let dropped = |groups: &str| {
        let line = [
            "forget",
            "--keep-last",
            "1",
            "--dry-run",
            "--json",
            "--group-by",
            groups,
        ];
        let lines = home.run(line).ok().json();
        lines.last().unwrap()["forgotten"].as_array().unwrap().len()
    };
    assert_eq!((dropped("host,paths"), dropped("host"), dropped("none")), (0, 2, 2));
    home.run(["forget", "--keep-last", "1", "--group-by", "hosts"])
        .code(2)
        .says(&["host, paths"]);
}

#[test]
fn what_would_leave_nothing_is_refused() {
    let home = Home::backed_up();
    home.run(["forget"]).code(2).says(&["next: drystone forget --keep"]);
    home.run(["forget", "--keep-tag", "none"])
        .code(1)
        .says(&["nothing was dropped", "--allow-empty"]);
    let id = ids(&home).remove(0);
    home.run(["forget", &id, "--keep-last", "1"]).code(2);
    home.run(["forget", "ffffffff"]).code(1).says(&["no snapshot"]);
    home.run(["forget", "--keep-within", "30x"]).code(2);
    home.run(["forget", &id[..8]]).ok();
    assert!(ids(&home).is_empty());
    home.run(["restore", &id, "--target", "back"])
        .code(1)
        .says(&["no snapshot"]);
    home.run(["gc"]).ok();
    assert_eq!(stored_bytes(&home), 0);
    home.run(["backup", "src"]).ok();
    home.run(["check"]).ok();
}

/// What a file cache knows of a forgotten backup is asked for again.
#[test]
fn a_backup_after_everything_was_freed_is_whole() {
    let home = Home::backed_up();
    home.run(["forget", "latest"]).ok();
    home.run(["gc"]).ok();
    assert_eq!(stored_bytes(&home), 0);
    home.run(["backup", "src"]).ok();
    home.run(["check"]).ok();
    home.run(["restore", "latest", "--target", "back"]).ok();
    let restored = files_below(&home.path("back"));
    let found = restored.iter().find(|path| path.ends_with("c.bin")).unwrap();
    assert_eq!(fs::read(found).unwrap(), noise(300_000));
}

#[test]
fn a_writer_key_forgets_and_frees_nothing() {
    let home = Home::backed_up();
    let added = home.run(["key", "add", "--writer", "--generate", "w.key", "--json"]);
    if added.err().contains("unexpected argument") {
        panic!("{}", added.err());
    }
    added.ok();
    let id = ids(&home).remove(0);
    home.run(["gc", "--key-file", "w.key"]).code(12).says(&["owner key"]);
    home.run(["forget", &id, "--key-file", "w.key"])
        .code(12)
        .says(&["owner key"]);
    assert_eq!(ids(&home), [id]);
}

#[test]
fn a_snapshot_that_is_named_twice_is_dropped_once() {
    let home = Home::backed_up();
    home.run(["backup", "src"]).ok();
    let dropped = home.run(["forget", "latest", "latest"]).ok().out();
    assert!(dropped.contains("dropped 1 snapshot"), "{dropped}");
    assert_eq!(home.run(["snapshots"]).ok().out().lines().count(), 1);
}
