//! Help texts: docs/cli.md is what the program says of itself (`DRYSTONE_BLESS=1` writes it anew).

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::runner::Home;

fn help(home: &Home, verb: &[&str]) -> String {
    help_at(home, verb, "--help", "100")
}

/// A help text on a terminal of so many columns.
fn help_at(home: &Home, verb: &[&str], flag: &str, columns: &str) -> String {
    let line = verb.iter().copied().chain([flag]);
    let run = home.run_with(line, &[("COLUMNS", columns)]).ok();
    run.out().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Every command, those of commands too, each after the one it belongs to.
fn all_verbs(home: &Home) -> Vec<Vec<String>> {
    let (mut all, mut left) = (Vec::new(), vec![Vec::new()]);
    while let Some(name) = left.pop() {
        let shown: Vec<&str> = name.iter().map(String::as_str).collect();
        for inner in verbs(&help(home, &shown)).into_iter().rev() {
            left.push(name.iter().cloned().chain([inner]).collect());
        }
        all.push(name);
    }
    all
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
    let names = all_verbs(&home);
    assert_eq!(names.iter().filter(|name| name.len() == 1).count(), 25, "{names:?}");
    for name in names.iter().filter(|name| !name.is_empty()) {
        let shown: Vec<&str> = name.iter().map(String::as_str).collect();
        let help = without_globals(&help(&home, &shown));
        write!(text, "\n## drystone {}\n\n```text\n{help}\n```\n", shown.join(" ")).unwrap();
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
        page.contains("DRYSTONE_PASSPHRASE_COMMAND") && page.contains(".SH EXIT STATUS"),
        "{page}"
    );
    fs::create_dir(home.path("man")).unwrap();
    let written = home.run(["man", "man", "--json"]).ok().object();
    assert!(written["pages"].as_u64().unwrap() > 16, "{written}");
    assert!(home.read("man/drystone-key-add.1").starts_with(b"."));
}

/// What follows `Examples:`, up to an empty line.
fn examples(help: &str) -> Vec<&str> {
    let after = help.lines().skip_while(|line| *line != "Examples:");
    after.skip(1).take_while(|line| !line.is_empty()).collect()
}

#[test]
fn help_fits_a_terminal_of_80_columns_and_no_word_of_it_is_broken() {
    let home = Home::new();
    for name in all_verbs(&home) {
        let name: Vec<&str> = name.iter().map(String::as_str).collect();
        for flag in ["-h", "--help"] {
            let (narrow, wide) = (help_at(&home, &name, flag, "80"), help_at(&home, &name, flag, "300"));
            for (text, most) in [(&narrow, 80), (&wide, 100)] {
                let long: Vec<&str> = text.lines().filter(|line| line.chars().count() > most).collect();
                assert!(long.is_empty(), "{name:?} {flag}: {long:#?}");
            }
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(words(&narrow), words(&wide), "{name:?} {flag}");
            assert_eq!(examples(&narrow), examples(&wide), "{name:?} {flag}");
        }
    }
}

#[test]
fn what_is_said_of_a_new_vault_fits_80_columns() {
    let home = Home::new();
    home.write("src/a", b"x");
    let made = home.run(["backup", "src"]).ok().err();
    let shown = home.run(["init", "--place", "a", "--place", "b"]).ok().err();
    for said in [made, shown] {
        // Names of directories of this test are longer than those of a user.
        let own = home.path("").display().to_string();
        let own = own.trim_end_matches('/');
        let wide: Vec<&str> = said
            .lines()
            .filter(|line| line.replace(own, "").chars().count() > 79)
            .collect();
        assert!(wide.is_empty(), "{wide:#?}");
    }
}

#[test]
fn a_wrong_command_line_is_an_object_for_programs_and_a_sentence_for_people() {
    let home = Home::new();
    let cases: [(&[&str], &str, &str); 8] = [
        (&["snapshots", "--nope"], "--nope", "drystone help snapshots"),
        (&["--threads", "0", "snapshots"], "--threads", "drystone help snapshots"),
        (&["restore", "latest"], "--target", "drystone help restore"),
        (&["bakup"], "bakup", "'backup'"),
        (&["prune"], "`prune`", "drystone gc"),
        (&["key", "add"], "--generate", "drystone help key add"),
        (&[], "no command", "drystone help"),
        (&["--vault", "nowhere", "snapshots"], "nowhere", "./nowhere"),
    ];
    for (line, message, next) in cases {
        for at in [0, line.len()] {
            let (before, after) = line.split_at(at);
            let failure = home.run([before, &["--json"], after].concat()).code(2).failure();
            assert_eq!(
                (&failure["code"], &failure["name"]),
                (&2.into(), &"usage".into()),
                "{line:?}"
            );
            assert!(failure["message"].as_str().unwrap().contains(message), "{failure}");
            assert!(failure["next"].as_str().unwrap().contains(next), "{failure}");
        }
        // What the parser prints of an empty line is the help, which names every command.
        let message = if line.is_empty() { "Usage:" } else { message };
        home.run(line).code(2).says(&[message]);
    }
}

#[test]
fn what_is_no_text_is_named() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    let home = Home::new();
    let odd = || OsString::from_vec(b"od\xffd".to_vec());
    let line = |flag: &str| {
        [
            OsString::from("backup"),
            odd(),
            OsString::from(flag),
            OsString::from_vec(b"h\xfe".to_vec()),
        ]
    };
    for flag in ["--host", "--exclude", "--tag"] {
        let said = home.run(line(flag)).code(2).says(&["h\\xfe", "UTF-8"]).err();
        assert!(!said.contains("od\\xffd"), "a path may be anything: {said}");
    }
    let failure = home
        .run([OsString::from("--json")].into_iter().chain(line("--host")))
        .code(2)
        .failure();
    assert!(failure["message"].as_str().unwrap().contains("h\\xfe"), "{failure}");
}

