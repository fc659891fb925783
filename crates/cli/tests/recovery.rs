//! docs/recovery.md tells the truth: its commands are run as they stand, each section on a vault of its own.
//!
//! - Blocks `sh` are what a reader types; comments `<!-- sh … -->` make the disaster happen.
//! - A command ends with 0, or as the comment `# ends with N` behind it says.

use std::fs;
use std::path::Path;

use crate::runner::Home;

/// A piece of the page.
#[derive(Debug, PartialEq)]
enum Part {
    Section(String),
    /// Not shown to readers.
    Disaster(String),
    Commands(String),
}

fn parts(page: &str) -> Vec<Part> {
    let (mut parts, mut lines) = (Vec::new(), page.lines());
    while let Some(line) = lines.next() {
        let mut until = |end: &str| -> String {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != end).collect();
            block.join("\n")
        };
        match line {
            "```sh" => parts.push(Part::Commands(until("```"))),
            "<!-- sh" => parts.push(Part::Disaster(until("-->"))),
            _ => {
                if let Some(title) = line.strip_prefix("## ") {
                    parts.push(Part::Section(title.to_owned()));
                }
            }
        }
    }
    parts
}

/// A vault 2/3 over mnt/a, mnt/b and mnt/c, with a profile, a snapshot of ~/photos, and key and code kept elsewhere.
fn world() -> Home {
    // Directories above the source are part of a snapshot: other tests change /tmp all the time.
    let home = Home::below(Path::new("/var/tmp"));
    let script = "\
mkdir -p ~/photos/2026 ~/saved ~/.config/drystone /mnt
head -c 300000 /dev/urandom > ~/photos/2026/one.jpg
head -c 50000 /dev/urandom > ~/photos/two.jpg
echo hello > ~/photos/note
drystone --json init --place /mnt/a --place /mnt/b --place /mnt/c --spread 2/3 > ~/saved/init.json
printf '[profile.default]\\nvault = \"/mnt/a,/mnt/b,/mnt/c\"\\npaths = [\"%s/photos\"]\\n' ~ > ~/.config/drystone/config.toml
cp ~/.config/drystone/keys/*.key ~/saved/key
sed -n 's/.*\"recovery_code\":\"\\([^\"]*\\)\".*/\\1/p' ~/saved/init.json > ~/saved/recovery-code
drystone backup";
    run(&home, script, 0);
    home
}

/// Runs a line or more of shell; `/mnt/` is a directory of this test.
fn run(home: &Home, script: &str, code: i32) {
    let here = home.path("");
    let script = script.replace(
        "/mnt",
        &format!("{}/mnt", here.display().to_string().trim_end_matches('/')),
    );
    let program = Path::new(env!("CARGO_BIN_EXE_drystone")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    home.shell(&format!("set -e\n{script}"), &path).code(code);
}

#[test]
fn every_command_of_the_page_does_what_it_says() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/recovery.md")).unwrap();
    let (mut home, mut commands) = (world(), 0);
    for part in parts(&page) {
        match part {
            Part::Section(title) => {
                eprintln!("{title}");
                home = world();
            }
            Part::Disaster(script) => run(&home, &script, 0),
            Part::Commands(block) => {
                for line in block.lines() {
                    let (command, comment) = line.split_once('#').unwrap_or((line, ""));
                    let code = comment
                        .trim()
                        .strip_prefix("ends with ")
                        .map_or(0, |code| code.parse().unwrap());
                    run(&home, command, code);
                    commands += 1;
                }
            }
        }
    }
    assert!(commands > 25, "only {commands} commands were found");
}

#[test]
fn the_page_is_taken_apart_as_it_is_meant() {
    let page = "## A\ntext\n<!-- sh\nrm x\n-->\n```sh\nls\nls -l # ends with 2\n```\n```toml\nno\n```\n";
    assert_eq!(
        parts(page),
        [
            Part::Section("A".to_owned()),
            Part::Disaster("rm x".to_owned()),
            Part::Commands("ls\nls -l # ends with 2".to_owned())
        ]
    );
}
