//! `restore`: brings everything back, resumes, says what it could not do.

use std::fs;
use std::path::PathBuf;

use crate::runner::{Home, files_below, noise};

fn restored(home: &Home, name: &str) -> PathBuf {
    home.path("t").join(home.path(name).strip_prefix("/").unwrap())
}

/// The largest pack of the vault.
fn largest_pack(home: &Home) -> PathBuf {
    let packs = files_below(&home.vault().join("packs"));
    let largest = packs.into_iter().max_by_key(|path| fs::metadata(path).unwrap().len());
    largest.unwrap()
}

/// Damages the largest pack of the vault.
fn damage_largest(home: &Home) -> PathBuf {
    let largest = largest_pack(home);
    let mut bytes = fs::read(&largest).unwrap();
    bytes[50_000] ^= 1;
    fs::remove_file(&largest).unwrap();
    fs::write(&largest, bytes).unwrap();
    largest
}

#[test]
fn everything_comes_back_under_its_absolute_path() {
    let home = Home::backed_up();
    let ran = home.run(["restore", "latest", "--target", "t"]).ok();
    assert!(
        ran.out().contains("restored") && ran.out().contains("3 files"),
        "{}",
        ran.out()
    );
    for name in ["src/a.txt", "src/dir/b.txt", "src/dir/deep/c.bin"] {
        assert!(fs::read(restored(&home, name)).unwrap() == home.read(name), "{name}");
    }
    let result = home.run(["restore", "latest", "--target", "t", "--json"]).ok().object();
    assert_eq!(
        (&result["type"], &result["written_bytes"], &result["exit"]),
        (&"restore".into(), &0.into(), &"ok".into())
    );
    assert_eq!(result["unchanged_files"], 3, "{result}");
}

#[test]
fn a_path_inside_the_snapshot_comes_back_alone() {
    let home = Home::backed_up();
    let inside = format!("latest:{}", home.path("src/dir").display());
    home.run(["restore", &inside, "--target", "t"]).ok();
    assert_eq!(fs::read(home.path("t/b.txt")).unwrap(), b"second file\n");
    let file = format!("latest:{}", home.path("src/a.txt").display());
    home.run(["restore", &file, "--target", "one"]).ok();
    assert_eq!(fs::read(home.path("one/a.txt")).unwrap(), b"first file\n");
    home.run(["restore", "latest:/no/such", "--target", "u"])
        .code(1)
        .says(&["/no/such", "next: drystone ls"]);
}

#[test]
fn changed_and_lost_files_are_mended_in_place() {
    let home = Home::backed_up();
    home.run(["restore", "latest", "--target", "t"]).ok();
    fs::write(restored(&home, "src/a.txt"), b"first FILE\n").unwrap();
    fs::remove_file(restored(&home, "src/dir/b.txt")).unwrap();
    fs::write(restored(&home, "src/extra"), b"extra").unwrap();
    let dry = home
        .run(["restore", "latest", "--target", "t", "--dry-run", "--json"])
        .ok()
        .object();
    assert_eq!(dry["dry_run"], true);
    assert_eq!(fs::read(restored(&home, "src/a.txt")).unwrap(), b"first FILE\n");
    home.run(["restore", "latest", "--target", "t", "--overwrite", "never"])
        .ok();
    assert_eq!(fs::read(restored(&home, "src/a.txt")).unwrap(), b"first FILE\n");
    home.run(["restore", "latest", "--target", "t"]).ok();
    assert_eq!(fs::read(restored(&home, "src/a.txt")).unwrap(), b"first file\n");
    assert_eq!(fs::read(restored(&home, "src/dir/b.txt")).unwrap(), b"second file\n");
    assert!(restored(&home, "src/extra").exists());
}

#[test]
fn patterns_choose_what_comes_back() {
    let home = Home::backed_up();
    home.run(["restore", "latest", "--target", "t", "--include", "*.txt"])
        .ok();
    assert!(restored(&home, "src/a.txt").exists() && !restored(&home, "src/dir/deep/c.bin").exists());
    home.run(["restore", "latest", "--target", "u", "--exclude", "*.txt"])
        .ok();
    let under = |name: &str| home.path("u").join(home.path(name).strip_prefix("/").unwrap());
    assert!(!under("src/a.txt").exists() && under("src/dir/deep/c.bin").exists());
}

