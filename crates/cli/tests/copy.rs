//! `copy`: into another vault with a key of its own, once, and what cannot be copied.

use std::fs;
use std::path::PathBuf;

use crate::runner::{Home, files_below, noise};

/// A home with a backup and an empty second vault with a key file of its own.
pub(crate) fn two() -> Home {
    let home = Home::backed_up();
    home.run([
        "init",
        "--vault",
        "./second",
        "--key-file",
        "second.key",
        "--chunk-size",
        "256k",
    ])
    .ok();
    home
}

const TO: [&str; 5] = ["copy", "--to", "second", "--to-key-file", "second.key"];

fn restored(home: &Home, name: &str) -> PathBuf {
    home.path("back").join(home.path(name).strip_prefix("/").unwrap())
}

#[test]
fn snapshots_are_copied_once_and_restore_from_the_copy() {
    let home = two();
    let dry = home.run(TO.iter().chain(&["--json", "--dry-run"])).ok().object();
    assert_eq!(
        (&dry["dry_run"], &dry["copied"][0]["copy"]),
        (&true.into(), &serde_json::Value::Null)
    );
    let copied = home.run(TO.iter().chain(&["--json"])).ok().object();
    assert_eq!(
        (&copied["files"], &copied["skipped"], &copied["exit"]),
        (&3.into(), &0.into(), &"ok".into())
    );
    let again = home.run(TO).ok().out();
    assert!(
        again.contains("0 snapshots") && again.contains("1 snapshot there already"),
        "{again}"
    );
    let second = ["--vault", "second", "--key-file", "second.key"];
    let listed = home.run(["snapshots", "--json"].iter().chain(&second)).ok().json();
    let source = home.run(["snapshots", "--json"]).ok().json();
    assert_eq!(listed[0]["origin"]["snapshot"], source[0]["id"]);
    for key in [
        "host", "started", "finished", "paths", "tags", "files", "bytes", "program",
    ] {
        assert_eq!(listed[0][key], source[0][key], "{key}");
    }
    assert_eq!(listed[0]["id"], copied["copied"][0]["copy"]);
    fs::remove_dir_all(home.vault()).unwrap();
    home.run(["restore", "latest", "--target", "back"].iter().chain(&second))
        .ok();
    assert!(fs::read(restored(&home, "src/dir/deep/c.bin")).unwrap() == noise(300_000));
    home.run(["check"].iter().chain(&second)).ok();
}

#[test]
fn only_what_is_named_is_copied_to_a_profile_with_its_own_key() {
    let home = two();
    home.write("src/a.txt", b"another\n");
    home.run(["backup", "src"]).ok();
    let config = "[profile.far]\nvault = '../../../second'\nkey-file = '../../../second.key'\n";
    home.write("home/.config/drystone/config.toml", config.as_bytes());
    let copied = home.run(["copy", "latest", "--to", "far", "--json"]).ok().object();
    assert_eq!(copied["copied"].as_array().unwrap().len(), 1);
    let env = [("DRYSTONE_TO_VAULT", "far")];
    let rest = home.run_with(["copy", "--json"], &env).ok().object();
    assert_eq!(
        (&rest["skipped"], rest["copied"].as_array().unwrap().len()),
        (&1.into(), 1)
    );
    assert!(rest["read_bytes"].as_u64().unwrap() < 1000, "{rest}");
}

#[test]
fn a_wrong_target_is_refused_before_anything_is_done() {
    let home = two();
    home.run(["copy"]).code(2).says(&["--to"]);
    home.run(["copy", "--to", "./nowhere"])
        .code(10)
        .says(&["nowhere", "next:"]);
    // The key of the first vault is not tried on the second.
    home.run(["copy", "--to", "second"]).code(12).says(&["second", "next:"]);
    let own = home.vault().display().to_string();
    home.run(["copy", "--to", &own]).code(2).says(&["copied from"]);
    home.run(["copy", "beef", "--to", "second", "--to-key-file", "second.key"])
        .code(1)
        .says(&["beef"]);
}

