//! `place`: what a change keeps, and what a person is told of it.

use std::fs;

use serde_json::{Value, json};

use crate::runner::Home;

/// A home whose vault is spread 2/3 over the directories a, b and c, with one backup.
fn spread() -> Home {
    let home = Home::new();
    home.write("src/a.txt", b"first file\n");
    let init = [
        "init", "--place", "a", "--place", "b", "--place", "c", "--spread", "2/3",
    ];
    let said = home.run(init).ok().err();
    let name = format!(
        "vault = \"{}/a,",
        home.path("").display().to_string().trim_end_matches('/')
    );
    assert!(said.contains("[profile.default]") && said.contains(&name), "{said}");
    home.run(["backup", "src", "--vault", "a"]).ok();
    home
}

/// How the place in the directory `b` is used.
fn used(home: &Home) -> Value {
    let list = home.run(["place", "list", "--vault", "a", "--json"]).ok().object();
    let places = list["places"].as_array().unwrap();
    let place = places
        .iter()
        .find(|place| place["url"].as_str().unwrap().ends_with("/b"))
        .unwrap();
    let keys = ["weight", "append_only", "archive", "up_bytes_per_s", "down_bytes_per_s"];
    Value::Array(keys.iter().map(|key| place[key].clone()).collect())
}

#[test]
fn what_is_not_given_to_set_stays_as_it_is() {
    let home = spread();
    let set = |more: &[&str]| {
        let args = ["place", "set", "b", "--vault", "a"];
        home.run(args.iter().chain(more)).ok();
        used(&home)
    };
    assert_eq!(
        set(&["--append-only", "--weight", "2"]),
        json!([2, true, false, null, null])
    );
    assert_eq!(set(&["--up-limit", "5MB"]), json!([2, true, false, 5_000_000, null]));
    assert_eq!(set(&["--archive"]), json!([2, true, true, 5_000_000, null]));
    let last = [
        "--append-only=false",
        "--archive=false",
        "--up-limit",
        "0",
        "--weight",
        "1",
    ];
    assert_eq!(set(&last), json!([1, false, false, null, null]));
}

#[test]
fn replacing_a_lost_place_tells_of_no_trouble_but_the_loss() {
    let home = spread();
    fs::remove_dir_all(home.path("b")).unwrap();
    let lost = home
        .run(["backup", "src", "--vault", "a"])
        .code(3)
        .says(&["/b: this place is not there", "when it is back"]);
    assert!(!lost.err().contains("writers/"), "{}", lost.err());
    let doctor = home.run(["doctor", "--vault", "a"]).code(3).out();
    assert!(
        doctor.contains("bring back or replace the places that are away"),
        "{doctor}"
    );
    let replaced = home.run(["place", "replace", "b", "new/", "--vault", "a"]).ok();
    let warnings: Vec<String> = replaced
        .err()
        .lines()
        .filter(|line| line.starts_with("warning"))
        .map(str::to_owned)
        .collect();
    assert!(
        warnings.len() == 1 && warnings[0].contains("/b: this place is not there"),
        "{warnings:?}"
    );
    home.run(["check", "--vault", "new"]).ok();
}

#[test]
fn what_lies_at_a_place_that_is_away_is_not_called_lost() {
    let home = spread();
    fs::rename(home.path("b"), home.path("b-away")).unwrap();
    home.write("src/b.txt", b"stored at two places only\n");
    home.run(["backup", "src", "--vault", "a"]).code(3);
    fs::rename(home.path("b-away"), home.path("b")).unwrap();
    fs::rename(home.path("c"), home.path("c-away")).unwrap();
    let restore = home
        .run(["restore", "latest", "--target", "back", "--vault", "a"])
        .code(3);
    assert!(
        restore.err().contains("may be at the places that are away"),
        "{}",
        restore.err()
    );
    let check = home.run(["check", "--vault", "a"]).code(3);
    assert!(!check.err().contains("lost"), "{}", check.err());
    assert!(
        check.err().contains("bring back the place that is away"),
        "{}",
        check.err()
    );
    let doctor = home.run(["doctor", "--vault", "a"]).code(3).out();
    assert!(doctor.contains("cannot be read while a place is away"), "{doctor}");
    fs::rename(home.path("c-away"), home.path("c")).unwrap();
    home.run(["repair", "--vault", "a"]).code(4);
    home.run(["check", "--vault", "a"]).ok();
}

/// The last object of a run, whose exit the runner compares with that of the process.
fn last(home: &Home, line: &[&str], code: i32) -> Value {
    let mut objects = home.run([line, &["--json"]].concat()).code(code).json();
    objects.pop().unwrap()
}

#[test]
fn what_a_run_says_for_programs_is_what_it_ends_with() {
    let home = spread();
    let vault = ["--vault", "a"];
    let run = |line: &[&str], code: i32| last(&home, &[&vault, line].concat(), code)["exit"].clone();
    assert_eq!(run(&["backup", "src"], 0), "ok");
    fs::rename(home.path("c"), home.path("away")).unwrap();
    // Something is owed to the place that is away.
    for line in [
        &["backup", "src"][..],
        &["key", "add", "--generate", "new.key"],
        &["key", "recovery"],
        &["forget", "--keep-last", "1"],
        &["repair", "--dry-run"],
    ] {
        assert_eq!(run(line, 3), "incomplete", "{line:?}");
    }
    assert_eq!(run(&["stats"], 0), "ok");
    assert_eq!(run(&["place", "list"], 0), "ok");
    // Packs that move were never damaged.
    assert_eq!(run(&["place", "replace", "c", "d"], 0), "ok");
    assert_eq!(run(&["place", "add", "e", "--later"], 0), "ok");
    // Each pack has a shard at `d`; whether `e` gets any is a matter of chance.
    assert_eq!(run(&["place", "replace", "d", "f", "--later"], 0), "ok");
    assert_eq!(run(&["repair"], 4), "repaired");
    assert_eq!(run(&["place", "set", "e", "--weight", "2"], 0), "ok");
    assert_eq!(run(&["vault", "show"], 0), "ok");
}

#[test]
fn what_still_names_a_place_that_was_replaced_is_said() {
    let home = spread();
    home.run(["place", "replace", "b", "d", "--vault", "a"]).ok();
    fs::remove_dir_all(home.path("b")).unwrap();
    let said = |line: &[&str], env: &[(&str, &str)]| home.run_with(line, env).ok().err();
    let by_variable = said(&["stats"], &[("DRYSTONE_VAULT", "a,./b")]);
    assert!(
        by_variable.contains("/b: is not there, and is no place of this vault; DRYSTONE_VAULT names it"),
        "{by_variable}"
    );
    assert!(said(&["stats", "--vault", "a,./b"], &[]).contains("; --vault names it"));
    home.write(
        "home/.config/drystone/config.toml",
        b"[profile.default]\nvault = '../../../a,../../../b'\n",
    );
    let by_profile = said(&["stats"], &[]);
    assert!(
        by_profile.contains("the profile in the configuration file names it"),
        "{by_profile}"
    );
}
