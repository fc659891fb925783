//! Wrong command lines: what the parser says of them, for people and for programs.
//!
//! - With `--json` a wrong command line ends with an `error` object too, wherever in it the flag stands.
//! - Words of other backup programs are answered with the command that does it here.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::exit::{Exit, Failure};
use crate::output::{Form, Output};
use crate::shown::{shown, tamed};

/// Words that restic, borg and others have for commands, and what to run instead.
const OTHER_WORDS: [(&[&str], &str); 16] = [
    (
        &["prune", "compact", "cleanup"],
        "drystone gc frees what no snapshot needs; drystone forget drops snapshots",
    ),
    (
        &["list"],
        "drystone snapshots, drystone ls SNAPSHOT[:PATH], drystone key list or drystone place list",
    ),
    (
        &["unlock", "break-lock"],
        "nothing to do: a drystone vault has no locks",
    ),
    (
        &["mount", "umount"],
        "snapshots cannot be mounted yet: drystone ls, drystone find, drystone cat and drystone restore reach single files",
    ),
    (&["version"], "drystone --version"),
    (
        &["verify", "fsck"],
        "drystone check verifies structure; drystone scrub reads and verifies all data",
    ),
    (&["extract", "recover"], "drystone restore"),
    (&["create", "save"], "drystone backup"),
    (&["delete", "rm", "remove"], "drystone forget"),
    (&["history", "archives"], "drystone snapshots"),
    (&["status", "health"], "drystone doctor"),
    (&["info", "config"], "drystone vault show or drystone stats"),
    (
        &["passwd", "change-passphrase"],
        "drystone key add --new-passphrase, then drystone key remove",
    ),
    (&["rebuild-index", "repair-index"], "drystone repair index"),
    (&["export-tar", "export"], "drystone dump"),
    (
        &["sync", "replicate"],
        "drystone copy, or drystone place add for one more place of the same vault",
    ),
];

/// Says what is wrong with the command line of `program`, and returns the code to end with. Help and version are asked for, and end with 0.
pub(crate) fn refuse(error: &clap::Error, line: &[OsString], program: &Command) -> Exit {
    if !error.use_stderr() {
        return print(error, Exit::Done);
    }
    let form = if wants_json(line) { Form::Json } else { Form::Text };
    let out = Output { form, quiet: false };
    if let Some(failure) = better(error, line, program) {
        out.failure(&failure);
        return failure.exit;
    }
    if form == Form::Json {
        out.failure(&failure(error, line, program));
        return Exit::Usage;
    }
    // What it quotes of the command line may be the name of a file that somebody else made.
    match tamed(&error.render().to_string()) {
        Some(tame) => {
            out.say(tame.trim_end());
            Exit::Usage
        }
        None => print(error, Exit::Usage),
    }
}

fn print(error: &clap::Error, exit: Exit) -> Exit {
    // Nobody is left to be told that the stream is gone.
    let _ = error.print();
    exit
}

/// Returns true if `--json` was given; what stands behind `--` is no flag.
fn wants_json(line: &[OsString]) -> bool {
    let mut flags = line.iter().take_while(|part| *part != "--");
    flags.any(|part| part == "--json" || part.as_bytes().starts_with(b"--json="))
}

/// What can be said better than the parser does.
fn better(error: &clap::Error, line: &[OsString], program: &Command) -> Option<Failure> {
    match error.kind() {
        ErrorKind::InvalidUtf8 => Some(not_text(line, program)),
        ErrorKind::InvalidSubcommand => {
            let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else {
                return None;
            };
            let (_, next) = OTHER_WORDS.iter().find(|(words, _)| words.contains(&word.as_str()))?;
            Some(Failure::usage(format!("there is no command `{word}`")).next(*next))
        }
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            wants_json(line).then(|| Failure::usage("no command was given").next("drystone help"))
        }
        _ => None,
    }
}

/// Names the arguments that must be text and are not.
fn not_text(line: &[OsString], program: &Command) -> Failure {
    let is_odd = |part: &&OsString| part.to_str().is_none();
    let text = |part: &OsString| OsString::from(part.to_string_lossy().into_owned());
    let refused = line.iter().filter(is_odd).filter(|odd| {
        let alone = line
            .iter()
            .map(|part| if part == *odd { part.clone() } else { text(part) });
        matches!(program.clone().try_get_matches_from(alone), Err(error) if error.kind() == ErrorKind::InvalidUtf8)
    });
    let names: Vec<String> = refused.map(|part| format!("`{}`", shown(part.as_bytes()))).collect();
    Failure::usage(format!("not UTF-8, and must be here: {}", names.join(", ")))
        .next("only paths and names of files may hold other bytes")
}

