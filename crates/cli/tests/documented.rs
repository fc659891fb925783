//! docs/json.md describes every object that any test sees: the runner asks here about each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;

/// The type of the object that ends a list; every list describes its own.
const SUMMARY: &str = "summary";

/// Each type of the page, and every word in backticks of its description; with the words of another type where its keys are meant.
type Described = BTreeMap<String, BTreeSet<String>>;

fn words(text: &str) -> impl Iterator<Item = String> {
    let parts = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    parts.filter(|word| !word.is_empty()).map(str::to_owned)
}

fn quoted(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).flat_map(words).collect()
}

/// The text without what stands in parentheses.
fn without_asides(text: &str) -> String {
    let mut depth = 0;
    let outside = text.chars().filter(|letter| {
        depth += i32::from(*letter == '(') - i32::from(*letter == ')');
        depth == 0 && *letter != ')'
    });
    outside.collect()
}

fn read(page: &str) -> Described {
    let mut described = Described::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let mut words = quoted(row);
        let name = row.split('`').nth(1).unwrap().to_owned();
        words.remove(&name);
        described.entry(name).or_default().extend(words);
    }
    for section in page.split("\n### ").skip(1) {
        let (heading, body) = section.split_once('\n').unwrap();
        let mut keys = quoted(body);
        for other in body
            .split("keys of `")
            .skip(1)
            .filter_map(|rest| rest.split('`').next())
        {
            keys.extend(described.get(other).cloned().unwrap_or_default());
        }
        let is_list = keys.contains(SUMMARY);
        let summary = is_list.then(|| SUMMARY.to_owned());
        for name in words(&without_asides(heading)).chain(summary) {
            described.entry(name).or_default().extend(keys.clone());
        }
    }
    described
}

fn page() -> &'static Described {
    static PAGE: OnceLock<Described> = OnceLock::new();
    PAGE.get_or_init(|| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/json.md");
        read(&fs::read_to_string(file).unwrap())
    })
}

/// Asserts that the page describes this object and every key of it.
#[track_caller]
pub(crate) fn assert_described(object: &Value) {
    let missing = missing(page(), object);
    assert!(
        missing.is_empty(),
        "docs/json.md does not describe {missing:?}: {object}"
    );
}

fn missing(page: &Described, object: &Value) -> Vec<String> {
    let name = object["type"].as_str().unwrap_or_default();
    match page.get(name) {
        Some(keys) => missing_keys(page, keys, name, object),
        None => vec![name.to_owned()],
    }
}

fn missing_keys(page: &Described, keys: &BTreeSet<String>, name: &str, object: &Value) -> Vec<String> {
    let mut missing = Vec::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        let as_path = key.strip_suffix("_bytes").filter(|_| value.is_string());
        if !["schema", "type", "what", "path"].contains(&key.as_str())
            && !keys.contains(key)
            && !as_path.is_some_and(|key| keys.contains(key))
        {
            missing.push(format!("{name}.{key}"));
        }
        let inner = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for value in inner.iter().filter(|value| value.is_object()) {
            missing.extend(match value.get("type") {
                Some(_) => self::missing(page, value),
                None => missing_keys(page, keys, name, value),
            });
        }
    }
    missing
}

#[test]
fn what_the_page_does_not_describe_is_found() {
    let page = read(
        "| type | keys |\n|---|---|\n| `warning` | `message` |\n\n### thing (`list`, each), other\n\n`id`, `at` (of `{\"place\": …}`). \
         Then a `summary`: `things`.\n\n### plain\n\n`id`.\n",
    );
    let found = |text: &str| missing(&page, &serde_json::from_str(text).unwrap());
    assert!(found(r#"{"schema":1,"type":"thing","id":1,"at":[{"place":"x","path":"y"}]}"#).is_empty());
    assert!(
        found(r#"{"type":"summary","things":1}"#).is_empty() && found(r#"{"type":"warning","message":""}"#).is_empty()
    );
    assert_eq!(
        found(r#"{"type":"other","ids":1,"at":{"plaec":2}}"#),
        ["other.ids", "other.plaec"]
    );
    assert_eq!(found(r#"{"type":"list"}"#), ["list"]);
    assert_eq!(found(r#"{"type":"plain","things":1}"#), ["plain.things"]);
}