#[test]
fn a_lost_pack_costs_its_files_and_no_others() {
    let home = Home::new();
    home.write("src/one.bin", &noise(200_000));
    home.run(["backup", "src"]).ok();
    let big = largest_pack(&home);
    let two: Vec<u8> = noise(250_000).into_iter().rev().collect();
    home.write("src/two.bin", &two);
    home.run(["backup", "src"]).ok();
    fs::remove_file(big).unwrap();
    home.run(["check"]).code(5).says(&["one.bin"]);
    home.run(["restore", "latest", "--target", "t"])
        .code(3)
        .says(&["one.bin"]);
    assert!(fs::read(restored(&home, "src/two.bin")).unwrap() == two);
    assert!(!restored(&home, "src/one.bin").exists());
    home.run(["cat", &format!("latest:{}", home.path("src/one.bin").display())])
        .code(5)
        .says(&["chunk", "next:"]);
    home.run(["repair", "index"]).ok();
    home.run(["backup", "src"]).ok();
    home.run(["restore", "latest", "--target", "v"]).ok();
}

#[test]
fn what_is_known_to_be_lost_is_never_given_back_in_silence() {
    let home = Home::new();
    home.write("src/big.bin", &noise(200_000));
    home.run(["backup", "src"]).ok();
    // In a pack of its own.
    home.write("src/good.txt", b"good\n");
    home.run(["backup", "src"]).ok();
    damage_largest(&home);
    home.run(["init", "--vault", "./second", "--key-file", "second.key"])
        .ok();
    home.run(["copy", "--to", "second", "--to-key-file", "second.key"])
        .code(3);
    let second = |args: &[&str]| {
        let of = ["--vault", "./second", "--key-file", "second.key"];
        home.run(args.iter().chain(&of))
    };
    for args in [
        &["restore", "latest", "--target", "t"][..],
        &["restore", "latest", "--target", "t", "--dry-run"],
        &["dump", "latest"],
        &["check"],
        &["drill", "--all"],
    ] {
        second(args).code(3).says(&["big.bin", "incomplete in this snapshot"]);
        assert!(!second(args).err().contains("good.txt"));
    }
    let file = |name: &str| format!("latest:{}", home.path(name).display());
    let shown = second(&["cat", &file("src/big.bin")])
        .code(3)
        .says(&["big.bin", "incomplete"]);
    assert_eq!(shown.bytes().len(), 200_000);
    second(&["cat", &file("src/good.txt")]).ok();
    second(&["restore", &file("src/good.txt"), "--target", "good"]).ok();
    let result = second(&["restore", "latest", "--target", "t", "--json"])
        .code(3)
        .object();
    assert_eq!(
        (&result["problem_count"], &result["incomplete_count"]),
        (&0.into(), &1.into())
    );
    assert_eq!(result["exit"], "incomplete");
}

#[test]
fn patterns_that_match_nothing_do_not_end_well() {
    let home = Home::backed_up();
    let nothing = ["restore", "latest", "--target", "t", "--include", "typo"];
    home.run(nothing)
        .code(1)
        .says(&["--include typo", "matches nothing", "nothing was restored"]);
    home.run(nothing.iter().chain(&["--dry-run"])).code(1);
    home.run(nothing.iter().chain(&["--include", "a.txt"]))
        .code(3)
        .says(&["--include typo: matches nothing"]);
    assert!(restored(&home, "src/a.txt").exists());
    let base = home.path("src").display().to_string();
    let absolute = format!("{base}/a.txt");
    home.run([
        "restore",
        &format!("latest:{base}"),
        "--target",
        "u",
        "--include",
        &absolute,
    ])
    .code(1)
    .says(&["write `/a.txt`"]);
    let of_part = format!("latest:{base}");
    home.run(["restore", &of_part, "--target", "u", "--exclude", &absolute])
        .code(3)
        .says(&["--exclude", "write `/a.txt`"]);
    home.run(["restore", &of_part, "--target", "u", "--exclude", "not-there"])
        .ok();
    for (option, pattern) in [("--include", "./a.txt"), ("--exclude", "../x"), ("-x", "#h")] {
        home.run(["restore", "latest", "--target", "t", option, pattern])
            .code(2)
            .says(&[pattern]);
    }
    home.run(["find", "typo"]).code(1).says(&["nothing matches `typo`"]);
    home.run(["find", "./a.txt"]).code(2);
    home.run(["cat", "latest"])
        .code(1)
        .says(&["/ is not a regular file but a directory"]);
}

