//! Flags, environment and profiles, as the program takes them from the real ones.

use crate::runner::Home;

#[test]
fn what_is_wrong_in_the_configuration_is_named_with_file_line_and_key() {
    let home = Home::new();
    home.write(
        "home/.config/drystone/config.toml",
        b"[profile.default]\nvault = '/v'\nvalut = '/w'\n",
    );
    home.run(["snapshots"])
        .code(2)
        .says(&["config.toml", "line 3", "valut", "next:"]);
    let failure = home.run(["snapshots", "--json"]).code(2).failure();
    assert_eq!(failure["name"], "usage");
    home.run(["snapshots", "--config", "missing.toml"])
        .code(2)
        .says(&["missing.toml"]);
}

#[test]
fn profiles_name_vaults_and_their_keys() {
    let home = Home::new();
    home.write("c/pass", b"horse\n");
    home.write(
        "c/config.toml",
        b"[profile.nas]\nvault = 'nas'\npassphrase-file = 'pass'\n[profile.other]\nvault = 'other'\npassphrase-command = 'echo horse'\n",
    );
    let config = ["--config", "c/config.toml"];
    home.run(["init", "--vault", "nas"].into_iter().chain(config)).ok();
    assert!(home.path("c/nas/drystone").exists(), "relative to the file");
    home.run(["stats"].into_iter().chain(config)).code(10);
    home.run_with(["stats"].into_iter().chain(config), &[("DRYSTONE_VAULT", "nas")])
        .ok();
    home.run(["init", "--vault", "other"].into_iter().chain(config)).ok();
    home.run(["stats", "--vault", "other"].into_iter().chain(config)).ok();
    // The place itself, without its profile, has no key.
    home.run(["stats", "--vault", "c/other"]).code(12);
}

#[test]
fn every_way_to_give_a_passphrase_works_and_flags_win() {
    let home = Home::new();
    home.write("good", b"horse\r\n");
    home.write("bad", b"donkey\n");
    home.write("empty", b"\n");
    home.run_with(["init"], &[("DRYSTONE_PASSPHRASE_COMMAND", "echo horse")])
        .ok();
    let (good, bad) = (("DRYSTONE_PASSPHRASE", "horse"), ("DRYSTONE_PASSPHRASE", "donkey"));
    home.run_with(["stats"], &[good]).ok();
    home.run_with(["stats"], &[bad]).code(12);
    home.run_with(["stats", "--passphrase-file", "good"], &[bad]).ok();
    home.run_with(["stats", "--passphrase-file", "bad"], &[good]).code(12);
    home.run_with(["stats"], &[("DRYSTONE_PASSPHRASE_FILE", "good")]).ok();
    home.run_with(["stats"], &[("DRYSTONE_PASSPHRASE_COMMAND", "cat good")])
        .ok();
    home.run_with(["stats"], &[("DRYSTONE_PASSPHRASE_COMMAND", "exit 3")])
        .code(2)
        .says(&["exit 3"]);
    home.run(["stats", "--passphrase-file", "empty"])
        .code(2)
        .says(&["empty"]);
    home.run(["stats", "--passphrase-file", "missing"])
        .code(2)
        .says(&["missing"]);
    home.run(["stats", "--key-file", "good"])
        .code(12)
        .says(&["good", "line 1"]);
}

#[test]
fn directories_come_from_the_environment() {
    let home = Home::new();
    let at = |name: &str| home.path(name).to_str().unwrap().to_owned();
    let (vault, cache, config) = (at("v"), at("c"), at("k"));
    let env = [
        ("DRYSTONE_VAULT", &*vault),
        ("DRYSTONE_CACHE_DIR", &*cache),
        ("XDG_CONFIG_HOME", &*config),
    ];
    home.run_with(["init"], &env).ok();
    home.run_with(["stats"], &env).ok();
    assert!(home.path("v/drystone").exists() && home.path("c").exists() && home.path("k/drystone/keys").exists());
    assert!(!home.path("home/.cache").exists() && !home.path("home/.config").exists());
    let url = format!("file://{vault}");
    home.run_with(["stats"], &[("DRYSTONE_VAULT", &url), env[1], env[2]])
        .ok();
}
