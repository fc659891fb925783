//! Help texts: docs/cli.md is what the program says of itself (`DRYSTONE_BLESS=1` writes it anew).

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::runner::Home;

fn help(home: &Home, verb: &[&str]) -> String {
    let run = home.run(verb.iter().copied().chain(["--help"])).ok();
    run.out().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The commands that a help text lists.
fn verbs(help: &str) -> Vec<String> {
    let lines = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    lines
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// A verb's help without the options that every verb has.
fn without_globals(help: &str) -> String {
    let mut kept = String::new();
    let mut global = false;
    for line in help.lines() {
        global = if line == "Global options:" {
            true
        } else {
            global && (line.is_empty() || line.starts_with(' '))
        };
        if !global {
            writeln!(kept, "{line}").unwrap();
        }
    }
    kept.trim_end().to_owned()
}

#[test]
fn the_reference_is_what_the_program_says() {
    let home = Home::new();
    let main = help(&home, &[]);
    let mut text = format!(
        "# The command line\n\nWritten by `DRYSTONE_BLESS=1 cargo test -p drystone help`. Every command takes the global \
         options too.\n\n## drystone\n\n```text\n{}\n```\n",
        main.trim_end()
    );
    let mut names: Vec<Vec<String>> = verbs(&main).into_iter().map(|name| vec![name]).collect();
    assert_eq!(names.len(), 24, "{names:?}");
    names.reverse();
    while let Some(name) = names.pop() {
        let shown: Vec<&str> = name.iter().map(String::as_str).collect();
        let help = help(&home, &shown);
        for inner in verbs(&help).into_iter().rev() {
            names.push(name.iter().cloned().chain([inner]).collect());
        }
        write!(
            text,
            "\n## drystone {}\n\n```text\n{}\n```\n",
            shown.join(" "),
            without_globals(&help)
        )
        .unwrap();
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    if std::env::var_os("DRYSTONE_BLESS").is_some() {
        fs::write(&file, &text).unwrap();
    }
    let kept = fs::read_to_string(&file).unwrap();
    assert!(
        kept == text,
        "docs/cli.md is out of date: DRYSTONE_BLESS=1 cargo test -p drystone help"
    );
}

#[test]
fn wrong_usage_ends_with_2_and_help_with_0() {
    let home = Home::new();
    home.run(["frobnicate"]).code(2).says(&["frobnicate"]);
    home.run(["snapshots", "--no-such-flag"])
        .code(2)
        .says(&["--no-such-flag"]);
    home.run(Vec::<&str>::new()).code(2);
    home.run(["scrub", "--share", "200%"]).code(2).says(&["--share"]);
    assert!(home.run(["--version"]).ok().out().starts_with("drystone "));
}

#[test]
fn completions_and_manual_need_neither_vault_nor_a_sound_configuration() {
    let home = Home::new();
    home.write("home/.config/drystone/config.toml", b"nonsense");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(home.run(["completions", shell]).ok().out().contains("scrub"), "{shell}");
    }
    assert_eq!(
        home.run(["completions", "bash", "--json"]).ok().object()["shell"],
        "bash"
    );
    let page = home.run(["man"]).ok().out();
    assert!(
        page.contains("DRYSTONE_PASSPHRASE_COMMAND") && page.contains("Exit codes"),
        "{page}"
    );
    fs::create_dir(home.path("man")).unwrap();
    let written = home.run(["man", "man", "--json"]).ok().object();
    assert!(written["pages"].as_u64().unwrap() > 16, "{written}");
    assert!(home.read("man/drystone-key-add.1").starts_with(b"."));
}