#[test]
fn help_is_a_command_too() {
    let home = Home::new();
    home.write("home/.config/drystone/config.toml", b"nonsense");
    for verb in [&[][..], &["backup"], &["key", "add"]] {
        let asked = home.run([&["help"], verb].concat()).ok().out();
        let flagged = home.run([verb, &["--help"]].concat()).ok().out();
        assert_eq!(asked, flagged, "{verb:?}");
    }
    assert_eq!(home.run(["help", "gc", "--json"]).ok().object()["command"], "gc");
    home.run(["help", "frobnicate"])
        .code(2)
        .says(&["frobnicate", "next: drystone --help"]);
    home.run(["help", "gc", "more"])
        .code(2)
        .says(&["more", "next: drystone gc --help"]);
}

#[test]
fn words_of_other_programs_are_answered() {
    let home = Home::new();
    for (word, answer) in [
        ("prune", "drystone gc"),
        ("list", "drystone snapshots"),
        ("unlock", "no locks"),
        ("mount", "drystone restore"),
        ("version", "drystone --version"),
    ] {
        home.run([word]).code(2).says(&[word, "next: ", answer]);
    }
}

/// A page as a terminal shows it, by groff if it is there.
fn typeset(home: &Home, page: &str) -> Option<String> {
    let mut groff = std::process::Command::new("groff");
    groff
        .args(["-k", "-man", "-Tutf8", "-P-cbou", "-rLL=78n", page])
        .current_dir(home.path(""));
    let ran = groff.output().ok()?;
    assert!(
        ran.status.success() && ran.stderr.is_empty(),
        "{page}: {}",
        String::from_utf8_lossy(&ran.stderr)
    );
    Some(String::from_utf8(ran.stdout).unwrap())
}

#[test]
fn manual_pages_have_the_usual_sections_and_their_tables_stay_whole() {
    let home = Home::new();
    fs::create_dir(home.path("man")).unwrap();
    let pages = home.run(["man", "man", "--json"]).ok().object()["pages"]
        .as_u64()
        .unwrap();
    let names = all_verbs(&home);
    assert_eq!(names.len() as u64, pages);
    for name in names {
        let page = format!(
            "man/{}.1",
            [&["drystone".to_owned()], name.as_slice()].concat().join("-")
        );
        let text = String::from_utf8(home.read(&page)).unwrap();
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "SEE ALSO"] {
            assert!(text.contains(&format!(".SH {section}\n")), "{page}: {section}");
        }
        assert!(!text.contains(".SH EXTRA"), "{page}");
        let name: Vec<&str> = name.iter().map(String::as_str).collect();
        let help = help(&home, &name);
        assert_eq!(
            text.contains(".SH EXAMPLES\n"),
            help.contains("\nExamples:\n"),
            "{page}"
        );
        if !name.is_empty() {
            assert!(
                !text.contains("accept\\-older"),
                "{page}: has an option that every command has"
            );
        }
        if let Some(shown) = typeset(&home, &page) {
            let missing = examples(&help).into_iter().filter(|line| !shown.contains(line.trim()));
            assert_eq!(missing.collect::<Vec<_>>(), Vec::<&str>::new(), "{shown}");
        }
    }
    let main = String::from_utf8(home.read("man/drystone.1")).unwrap();
    for section in ["ENVIRONMENT", "FILES", "EXAMPLES"] {
        assert!(main.contains(&format!(".SH {section}\n")), "{section}");
    }
    if let Some(shown) = typeset(&home, "man/drystone.1") {
        for row in [
            "  130  interrupted (SIGINT, SIGTERM)",
            "key-file = \"\"               or passphrase-file = \"\"",
        ] {
            assert!(shown.contains(row), "{shown}");
        }
    }
}