/// What the parser says, as an object of ours: the sentence, and the tip or the help to look at.
fn failure(error: &clap::Error, line: &[OsString], program: &Command) -> Failure {
    let text = error.render().to_string();
    let mut parts = text.split("\n\n").map(one_line);
    let message = parts.next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(&message).to_owned();
    let tip = parts.find_map(|part| part.strip_prefix("tip: ").map(str::to_owned));
    Failure::usage(message).next(tip.unwrap_or_else(|| format!("drystone help{}", verb(error, line, program))))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The command that the usage is of, each word after a space; empty for the program itself.
fn verb(error: &clap::Error, line: &[OsString], program: &Command) -> String {
    let usage = match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string(),
        _ => return typed_verb(line, program),
    };
    let words = usage.split_whitespace().skip_while(|word| *word != "drystone").skip(1);
    let is_word =
        |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') && !word.starts_with('-');
    words.take_while(is_word).map(|word| format!(" {word}")).collect()
}

/// The words on the command line that are commands, each after a space.
fn typed_verb(line: &[OsString], program: &Command) -> String {
    let (mut command, mut verb) = (program, String::new());
    for word in line.iter().skip(1).filter_map(|part| part.to_str()) {
        if let Some(inner) = command.find_subcommand(word) {
            command = inner;
            verb += &format!(" {word}");
        }
    }
    verb
}

/// The help of the command that `words` name.
pub(crate) fn help(words: &[String], program: &Command) -> Result<String, Failure> {
    refuse_unknown(words, program)?;
    let line = ["drystone"].into_iter().chain(words.iter().map(String::as_str));
    match program.clone().try_get_matches_from(line.chain(["--help"])) {
        Err(error) if error.kind() == ErrorKind::DisplayHelp => Ok(error.render().to_string()),
        Err(error) => Err(failure(&error, &[], program)),
        Ok(_) => Err(Failure::usage("there is no help for this").next("drystone --help")),
    }
}

/// Refuses what is no command.
fn refuse_unknown(words: &[String], program: &Command) -> Result<(), Failure> {
    let (mut command, mut name) = (program, "drystone".to_owned());
    for word in words {
        command = command.find_subcommand(word).ok_or_else(|| {
            let what = format!("{name} has no command `{}`", shown(word.as_bytes()));
            Failure::usage(what).next(format!("{name} --help"))
        })?;
        name += &format!(" {word}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::command::Cli;

    fn refused(line: &[&str]) -> Failure {
        let line: Vec<OsString> = [&["drystone"], line].concat().into_iter().map(OsString::from).collect();
        failure(&Cli::try_parse_from(&line).unwrap_err(), &line, &Cli::command())
    }

    #[test]
    fn what_the_parser_says_becomes_a_message_and_what_to_do() {
        let failed = refused(&["snapshots", "--nope"]);
        assert_eq!(failed.message, "unexpected argument '--nope' found");
        assert_eq!(failed.next.as_deref(), Some("drystone help snapshots"));
        let failed = refused(&["restore", "latest"]);
        assert_eq!(
            failed.message,
            "the following required arguments were not provided: --target <DIR>"
        );
        assert_eq!(failed.next.as_deref(), Some("drystone help restore"));
        let failed = refused(&["bakup"]);
        assert!(failed.next.unwrap().contains("'backup'"), "{}", failed.message);
        let failed = refused(&["--threads", "0", "snapshots"]);
        assert!(failed.message.contains("--threads"), "{}", failed.message);
        assert_eq!(failed.next.as_deref(), Some("drystone help snapshots"));
        assert_eq!(refused(&["key", "add"]).next.as_deref(), Some("drystone help key add"));
    }

    #[test]
    fn the_flag_for_programs_counts_wherever_it_stands() {
        let line = |parts: &[&str]| parts.iter().map(OsString::from).collect::<Vec<_>>();
        assert!(wants_json(&line(&["drystone", "bakup", "--json"])) && wants_json(&line(&["drystone", "--json=x"])));
        assert!(!wants_json(&line(&["drystone", "bakup", "--", "--json"])));
    }

    #[test]
    fn no_word_of_other_programs_is_one_of_ours() {
        let command = Cli::command();
        for (words, next) in OTHER_WORDS {
            for word in words {
                assert!(command.find_subcommand(word).is_none(), "{word}");
            }
            for named in next.split("drystone ").skip(1) {
                let verb = named.split([' ', ',', ';']).next().unwrap_or_default();
                let is_known = command.find_subcommand(verb).is_some() || verb.starts_with("--") || verb == "vault";
                assert!(is_known, "{next}");
            }
        }
    }
}
