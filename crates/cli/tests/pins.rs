//! Places and vaults that this machine knows: swapped, emptied, mistyped, and what a new machine trusts.

use std::fs;
use std::path::Path;

use crate::runner::{Home, files_below};

/// Puts a vault of a stranger at `at`, with a slot for each public key that opened the one that was there.
fn swap(home: &Home, at: &Path, recipients: &[String]) {
    fs::remove_dir_all(at).unwrap();
    let stranger = Home::new();
    let mut args = vec!["init", "--vault", at.to_str().unwrap()];
    recipients
        .iter()
        .for_each(|recipient| args.extend(["--recipient", recipient]));
    stranger.run(args).ok();
    assert!(!files_below(at).is_empty());
    let _ = home;
}

fn recipient(home: &Home, file: &str) -> String {
    let text = String::from_utf8(home.read(file)).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("# public key: "));
    line.unwrap().to_owned()
}

fn kept_key(home: &Home) -> String {
    let keys = fs::read_dir(home.path("home/.config/drystone/keys")).unwrap();
    let names: Vec<String> = keys
        .map(|key| key.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 1);
    format!("home/.config/drystone/keys/{}", names[0])
}

#[test]
fn a_swapped_vault_gets_nothing_whatever_key_the_victim_has() {
    let home = Home::new();
    home.write("src/secret", b"s");
    home.run(["init", "--vault", "./v"]).ok();
    home.run([
        "key",
        "add",
        "--vault",
        "v",
        "--role",
        "writer",
        "--generate",
        "web.key",
    ])
    .ok();
    home.run(["key", "add", "--vault", "v", "--generate", "own.key"]).ok();
    for key in ["web.key", "own.key"] {
        home.run(["backup", "src", "--vault", "v", "--key-file", key]).ok();
    }
    let keys = [
        recipient(&home, "web.key"),
        recipient(&home, "own.key"),
        recipient(&home, &kept_key(&home)),
    ];
    swap(&home, &home.path("v"), &keys);
    let before = files_below(&home.path("v"));
    for key in [Some("web.key"), Some("own.key"), None] {
        let key = key.map_or(vec![], |key| vec!["--key-file", key]);
        let args = ["backup", "src", "--vault", "v"].into_iter().chain(key.iter().copied());
        let ran = home.run(args);
        let said = ran.err();
        assert!(said.contains("/v: ") && said.contains("next:"), "{said}");
        assert!(ran.code(1).says(&["seen vault", "--accept-new-vault"]).out().is_empty());
        assert_eq!(files_below(&home.path("v")), before, "nothing was stored");
    }
    // Another machine, which has nothing but the key files: they say which vault they are for.
    fs::remove_dir_all(home.path("home")).unwrap();
    fs::create_dir(home.path("home")).unwrap();
    for key in ["web.key", "own.key"] {
        home.run(["backup", "src", "--vault", "v", "--key-file", key])
            .code(12)
            .says(&["says that it is a key of", key, "next:"]);
    }
    assert_eq!(files_below(&home.path("v")), before);
}

#[test]
fn a_key_without_a_name_is_trusted_on_first_use_aloud_and_then_held_to_it() {
    let home = Home::new();
    home.write("src/secret", b"s");
    home.run(["init", "--vault", "./v", "--key-file", "named.key"]).ok();
    let bare: String = String::from_utf8(home.read("named.key")).unwrap();
    let bare: Vec<&str> = bare
        .lines()
        .filter(|line| !line.starts_with("# drystone vault"))
        .collect();
    home.write("bare.key", (bare.join("\n") + "\n").as_bytes());
    fs::remove_dir_all(home.path("home/.config")).unwrap();
    let bare = ["--vault", "v", "--key-file", "bare.key"];
    let run = |verb: &'static [&str]| home.run(verb.iter().copied().chain(bare));
    run(&["backup", "src"])
        .ok()
        .says(&["for the first time", "vault ", "(key "]);
    let second = run(&["backup", "src"]).ok().err();
    assert!(!second.contains("first time"), "{second}");
    // A lost cache costs only time.
    fs::remove_dir_all(home.path("home/.cache")).unwrap();
    swap(&home, &home.path("v"), &[recipient(&home, "bare.key")]);
    run(&["snapshots"])
        .code(1)
        .says(&["/v: ", "seen vault", "next:", "--accept-new-vault"]);
    run(&["snapshots", "--accept-new-vault"]).ok();
    run(&["snapshots"]).ok();
}

#[test]
fn an_emptied_place_is_no_place_for_a_new_vault() {
    let home = Home::new();
    home.write("src/a", b"x");
    home.write("pass", b"horse\n");
    home.write(
        "home/.config/drystone/config.toml",
        format!("[profile.disk]\nvault = '{}'\n", home.path("disk/v").display()).as_bytes(),
    );
    fs::create_dir(home.path("disk")).unwrap();
    let url = home.path("disk/v").display().to_string();
    home.run(["init", "--vault", "disk"]).ok();
    for (at, (name, key)) in [
        ("disk", vec![]),
        (&url, vec![]),
        (&url, vec!["--passphrase-file", "pass"]),
    ]
    .into_iter()
    .enumerate()
    {
        let run = |verb: &[&str]| home.run(verb.iter().chain(&["--vault", name]).chain(&key).copied());
        if at > 0 {
            fs::remove_dir_all(home.path("home/.config/drystone/known")).unwrap();
            run(&["init"]).ok();
        }
        run(&["backup", "src"]).ok();
        // Unmounted: first the directory below the mount point is gone, then an empty one is there.
        fs::remove_dir_all(home.path("disk/v")).unwrap();
        for _ in 0..2 {
            run(&["backup", "-q", "src"]).code(10).says(&[
                "disk/v",
                "seen vault",
                "is the disk mounted?",
                "--accept-new-vault",
            ]);
            run(&["snapshots"]).code(10).says(&["is the disk mounted?"]);
            run(&["init"]).code(10).says(&["is the disk mounted?"]);
            assert!(files_below(&home.path("disk")).is_empty());
            fs::create_dir_all(home.path("disk/v")).unwrap();
        }
        run(&["init", "--accept-new-vault"]).ok();
        run(&["backup", "src"]).ok();
        fs::remove_dir_all(home.path("disk/v")).unwrap();
    }
}

