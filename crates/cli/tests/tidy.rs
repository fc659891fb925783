//! What a machine can keep of the project's style: heads, lengths, dependency arrows, words, and where decisions are made.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

mod circles;
mod promises;

/// Longest file without its unit tests, and with them, lines.
const FILE_MAX_LINES: usize = 500;
const FILE_MAX_LINES_WITH_TESTS: usize = 800;
/// Longest function, lines.
const FUNCTION_MAX_LINES: usize = 70;
/// In tests, whose tables of cases may be long.
const TEST_FUNCTION_MAX_LINES: usize = 100;
const ARCHITECTURE_MAX_LINES: usize = 250;

const BANNED: [&str; 10] = [
    "blob",
    "repository",
    "archive",
    "node",
    "segment",
    "util",
    "helper",
    "manager",
    "misc",
    "common",
];

/// Words that mean something else in these files than what they are banned for.
const OTHER_MEANINGS: [(&str, &str); 2] = [
    // A node of the tree that a long recipe is; the ban is on hosts and peers.
    ("node", "crates/format/"),
    ("node", "crates/vault/"),
];

/// What each crate may depend on, besides the world outside.
const ARROWS: [(&str, &[&str]); 8] = [
    ("format", &[]),
    ("extents", &[]),
    ("reflink", &["extents"]),
    ("store", &["format"]),
    ("index", &["format"]),
    ("vault", &["format", "store", "index"]),
    ("backup", &["format", "store", "index", "vault", "extents"]),
    (
        "cli",
        &["format", "store", "index", "vault", "backup", "extents", "reflink"],
    ),
];

/// Decisions: what shows that one is made, and where alone that may be (tests apart).
const OWNERS: [(&str, &[&str]); 12] = [
    ("linux_raw_sys::", &["crates/extents/src/ioctl.rs"]),
    ("std::env::", &["crates/cli/src/config.rs"]),
    ("env::var", &["crates/cli/src/config.rs"]),
    ("process::exit(", &["crates/cli/src/exit.rs"]),
    ("SystemTime::now()", &["crates/cli/src/context.rs"]),
    ("getrandom::", &["crates/cli/src/context.rs"]),
    ("mincdc::", &["crates/format/src/chunker.rs"]),
    ("io::stdout()", &["crates/cli/src/output.rs"]),
    ("zstd::", &["crates/format/src/codec.rs"]),
    ("ring::aead", &["crates/format/src/seal.rs"]),
    ("rusty_erasure::", &["crates/store/src/erasure.rs"]),
    (
        "placement_draw",
        &["crates/format/src/id.rs", "crates/store/src/placement.rs"],
    ),
];

/// Files that own a decision (design, style): they must exist under this name.
const OWNING_FILES: [&str; 11] = [
    "crates/extents/src/ioctl.rs",
    "crates/format/src/limits.rs",
    "crates/format/src/id.rs",
    "crates/format/src/chunker.rs",
    "crates/format/src/seal.rs",
    "crates/store/src/name.rs",
    "crates/store/src/local/atomic.rs",
    "crates/vault/src/writing/admit.rs",
    "crates/vault/src/gc.rs",
    "crates/cli/src/exit.rs",
    "crates/cli/src/config.rs",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

struct Source {
    /// Relative to the root.
    name: String,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        ["/tests/", "/examples/", "/benches/"]
            .iter()
            .any(|part| self.name.contains(part))
    }

    /// The text before the unit tests.
    fn tested(&self) -> &str {
        let end = self.text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        &self.text[..end]
    }
}

fn sources() -> Vec<Source> {
    let root = root();
    let mut sources = Vec::new();
    let mut dirs = vec![root.join("crates")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                sources.push(Source {
                    name,
                    text: fs::read_to_string(&path).unwrap(),
                });
            }
        }
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(sources.len() > 30, "the sources are elsewhere");
    sources
}

fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    let wrong: Vec<String> = sources()
        .iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| format!("{}: does not begin with `//! `", source.name))
        .collect();
    report(&wrong);
}

#[test]
fn files_are_short() {
    let mut wrong = Vec::new();
    for source in sources() {
        let (all, tested) = (source.text.lines().count(), source.tested().lines().count());
        if all > FILE_MAX_LINES_WITH_TESTS || tested > FILE_MAX_LINES && !source.is_test() {
            wrong.push(format!(
                "{}: {all} lines, {tested} of them without unit tests",
                source.name
            ));
        }
    }
    report(&wrong);
}

