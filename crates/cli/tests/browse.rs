//! `snapshots`, `ls`, `find`, `diff`, `cat`, `dump`, `stats`, `check`, `scrub`: looking without bringing back.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::{Command, Stdio};

use crate::runner::{Home, noise};

fn spot(home: &Home, name: &str) -> String {
    format!("latest:{}", home.path(name).display())
}

#[test]
fn a_directory_is_listed_with_and_without_what_is_below() {
    let home = Home::backed_up();
    let names = home.run(["ls", &spot(&home, "src")]).ok().out();
    assert_eq!(names, "a.txt\ndir/\n");
    let below = home.run(["ls", "-R", &spot(&home, "src")]).ok().out();
    assert_eq!(below, "a.txt\ndir/\ndir/b.txt\ndir/deep/\ndir/deep/c.bin\n");
    let long = home.run(["ls", "-l", &spot(&home, "src")]).ok().out();
    assert!(long.contains("-rw-") && long.contains("drwx"), "{long}");
    let mut lines = home.run(["ls", "--json", &spot(&home, "src")]).ok().json();
    assert_eq!(lines.pop().unwrap()["type"], "summary");
    assert_eq!((&lines[0]["kind"], &lines[0]["size"]), (&"file".into(), &11.into()));
    assert_eq!(lines[0]["path"], home.path("src/a.txt").to_str().unwrap());
    home.run(["ls", "latest:/nowhere"]).code(1).says(&["/nowhere", "next:"]);
    home.run(["ls", "ffff"]).code(1).says(&["ffff", "drystone snapshots"]);
}

#[test]
fn snapshots_are_named_by_the_beginning_of_their_id() {
    let home = Home::backed_up();
    let snapshot = home.run(["snapshots", "--json"]).ok().json().remove(0);
    let id = snapshot["id"].as_str().unwrap();
    home.run(["ls", id]).ok();
    home.run(["ls", &id[..6]]).ok();
    assert!(home.run(["snapshots"]).ok().out().contains(&id[..8]));
    home.run(["backup", "src", "--tag", "x", "--host", "h"]).ok();
    let count = |args: &[&str]| home.run(["snapshots", "--json"].iter().chain(args)).ok().json().len() - 1;
    assert_eq!(count(&[]), 2);
    assert_eq!(count(&["--tag", "x"]), 1);
    assert_eq!(count(&["--host", "h", "--tag", "y"]), 0);
    assert_eq!(count(&["--latest", "1"]), 1);
    assert_eq!(count(&["--path", home.path("src/dir").to_str().unwrap()]), 2);
    assert_eq!(count(&["--path", "/elsewhere"]), 0);
}

#[test]
fn names_that_are_not_text_are_escaped_for_people_and_whole_in_json() {
    let home = Home::new();
    let name = OsString::from_vec(b"od\xffd\x1b[31m\n".to_vec());
    home.write("src/x", b"");
    fs::write(home.path("src").join(&name), b"odd\n").unwrap();
    home.run(["backup", "src"]).ok();
    let listed = home.run(["ls", &spot(&home, "src")]).ok().out();
    assert!(listed.contains("od\\xffd\\u{1b}[31m\\n"), "{listed}");
    let lines = home.run(["ls", "--json", &spot(&home, "src")]).ok().json();
    let hex: String = [home.path("src/").as_os_str().as_bytes(), name.as_bytes()]
        .concat()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(lines.iter().any(|line| line["path_bytes"] == hex.as_str()), "{lines:?}");
    let mut inside = OsString::from(spot(&home, "src/"));
    inside.push(&name);
    assert_eq!(home.run([OsString::from("cat"), inside]).ok().bytes(), b"odd\n");
}

