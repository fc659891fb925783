//! `drill`: what it restores, what it finds, and what is remembered of it.

use std::fs;
use std::os::unix::fs::FileExt;

use crate::runner::{Home, files_below};

#[test]
fn a_drill_is_remembered_and_leaves_nothing_behind() {
    let home = Home::backed_up();
    assert!(home.run(["stats"]).ok().out().contains("never on this machine"));
    let report = home
        .run(["drill", "--all", "--json", "--into", "scratch"])
        .ok()
        .object();
    assert_eq!((&report["files"], &report["exit"]), (&3.into(), &"ok".into()));
    let of_snapshot = &report["snapshots"][0];
    assert!(of_snapshot["chunks"].as_u64().unwrap() > 2, "{report}");
    assert_eq!(of_snapshot["same_files"], 3, "{report}");
    assert_eq!(fs::read_dir(home.path("scratch")).unwrap().count(), 0);
    let stats = home.run(["stats", "--json"]).ok().object();
    assert_eq!(
        (&stats["last_drill"]["files"], &stats["last_drill"]["problem_count"]),
        (&3.into(), &0.into())
    );
    assert_eq!(stats["last_drill"], stats["last_sound_drill"]);
    let text = home.run(["stats"]).ok().out();
    assert!(
        text.contains("just now: 3 files") && text.contains("no problems"),
        "{text}"
    );
}

#[test]
fn the_latest_of_every_group_is_drilled_and_a_sample_can_be_kept() {
    let home = Home::backed_up();
    home.write("src/a.txt", b"changed\n");
    home.run(["backup", "src"]).ok();
    home.run(["backup", "src", "--host", "elsewhere"]).ok();
    let report = home.run(["drill", "--json", "--keep", "--seed", "7"]).ok().object();
    assert_eq!(
        (&report["seed"], report["snapshots"].as_array().unwrap().len()),
        (&7.into(), 2)
    );
    for part in report["snapshots"].as_array().unwrap() {
        let is_here = part["host"] != "elsewhere";
        assert_eq!(part["same_files"].as_u64().unwrap() > 0, is_here, "{part}");
        let kept = std::path::Path::new(part["kept"].as_str().unwrap());
        assert_eq!(files_below(kept).len() as u64, part["files"].as_u64().unwrap());
    }
    let one = home.run(["drill", "latest", "--share", "100%"]).ok().out();
    assert!(one.contains("drilled: 3 files"), "{one}");
    home.run(["drill", "--share", "0%"]).code(2);
    home.run(["drill", "nothing"]).code(1);
}

#[test]
fn damage_is_named_remembered_and_ends_with_its_code() {
    let home = Home::backed_up();
    home.run(["drill", "--all"]).ok();
    let doctor = home.run(["doctor"]).ok().out();
    assert!(doctor.contains("Last drill: just now"), "{doctor}");
    let source = home.path("src/dir/deep/c.bin");
    let file = fs::OpenOptions::new().write(true).open(&source).unwrap();
    let before = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(b"!", 1234).unwrap();
    file.set_modified(before).unwrap();
    let ran = home.run(["drill", "--all"]).code(5).says(&["c.bin", "byte 1234"]);
    assert!(ran.out().contains("1 problem"), "{}", ran.out());
    let doctor = home.run(["doctor", "--json"]).ok().object();
    assert_eq!(doctor["last_drill"]["problem_count"], 1);
    let stats = home.run(["stats", "--json"]).ok().object();
    assert_eq!(stats["last_drill"]["problem_count"], 1);
    assert_eq!(stats["last_sound_drill"]["problem_count"], 0);
    let packs = files_below(&home.vault().join("packs"));
    let largest = packs.iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = fs::read(largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(largest).unwrap();
    fs::write(largest, bytes).unwrap();
    let report = home.run(["drill", "--all", "--json"]).code(5).object();
    let path = &report["snapshots"][0]["problems"][0]["path"];
    assert!(path.as_str().unwrap().contains("src/"), "{report}");
    assert_eq!(report["exit"], "damaged");
}
