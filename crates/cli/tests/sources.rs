//! What `backup` takes: its sources, links among them, and never the vault itself.

use std::fs;
use std::os::unix::fs::symlink;

use crate::backup::{Bound, last};
use crate::runner::{Home, noise};

/// What a second backup of `source` stores, when all that could have changed is the vault in it. Each case has a home of its own.
fn grown_by(init: &[&str], vault: &str, source: &str) -> u64 {
    let home = Home::new();
    home.write("real/home/a.bin", &noise(3 << 20));
    symlink("real", home.path("link")).unwrap();
    home.run(["init"].iter().chain(init)).ok();
    let bound = source
        .starts_with("bound")
        .then(|| Bound::new(&home.path("real"), home.path("bound")));
    let _bound = match bound {
        Some(None) => return 0,
        bound => bound.flatten(),
    };
    last(&home, &[source, "--vault", vault]);
    let again = last(&home, &[source, "--vault", vault]);
    let listed = home.run(["ls", "-R", "latest", "--vault", vault]).ok().out();
    assert!(listed.contains("a.bin") && !listed.contains("packs"), "{listed}");
    again["new_bytes"].as_u64().unwrap()
}

#[test]
fn the_vault_is_known_behind_links_and_mounts_and_at_all_places() {
    let one = ["--vault", "./real/home/v"];
    let two = ["--place", "real/home/v1", "--place", "real/home/v2"];
    for (init, vault) in [
        (&one[..], "real/home/v"),
        (&one, "link/home/v"),
        (&two, "real/home/v1,real/home/v2"),
        (&two, "real/home/v1"),
    ] {
        for source in ["real/home", "link/home", "bound/home"] {
            let grown = grown_by(init, vault, source);
            assert!(grown < 100_000, "{vault} and {source}: {grown} bytes");
        }
    }
}

#[test]
fn a_source_that_belongs_to_the_vault_is_a_problem() {
    let home = Home::backed_up();
    let vault = home.vault();
    let vault = vault.to_str().unwrap();
    for source in [vault.to_owned(), format!("{vault}/packs")] {
        home.run(["backup", "src", &source])
            .code(3)
            .says(&["belongs to this vault"]);
        let listed = home.run(["ls", "-R", "latest"]).ok().out();
        assert!(listed.contains("a.txt") && !listed.contains("packs"), "{listed}");
    }
}

#[test]
fn a_link_with_a_final_slash_is_followed_and_without_it_is_said() {
    let home = Home::new();
    home.run(["init"]).ok();
    home.write("real/dir/f.txt", b"content\n");
    symlink("real", home.path("link")).unwrap();
    symlink("real/dir/f.txt", home.path("file")).unwrap();
    symlink("nowhere", home.path("dangling")).unwrap();
    let file = home.path("link/dir/f.txt").display().to_string();
    for source in ["link/", "link/.", "./link/", "real/../link/"] {
        let ran = home.run(["backup", source, "-q"]).ok();
        assert_eq!(ran.err(), "");
        assert_eq!(home.run(["cat", &format!("latest:{file}")]).ok().bytes(), b"content\n");
    }
    for (source, advice) in [("link", "link/"), ("file", "real/dir/f.txt")] {
        let ran = home
            .run(["backup", source])
            .ok()
            .says(&["only the link is stored", advice]);
        assert!(ran.out().contains("1 file"), "{}", ran.out());
    }
    // What it leads to is backed up anyway, or is not there.
    for sources in [&["link", "real"][..], &["file", "link/"], &["dangling"]] {
        let ran = home.run(["backup", "-q"].iter().chain(sources)).ok();
        assert_eq!(ran.err(), "", "{sources:?}");
    }
    home.run(["backup", "real", "file/"])
        .code(3)
        .says(&["file", "Not a directory"]);
    home.run(["backup", "real", "dangling/"]).code(3).says(&["dangling"]);
}

#[test]
fn a_source_whose_disk_is_away_is_said() {
    let home = Home::backed_up();
    fs::rename(home.path("src"), home.path("away")).unwrap();
    fs::create_dir(home.path("src")).unwrap();
    for _ in 0..2 {
        home.run(["backup", "src"])
            .code(3)
            .says(&["src", "3 files at an earlier backup", "mounted?"]);
    }
}

#[test]
fn patterns_that_can_match_nothing_are_said() {
    let home = Home::backed_up();
    home.write("rules", b"\xef\xbb\xbfa.txt\n../x\n");
    let ran = home
        .run(["backup", "src", "--exclude-file", "rules", "-x", "./dir", "-x", "#h"])
        .ok();
    let ran = ran.says(&[
        "`../x` (rules, line 2) matches nothing",
        "`./dir` matches nothing",
        "`#h` matches nothing",
    ]);
    assert!(ran.out().contains("2 files"), "{}", ran.out());
}