#[test]
fn files_are_found_by_name_kind_and_size() {
    let home = Home::backed_up();
    let found = |args: &[&str]| home.run(["find"].iter().chain(args)).ok().out().lines().count();
    assert_eq!(found(&["*.txt"]), 2);
    assert_eq!(found(&["*.bin", "a.txt"]), 2);
    assert_eq!(found(&["d*", "--type", "dir"]), 2);
    assert_eq!(found(&["*", "--type", "file", "--larger", "100k"]), 1);
    assert_eq!(found(&["*.txt", "--newer", "2000-01-01"]), 2);
    assert_eq!(found(&["*.txt", "--newer", "2999-01-01"]), 0);
    home.run(["backup", "src", "--tag", "again"]).ok();
    assert_eq!(found(&["a.txt"]), 1);
    assert_eq!(found(&["a.txt", "--snapshot", "all"]), 2);
    let lines = home.run(["find", "--json", "c.bin"]).ok().json();
    assert_eq!((&lines[0]["size"], &lines[1]["entries"]), (&300_000.into(), &1.into()));
    home.run(["find", "x", "--newer", "yesterday-ish"]).code(2);
}

#[test]
fn differences_are_listed_by_kind() {
    let home = Home::backed_up();
    let id = home.run(["snapshots", "--json"]).ok().json()[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    home.write("src/a.txt", b"changed\n");
    home.write("src/new", b"new\n");
    fs::remove_file(home.path("src/dir/b.txt")).unwrap();
    home.run(["backup", "src"]).ok();
    let text = home.run(["diff", &id, "latest"]).ok().out();
    let sign = |sign: &str, name: &str| text.lines().any(|line| line.starts_with(sign) && line.ends_with(name));
    assert!(
        sign("M ", "/a.txt") && sign("+ ", "/new") && sign("- ", "/dir/b.txt"),
        "{text}"
    );
    assert!(!text.contains("c.bin"), "{text}");
    let mut lines = home.run(["diff", &id, "latest", "--json"]).ok().json();
    let summary = lines.pop().unwrap();
    assert_eq!(
        (&summary["added"], &summary["removed"], &summary["content"]),
        (&1.into(), &1.into(), &1.into())
    );
    assert_eq!(home.run(["diff", "latest", "latest", "--json"]).ok().json().len(), 1);
}

#[test]
fn content_and_trees_go_to_standard_output() {
    let home = Home::backed_up();
    assert!(home.run(["cat", &spot(&home, "src/dir/deep/c.bin")]).ok().bytes() == noise(300_000));
    home.run(["cat", &spot(&home, "src/dir")])
        .code(1)
        .says(&["regular file", "next:"]);
    let tar = home.run(["dump", &spot(&home, "src")]).ok().bytes().to_vec();
    home.write("t.tar", &tar);
    fs::create_dir(home.path("t")).unwrap();
    let untar = Command::new("tar")
        .args(["-xf", "t.tar", "-C", "t"])
        .current_dir(home.path(""))
        .status()
        .unwrap();
    assert!(untar.success());
    assert_eq!(home.read("t/dir/b.txt"), b"second file\n");
    let json = home.run(["dump", "--json", &spot(&home, "src")]).ok();
    assert_eq!(crate::runner::json_lines(&json.err())[0]["bytes"], tar.len());
}

#[test]
fn a_reader_that_goes_away_is_no_noise() {
    let home = Home::backed_up();
    let mut child = home
        .command(["--quiet", "cat", &spot(&home, "src/dir/deep/c.bin")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert!(ended.stderr.is_empty() && ended.status.code() == Some(1), "{ended:?}");
}

#[test]
fn checks_find_what_is_damaged_and_stats_count() {
    let home = Home::backed_up();
    let check = home.run(["check", "--json"]).ok().object();
    assert_eq!(
        (&check["snapshots"], &check["problem_count"], &check["exit"]),
        (&1.into(), &0.into(), &"ok".into())
    );
    let scrub = home.run(["scrub", "--json", "--share", "100%"]).ok().object();
    assert_eq!(scrub["packs"], check["packs"]);
    let stats = home.run(["stats", "--json"]).ok().object();
    assert_eq!(
        (&stats["snapshots"], &stats["source_bytes"]),
        (&1.into(), &(300_000 + 11 + 12).into())
    );
    for pack in crate::runner::files_below(&home.vault().join("packs")) {
        let mut bytes = fs::read(&pack).unwrap();
        let middle = bytes.len() / 4;
        bytes[middle] ^= 1;
        fs::remove_file(&pack).unwrap();
        fs::write(&pack, bytes).unwrap();
    }
    let scrub = home.run(["scrub", "--json"]).code(5).object();
    assert_eq!(scrub["exit"], "damaged");
    assert_eq!(scrub["problem_count"], scrub["packs"]);
    home.run(["scrub"]).code(5).says(&["packs/"]);
}

#[test]
fn the_one_before_the_latest_is_named_too() {
    let home = Home::backed_up();
    home.write("src/a.txt", b"second\n");
    home.run(["backup", "src"]).ok();
    home.run(["backup", "src/dir"]).ok();
    home.write("src/a.txt", b"third\n");
    home.run(["backup", "src"]).ok();
    let a = |snapshot: &str| home.run(["cat", &format!("{snapshot}:{}", home.path("src/a.txt").display())]);
    assert_eq!(a("latest~0").ok().out(), "third\n");
    assert_eq!(a("latest~1").ok().says(&["latest~1 is "]).out(), "second\n");
    assert_eq!(a("latest~2").ok().out(), "first file\n");
    a("latest~3").code(1).says(&["latest~3"]);
    a("latest~x").code(1).says(&["latest~x"]);
    let changes = home.run(["diff", "latest~1", "latest"]).ok().out();
    assert!(changes.contains("M ") && changes.contains("a.txt"), "{changes}");
    home.run(["forget", "latest~1"]).ok();
    assert_eq!(a("latest~1").ok().out(), "first file\n");
}

#[test]
fn quiet_prints_answers_and_what_is_wrong_and_nothing_else() {
    let home = Home::backed_up();
    home.write("new.key", b"");
    for line in [
        &["backup", "src"][..],
        &["restore", "latest", "--target", "back"],
        &["forget", "--keep-last", "9"],
        &["gc"],
        &["check"],
        &["scrub"],
        &["repair"],
        &["repair", "index"],
        &["key", "add", "--generate", "k.key"],
    ] {
        let ran = home.run([&["-q"], line].concat()).ok();
        assert_eq!((ran.out().as_str(), ran.err().as_str()), ("", ""), "{line:?}");
    }
    for line in [
        &["snapshots"][..],
        &["stats"],
        &["doctor"],
        &["key", "list"],
        &["place", "list"],
        &["backup", "src", "-n"],
        &["gc", "-n"],
        &["key", "recovery"],
    ] {
        assert!(!home.run([&["-q"], line].concat()).ok().out().is_empty(), "{line:?}");
    }
    let pack = crate::runner::files_below(&home.vault().join("packs")).remove(0);
    fs::remove_file(pack).unwrap();
    assert!(home.run(["-q", "check"]).code(5).out().contains("problem"));
}

#[test]
fn times_that_no_calendar_has_are_shown_exactly() {
    // A file system in memory, which takes any time.
    let shm = std::path::Path::new("/dev/shm");
    if !shm.is_dir() {
        eprintln!("LEFT OUT: there is no /dev/shm, whose files may have any time");
        return;
    }
    let home = Home::below(shm);
    home.write("src/far", b"x");
    let touched = Command::new("touch")
        .args(["-d", "@253402300800.5", "src/far"])
        .current_dir(home.path(""))
        .status();
    assert!(touched.unwrap().success());
    home.run(["backup", "src"]).ok();
    let lines = home.run(["ls", "--json", &spot(&home, "src")]).ok().json();
    assert_eq!(lines[0]["mtime"], "@253402300800.5");
    assert!(
        home.run(["ls", "-l", &spot(&home, "src")])
            .ok()
            .out()
            .contains(" @253402300800.5 ")
    );
}
