//! `restore`: brings everything back, resumes, says what it could not do.

use std::fs;
use std::path::PathBuf;

use crate::runner::{Home, noise};

fn restored(home: &Home, name: &str) -> PathBuf {
    home.path("t").join(home.path(name).strip_prefix("/").unwrap())
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
    let first: Vec<_> = crate::runner::files_below(&home.vault().join("packs"));
    let two: Vec<u8> = noise(250_000).into_iter().rev().collect();
    home.write("src/two.bin", &two);
    home.run(["backup", "src"]).ok();
    let big = first
        .iter()
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
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