#[test]
fn one_damaged_pack_is_told_once_however_many_files_it_costs() {
    let home = Home::new();
    for number in 0..6 {
        let content: Vec<u8> = noise(20_000).into_iter().map(|byte| byte ^ number).collect();
        home.write(&format!("src/f{number}"), &content);
    }
    home.run(["backup", "src"]).ok();
    let damaged = damage_largest(&home);
    let pack = damaged.file_name().unwrap().to_str().unwrap().to_owned();
    let ran = home.run(["restore", "latest", "--target", "t"]).code(3);
    let (err, named) = (ran.err(), |name: &str| {
        ran.err().lines().any(|line| line.contains(name))
    });
    assert_eq!(err.matches(&pack).count(), 1, "{err}");
    assert!(
        (0..6).all(|number| named(&format!("src/f{number}: not restored"))),
        "{err}"
    );
    assert!(
        err.lines()
            .filter(|line| line.contains("src/f"))
            .filter(|line| line.len() > 160)
            .count()
            <= 1,
        "{err}"
    );
    assert!(ran.out().contains("restored to t: 0 files"), "{}", ran.out());
}

#[test]
fn progress_says_how_much_there_is() {
    let home = Home::new();
    home.write("src/big.bin", &noise(64 << 20));
    home.run(["backup", "src"]).ok();
    let part = format!("latest:{}", home.path("src/big.bin").display());
    let dir = format!("latest:{}", home.path("src").display());
    for spot in ["latest", &dir, &part] {
        let ran = home
            .run([
                "restore",
                spot,
                "--target",
                "t",
                "--progress",
                "json",
                "--progress-interval",
                "0.01",
            ])
            .ok();
        let lines: Vec<serde_json::Value> = ran
            .err()
            .lines()
            .filter(|line| line.starts_with('{'))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(!lines.is_empty(), "{}", ran.err());
        assert_eq!(lines[0]["total_bytes"], 64 << 20, "{lines:?}");
        assert_eq!(lines[0]["total_files"], 1);
        fs::remove_dir_all(home.path("t")).unwrap();
    }
}

/// Runs the program where /proc is empty; `None`, said loudly, where that cannot be.
fn without_proc(home: &Home, args: &str) -> Option<crate::runner::Ran> {
    let path = std::env::var("PATH").unwrap();
    let hide = "mount -t tmpfs none /proc && ";
    if home.shell(&format!("unshare -m bash -c '{hide} true'"), &path).exit() != 0 {
        eprintln!("LEFT OUT: without /proc: needs root and unshare(1)");
        return None;
    }
    let program = env!("CARGO_BIN_EXE_drystone");
    Some(home.shell(&format!("unshare -m bash -c '{hide} exec {program} {args}'"), &path))
}

#[test]
fn without_proc_what_cannot_be_done_is_said() {
    let home = Home::new();
    home.write("src/a.txt", b"a\n");
    let (pipe, link) = (home.path("src/pipe"), home.path("src/link"));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    std::os::unix::fs::symlink("a.txt", link).unwrap();
    let Some(ran) = without_proc(&home, "backup src") else {
        return;
    };
    ran.code(3).says(&["src/pipe", "src/link", "/proc is not mounted"]);
    home.run(["backup", "src"]).ok();
    let ran = without_proc(&home, "restore latest --target t").unwrap().code(3);
    let ran = ran.says(&["src/pipe: its mode cannot be set, since /proc is not mounted"]);
    assert!(!ran.err().contains("a.txt"), "{}", ran.err());
    // Where it is there again, the same restore completes it.
    home.run(["restore", "latest", "--target", "t"]).ok();
}

#[test]
fn nothing_is_restored_into_the_vault_or_its_cache() {
    let home = Home::backed_up();
    let vault = home.vault();
    std::os::unix::fs::symlink(&vault, home.path("link")).unwrap();
    let files = || files_below(&vault).len();
    let before = files();
    for target in [vault.join("new"), vault.clone(), home.path("link/packs")] {
        let target = target.to_str().unwrap();
        for line in [
            ["restore", "latest", "--target", target],
            ["drill", "latest", "--into", target],
        ] {
            home.run(line).code(2).says(&["here lies the vault or its cache"]);
        }
    }
    assert_eq!(files(), before);
}
