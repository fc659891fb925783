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