#[test]
fn damage_in_the_source_is_listed_and_ends_with_incomplete() {
    let home = two();
    let is_pack = |path: &PathBuf| path.file_name().is_some_and(|name| name.len() == 64);
    let packs = files_below(&home.vault()).into_iter().filter(is_pack);
    let largest = packs.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&largest).unwrap();
    fs::write(&largest, bytes).unwrap();
    let ran = home.run(TO).code(3).says(&["hole"]);
    assert!(ran.out().contains("listed above"), "{}", ran.out());
    let listed = home
        .run(["ls", "-Rl", "latest", "--vault", "second", "--key-file", "second.key"])
        .ok()
        .out();
    assert!(listed.contains("(incomplete)"), "{listed}");
}

#[test]
fn a_writer_key_of_the_target_is_enough() {
    let home = two();
    let second = ["--vault", "second", "--key-file", "second.key"];
    home.run(["key", "add", "--writer", "--generate", "w.key"].iter().chain(&second))
        .ok();
    let writer = ["copy", "--to", "second", "--to-key-file", "w.key", "--json"];
    let first = home.run(writer).ok().object();
    assert_eq!(first["copied"].as_array().unwrap().len(), 1);
    // Of many chunks: a writer cannot see whether all are there, and reads it again.
    home.write("src/long.bin", &noise(20 << 20));
    home.run(["backup", "src"]).ok();
    home.run(writer).ok();
    home.write("src/more.txt", b"more\n");
    home.run(["backup", "src"]).ok();
    let next = home.run(writer).ok().object();
    assert_eq!(
        (&next["skipped"], next["copied"].as_array().unwrap().len()),
        (&2.into(), 1)
    );
    assert_eq!(next["read_bytes"], 5 + (20 << 20), "{next}");
    assert!(next["new_bytes"].as_u64().unwrap() < 4096, "{next}");
    // An owner takes no writer's word for it, and makes copies of its own; nothing new is stored once its scrub has read what the writer stored.
    home.run(["scrub"].iter().chain(&second)).ok();
    let own = home.run(TO.iter().chain(&["--json"])).ok().object();
    assert_eq!(
        (&own["skipped"], own["copied"].as_array().unwrap().len()),
        (&0.into(), 3)
    );
    assert!(own["new_bytes"].as_u64().unwrap() < 4096, "{own}");
    assert_eq!(home.run(TO.iter().chain(&["--json"])).ok().object()["skipped"], 3);
    home.run(["restore", "latest", "--target", "back"].iter().chain(&second))
        .ok();
    assert!(fs::read(restored(&home, "src/dir/deep/c.bin")).unwrap() == noise(300_000));
    // What a writer may not do is read: it cannot be copied from.
    let own = home.vault().display().to_string();
    let kept = files_below(&home.path("home/.config/drystone/keys")).remove(0);
    let from = [
        "copy",
        "--vault",
        "./second",
        "--key-file",
        "w.key",
        "--to",
        &own,
        "--to-key-file",
    ];
    home.run(from.iter().map(AsRef::as_ref).chain([kept.as_os_str()]))
        .code(12)
        .says(&["writer key"]);
}

#[test]
fn without_the_memo_everything_is_read_and_nothing_is_stored_twice() {
    let home = two();
    home.run(TO).ok();
    fs::remove_dir_all(home.path("home/.cache/drystone")).unwrap();
    home.write("src/more.txt", b"more\n");
    home.run(["backup", "src"]).ok();
    let copied = home.run(TO.iter().chain(&["--json"])).ok().object();
    assert_eq!(
        (&copied["skipped"], copied["copied"].as_array().unwrap().len()),
        (&1.into(), 1)
    );
    assert!(copied["read_bytes"].as_u64().unwrap() > 300_000, "{copied}");
    assert!(copied["new_bytes"].as_u64().unwrap() < 4096, "{copied}");
}