/// Functions of formatted code and their lengths: from the line of `fn` to the brace at the same column.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let words: Vec<&str> = line.split_whitespace().take_while(|word| *word != "fn").collect();
        let known = |word: &&str| {
            word.starts_with("pub")
                || ["const", "async", "unsafe", "extern"].contains(word)
                || *word == "super)"
                || *word == "crate)"
        };
        if !line.split_whitespace().any(|word| word == "fn") || !words.iter().all(known) {
            continue;
        }
        let indent: String = line.chars().take_while(|letter| *letter == ' ').collect();
        let name = line.split("fn ").nth(1).unwrap_or_default();
        let name = name
            .split(|letter: char| !letter.is_alphanumeric() && letter != '_')
            .next()
            .unwrap_or_default();
        // A declaration in a trait ends before any brace opens.
        let body = lines[at..]
            .iter()
            .position(|line| line.ends_with('{') || line.ends_with('}') || line.ends_with(';'));
        let Some(body) = body.map(|body| at + body) else {
            continue;
        };
        let length = match lines[body].ends_with('{') {
            true => lines[body..]
                .iter()
                .position(|line| *line == format!("{indent}}}"))
                .map_or(0, |end| body + end - at + 1),
            false => body - at + 1,
        };
        found.push((name.to_owned(), length));
    }
    found
}

#[test]
fn functions_are_short() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for source in sources() {
        for (name, length) in functions(&source.text) {
            count += 1;
            if length
                > if source.is_test() {
                    TEST_FUNCTION_MAX_LINES
                } else {
                    FUNCTION_MAX_LINES
                }
            {
                wrong.push(format!("{}: {name} has {length} lines", source.name));
            }
        }
    }
    assert!(count > 300, "only {count} functions were recognised");
    report(&wrong);
}

