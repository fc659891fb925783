//! Every promise names a test: those of docs/threat-model.md where they stand, those of README.md in a table of docs/testing.md.
//!
//! - A test is named in backticks by its file and function, as in `writers::a_lying_pack_costs_nobody_the_true_one`, with folders before if that helps.
//! - That the test fails when the mechanism is broken cannot be checked here.

use std::fs;

use super::{Source, report, root, sources};

const MODEL: &str = "docs/threat-model.md";
const TESTING: &str = "docs/testing.md";
const ATTACKS: &str = "docs/decisions/0020-attacks.md";

fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap()
}

/// The rows of the table, or else the bullets, of a section; each on one line.
fn items(text: &str, title: &str) -> Vec<String> {
    let mut sections = text.split("\n## ");
    let section = sections.find(|section| section.lines().next() == Some(title));
    let mut items: Vec<String> = Vec::new();
    for line in section.unwrap_or_default().lines() {
        if line.starts_with("|-") {
            // What stood above is the head of the table.
            items.clear();
        } else if let Some(item) = line.strip_prefix("| ").or(line.strip_prefix("- ")) {
            items.push(item.to_owned());
        } else if let (Some(item), true) = (items.last_mut(), line.starts_with("  ")) {
            *item += &line[1..];
        }
    }
    assert!(!items.is_empty(), "`{title}` has neither rows nor bullets");
    items
}

/// The tests that a text names. Types are written with a capital letter, so they are no tests.
fn named_tests(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|quoted| quoted.contains("::") && quoted.starts_with(char::is_lowercase))
}

/// Returns true if the text has a function of this name, and an attribute above it makes it a test.
fn has_test(text: &str, function: &str) -> bool {
    let Some((above, _)) = text.split_once(&format!("fn {function}(")) else {
        return false;
    };
    // The first line is that of the function itself, as far as `fn`.
    let mut attributes = above.rsplit('\n').skip(1).map(str::trim_start);
    attributes
        .by_ref()
        .take_while(|line| line.starts_with("#["))
        .any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
}

fn is_test(name: &str, sources: &[Source]) -> bool {
    let Some((module, function)) = name.rsplit_once("::") else {
        return false;
    };
    let file = format!("/{}.rs", module.replace("::", "/"));
    let mut files = sources.iter().filter(|source| source.name.ends_with(&file));
    files.any(|source| has_test(&source.text, function))
}

#[test]
fn promises_name_tests_that_exist() {
    let (model, table) = (read(MODEL), items(&read(TESTING), "What README promises"));
    let promises = [
        items(&model, "Promises"),
        items(&model, "Dummy snapshots against keep rules"),
        items(&model, "Chunk boundaries")
            .into_iter()
            .filter(|item| item.starts_with("**What holds.**"))
            .collect(),
        table.clone(),
    ];
    let promises = promises.concat();
    assert!(promises.len() > 50, "only {} promises were recognised", promises.len());
    let bare = promises.iter().filter(|promise| named_tests(promise).next().is_none());
    let mut wrong: Vec<String> = bare.map(|promise| format!("names no test: {promise}")).collect();
    let sources = sources();
    for (document, text) in [(MODEL, model), (TESTING, table.join("\n")), (ATTACKS, read(ATTACKS))] {
        let missing = named_tests(&text).filter(|name| !is_test(name, &sources));
        wrong.extend(missing.map(|name| format!("{document} names `{name}`, which is no test")));
    }
    report(&wrong);
}

/// The table of docs/testing.md quotes README.md, and leaves out nothing that stands under "What it promises".
#[test]
fn promises_of_the_readme_are_quoted_as_they_are() {
    let readme = read("README.md");
    let (table, bullets) = (
        items(&read(TESTING), "What README promises"),
        items(&readme, "What it promises"),
    );
    let quotes: Vec<&str> = table.iter().filter_map(|row| row.split(" | ").next()).collect();
    let words: Vec<&str> = readme.split_whitespace().collect();
    let text = words.join(" ");
    let gone = quotes.iter().filter(|quote| !text.contains(**quote));
    let mut wrong: Vec<String> = gone.map(|quote| format!("README.md does not say: {quote}")).collect();
    for bullet in bullets {
        let sentences = bullet
            .trim_end_matches('.')
            .split(". ")
            .map(|sentence| format!("{sentence}."));
        let missing = sentences.filter(|sentence| !quotes.contains(&sentence.as_str()));
        wrong.extend(missing.map(|sentence| format!("{TESTING} does not quote: {sentence}")));
    }
    report(&wrong);
}

#[test]
fn this_test_can_read_documents() {
    let text = "# T\n\n## One\n\n- a\n  b\n- c\n\n## Two\n\n| x | y |\n|---|---|\n| `a::b`, `A::b` | `c` |\n";
    assert_eq!(items(text, "One"), ["a b", "c"]);
    assert_eq!(items(text, "Two"), ["`a::b`, `A::b` | `c` |"]);
    assert_eq!(named_tests(text).collect::<Vec<_>>(), ["a::b"]);
    let code = "#[test]\nfn one() {}\nfn two() {}\n    #[tokio::test]\n    #[ignore]\n    async fn three(\n";
    let found = ["one", "two", "three", "four"].map(|name| has_test(code, name));
    assert_eq!(found, [true, false, true, false]);
}