#[test]
fn a_vault_is_made_unasked_only_at_the_built_in_place_and_only_once() {
    let home = Home::new();
    home.write("src/a", b"x");
    home.write(
        "home/.config/drystone/config.toml",
        b"[profile.nas]\nvault = '/nowhere/v'\n",
    );
    fs::create_dir(home.path("empty")).unwrap();
    for (args, env) in [
        (["--vault", "empty"].as_slice(), [].as_slice()),
        (&["--vault", "./new"], &[]),
        (&["--vault", "nas"], &[]),
        (&[], &[("DRYSTONE_VAULT", "empty")]),
        (&[], &[("DRYSTONE_VAULT", "./new")]),
    ] {
        home.run_with(["backup", "src"].iter().chain(args).copied(), env)
            .code(10)
            .says(&["no vault here", "is the disk mounted?", "drystone init"]);
    }
    assert!(!home.path("new").exists() && files_below(&home.path("empty")).is_empty());
    home.run(["backup", "src"]).ok();
    fs::remove_dir_all(home.vault()).unwrap();
    home.run(["backup", "src"])
        .code(10)
        .says(&["seen vault", "is the disk mounted?"]);
    assert!(!home.vault().exists());
    // A lost cache makes no difference.
    let _ = fs::remove_dir_all(home.path("home/.cache"));
    home.run(["backup", "src"]).code(10).says(&["seen vault"]);
}

#[test]
fn a_bare_word_is_a_profile_or_a_directory_that_exists() {
    let home = Home::new();
    home.write("src/a", b"x");
    home.write(
        "home/.config/drystone/config.toml",
        b"[profile.offsite]\nvault = '/nowhere/v'\n",
    );
    for verb in [["backup", "src"].as_slice(), &["init"], &["snapshots"]] {
        home.run(verb.iter().chain(&["--vault", "ofsite"]).copied())
            .code(2)
            .says(&["`ofsite`", "`offsite`", "next:", "./ofsite"]);
        home.run_with(verb, &[("DRYSTONE_VAULT", "src,ofsite")])
            .code(2)
            .says(&["`ofsite`"]);
    }
    assert!(!home.path("ofsite").exists());
}

#[test]
fn one_of_several_places_that_is_another_vault_is_refused() {
    let home = Home::new();
    home.write("src/a", b"x");
    home.run(["init", "--place", "a", "--place", "b", "--place", "c"]).ok();
    home.run(["backup", "src", "--vault", "a,b,c"]).ok();
    let kept = kept_key(&home);
    let key = recipient(&home, &kept);
    let others = [files_below(&home.path("b")), files_below(&home.path("c"))];
    swap(&home, &home.path("a"), &[key]);
    // Also without a memory, and whichever is named first.
    for memory in [true, false] {
        if !memory {
            fs::remove_dir_all(home.path("home/.config/drystone/known")).unwrap();
        }
        for places in ["a,b,c", "b,a", "c,b,a"] {
            let ran = home.run(["backup", "src", "--vault", places]);
            let said = ran.err();
            assert!(said.contains("/a: "), "{said}");
            assert!(ran.code(1).says(&["next:"]).out().is_empty());
        }
    }
    assert_eq!(others, [files_below(&home.path("b")), files_below(&home.path("c"))]);
    home.run(["backup", "src", "--vault", "b,c"]).code(3).says(&["/a: "]);
}

#[test]
fn the_memory_says_what_is_wrong_with_it() {
    let home = Home::backed_up();
    let places = home.path("home/.config/drystone/known/places");
    assert!(fs::read_to_string(&places).unwrap().contains("drystone/vault"));
    fs::write(&places, "garbage\n").unwrap();
    home.run(["snapshots"])
        .code(1)
        .says(&["known/places", "garbage", "next:"]);
    fs::remove_file(&places).unwrap();
    home.run(["snapshots"]).ok();
}

#[test]
fn a_lost_header_does_not_make_other_keys_be_tried() {
    let home = Home::backed_up();
    fs::remove_file(home.vault().join("drystone")).unwrap();
    home.run(["snapshots"]).ok().says(&["repair header"]);
    let other = Home::backed_up();
    let from = kept_key(&other);
    let kept = home.path(&kept_key(&home));
    // Only the key of another vault is kept, under a name that says so.
    let name = Path::new(&from).file_name().unwrap();
    fs::write(kept.with_file_name(name), other.read(&from)).unwrap();
    fs::remove_file(&kept).unwrap();
    home.run(["snapshots"]).code(12).says(&["no key for this vault"]);
}