/// The code without comments, and without what is in quotes.
fn code_only(text: &str) -> String {
    let (mut code, mut rest) = (String::new(), text);
    while let Some(letter) = rest.chars().next() {
        let skip = match letter {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |at| at + 2),
            'r' if !code.ends_with(|last: char| last.is_alphanumeric() || last == '_') => raw_string(rest),
            '"' => string(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if skip == 0 {
            code.push(letter);
            rest = &rest[letter.len_utf8()..];
        } else {
            code.push(' ');
            rest = &rest[skip..];
        }
    }
    code
}

fn raw_string(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|letter| *letter == '#').count();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let start = 2 + hashes;
    text[start..].find(&end).map_or(text.len(), |at| start + at + end.len())
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn character(text: &str) -> usize {
    let mut letters = text.char_indices().skip(1);
    match (letters.next(), letters.next()) {
        (Some((_, '\\')), _) => text[2..]
            .char_indices()
            .skip(1)
            .find(|(_, letter)| *letter == '\'')
            .map_or(0, |(at, _)| at + 3),
        (Some(_), Some((at, '\''))) => at + 1,
        // A lifetime.
        _ => 0,
    }
}

/// `fooBar_baz` is foo, bar and baz.
fn words(identifier: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before_was_lower = false;
    for letter in identifier.chars() {
        if letter == '_' || letter.is_uppercase() && before_was_lower {
            words.push(String::new());
        }
        if letter != '_' {
            words.last_mut().unwrap().extend(letter.to_lowercase());
        }
        before_was_lower = letter.is_lowercase();
    }
    words
}

fn identifiers(code: &str) -> impl Iterator<Item = &str> {
    code.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .filter(|word| !word.is_empty())
}

#[test]
fn banned_words_are_no_names() {
    let mut wrong = Vec::new();
    for source in sources() {
        let code = code_only(&source.text);
        let in_path = source.name.split(['/', '.']);
        for identifier in identifiers(&code).chain(in_path) {
            for word in words(identifier) {
                let singular = word.strip_suffix('s').unwrap_or(&word);
                let excused = OTHER_MEANINGS
                    .iter()
                    .any(|(known, file)| *known == singular && source.name.starts_with(file));
                if BANNED.contains(&singular) && !excused {
                    wrong.push(format!("{}: `{identifier}` holds `{singular}`", source.name));
                }
            }
        }
    }
    wrong.dedup();
    report(&wrong);
}

#[test]
fn dependencies_point_down() {
    let mut wrong = Vec::new();
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(allowed) = arrows.get(name.as_str()) else {
            wrong.push(format!("crates/{name}: has no place in the table of floors and doors"));
            continue;
        };
        let manifest = fs::read_to_string(root().join("crates").join(&name).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let sections = ["dependencies", "build-dependencies"];
        let names = sections
            .iter()
            .filter_map(|section| manifest.get(*section)?.as_table())
            .flat_map(|table| table.keys());
        for dependency in names.filter_map(|name| name.strip_prefix("drystone-")) {
            if !allowed.contains(&dependency) {
                wrong.push(format!("crates/{name}: must not depend on {dependency}"));
            }
        }
    }
    report(&wrong);
}

#[test]
fn decisions_are_made_in_one_place() {
    let mut wrong = Vec::new();
    for file in OWNING_FILES {
        if !root().join(file).is_file() {
            wrong.push(format!("{file}: is gone"));
        }
    }
    let sources = sources();
    for (sign, owners) in OWNERS {
        let tested = sources.iter().filter(|source| !source.is_test());
        let signs: Vec<&Source> = tested
            .filter(|source| code_only(source.tested()).contains(sign))
            .collect();
        for owner in owners {
            if !signs.iter().any(|source| source.name == *owner) {
                wrong.push(format!("{owner}: has no `{sign}` any more; mend the table"));
            }
        }
        for source in signs.iter().filter(|source| !owners.contains(&source.name.as_str())) {
            wrong.push(format!("{}: `{sign}` belongs into {}", source.name, owners.join(", ")));
        }
    }
    report(&wrong);
}

#[test]
fn lints_are_excused_with_reasons_and_nothing_is_left_to_do() {
    let mut wrong = Vec::new();
    for source in sources() {
        let code = code_only(&source.text);
        for sign in ["allow(", "todo!", "dbg!", "unimplemented!"] {
            if code.contains(sign)
                && identifiers(&code).any(|word| word == sign.trim_end_matches(['(', '!']))
                && code.contains(&format!("#[{sign}"))
            {
                wrong.push(format!("{}: has `{sign}`", source.name));
            }
        }
        let marker = ["TO", "DO"].concat();
        if source.text.contains(&marker) {
            wrong.push(format!("{}: has a {marker}", source.name));
        }
    }
    report(&wrong);
}

#[test]
fn what_architecture_names_is_there() {
    let root = root();
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    assert!(
        text.lines().count() <= ARCHITECTURE_MAX_LINES,
        "ARCHITECTURE.md has grown"
    );
    let mut wrong = Vec::new();
    for quoted in text.split('`').skip(1).step_by(2) {
        let looks_like_path = quoted.contains('/')
            && quoted
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || "/._-".contains(letter))
            && ["crates/", "docs/", "bench/", "fuzz/", "testdata/", ".ci/"]
                .iter()
                .any(|top| quoted.starts_with(top));
        if looks_like_path && !root.join(quoted).exists() {
            wrong.push(format!("ARCHITECTURE.md names `{quoted}`, which is not there"));
        }
        let in_crate = quoted
            .split_once('/')
            .filter(|(name, _)| ARROWS.iter().any(|(known, _)| known == name));
        if let Some((name, file)) = in_crate
            && file.ends_with(".rs")
            && !root.join("crates").join(name).join("src").join(file).exists()
        {
            wrong.push(format!("ARCHITECTURE.md names `{quoted}`, which is not there"));
        }
    }
    report(&wrong);
}

#[test]
fn this_test_can_read_code() {
    assert_eq!(
        code_only("a \"b // c\\\" \" d // e\nf 'g' '\\'' 'h: i r#\"j\"# k"),
        "a   d  \nf     'h: i   k"
    );
    assert_eq!(words("fooBar_BAZ"), ["foo", "bar", "baz"]);
    let text = "impl X {\n    pub(crate) fn one(\n        a: u8,\n    ) {\n        a\n    }\n\n    fn two() { 1 }\n}\nfn three() {\n}\n";
    let expected = [("one".to_owned(), 5), ("two".to_owned(), 1), ("three".to_owned(), 2)];
    assert_eq!(functions(text), expected);
}
