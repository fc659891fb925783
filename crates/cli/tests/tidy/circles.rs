//! Circles of modules: each crate has no more modules that import each other in a circle than when they were last counted.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, code_only, report, sources};

/// Modules in circles, by crate. The numbers only fall: whoever opens a circle lowers its number.
const IN_CIRCLES: [(&str, usize); 8] = [
    ("backup", 0),
    ("cli", 0),
    ("extents", 0),
    ("format", 0),
    ("index", 0),
    ("reflink", 0),
    ("store", 0),
    ("vault", 0),
];

/// A module by the names that lead to it. The root of a crate is none: it shows the outside what the others hold.
type Module = Vec<String>;

/// The modules of one crate, and what each imports.
type Arrows = BTreeMap<Module, BTreeSet<Module>>;

/// The crate and the module that a file is, if it is one.
fn place(name: &str) -> Option<(&str, Module)> {
    let (name, path) = name.strip_prefix("crates/")?.split_once("/src/")?;
    let mut module: Module = path.strip_suffix(".rs")?.split('/').map(str::to_owned).collect();
    if module == ["lib"] || module == ["main"] {
        module.clear();
    }
    Some((name, module))
}

/// Words, and the signs that hold paths together.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(letter) = rest.chars().next() {
        let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
        let len = match letter {
            _ if is_word(letter) => rest.find(|letter| !is_word(letter)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            _ => letter.len_utf8(),
        };
        if !letter.is_whitespace() {
            tokens.push(&rest[..len]);
        }
        rest = &rest[len..];
    }
    tokens
}

/// The paths that begin at a token, with `before` in front; returns where the next token is.
fn paths(tokens: &[&str], mut at: usize, before: &[&str], found: &mut Vec<Module>) -> usize {
    let mut path = before.to_vec();
    loop {
        match tokens.get(at) {
            Some(&"{") if !path.is_empty() => {
                at += 1;
                while let Some(token) = tokens.get(at).filter(|token| **token != "}") {
                    at = match *token {
                        "," => at + 1,
                        "as" => at + 2,
                        _ => paths(tokens, at, &path, found).max(at + 1),
                    };
                }
                return at + 1;
            }
            Some(word) if word.starts_with(|letter: char| letter.is_alphabetic() || letter == '_') => path.push(word),
            _ => break,
        }
        at += 1;
        if tokens.get(at) != Some(&"::") {
            break;
        }
        at += 1;
    }
    found.push(path.into_iter().map(str::to_owned).collect());
    at
}

/// All paths of some code that have more than one name.
fn all_paths(code: &str) -> Vec<Module> {
    let tokens = tokens(code);
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        at = paths(&tokens, at, &[], &mut found).max(at + 1);
    }
    found.retain(|path| path.len() > 1);
    found
}

/// The module that a path leads to from `from`, if it is another one of the same crate.
fn resolve(from: &Module, path: &[String], modules: &BTreeSet<Module>) -> Option<Module> {
    let ups = path.iter().take_while(|name| *name == "super").count();
    let (mut base, names) = match path.first()?.as_str() {
        "crate" => (Module::new(), &path[1..]),
        "super" => (from[..from.len().checked_sub(ups)?].to_vec(), &path[ups..]),
        "self" => (from.clone(), &path[1..]),
        // A module within this one.
        _ => {
            let below: Module = from.iter().chain(path.first()).cloned().collect();
            modules.contains(&below).then(|| (from.clone(), path))?
        }
    };
    for name in names {
        base.push(name.clone());
        if !modules.contains(&base) {
            base.pop();
            break;
        }
    }
    (base != *from && !base.is_empty()).then_some(base)
}

fn arrows(sources: &[Source]) -> BTreeMap<String, Arrows> {
    let mut crates: BTreeMap<String, Arrows> = BTreeMap::new();
    let files = || sources.iter().filter_map(|source| Some((source, place(&source.name)?)));
    for (_, (name, module)) in files() {
        crates
            .entry(name.to_owned())
            .or_default()
            .insert(module, BTreeSet::new());
    }
    for (source, (name, module)) in files() {
        let arrows = crates.get_mut(name).unwrap();
        let modules: BTreeSet<Module> = arrows.keys().cloned().collect();
        let imported = all_paths(&code_only(source.tested()));
        let imported = imported.iter().filter_map(|path| resolve(&module, path, &modules));
        arrows.get_mut(&module).unwrap().extend(imported);
    }
    crates
}

/// What can be reached from a module, itself only in a circle.
fn reached<'a>(arrows: &'a Arrows, from: &Module) -> BTreeSet<&'a Module> {
    let (mut reached, mut left) = (BTreeSet::new(), vec![from.clone()]);
    while let Some(module) = left.pop() {
        for next in &arrows[&module] {
            if reached.insert(next) {
                left.push(next.clone());
            }
        }
    }
    reached
}

/// The circles of a crate, each with the arrows in it.
fn circles(arrows: &Arrows) -> Vec<Vec<String>> {
    let all: BTreeMap<&Module, _> = arrows.keys().map(|module| (module, reached(arrows, module))).collect();
    let within = |one: &Module, other: &Module| all[one].contains(other) && all[other].contains(one);
    let (mut circles, mut seen) = (Vec::new(), BTreeSet::new());
    for module in arrows.keys().filter(|module| all[module].contains(module)) {
        if !seen.insert(module) {
            continue;
        }
        let members: Vec<&Module> = arrows.keys().filter(|other| within(module, other)).collect();
        seen.extend(&members);
        let shown = |module: &Module| module.join("::");
        let line = |member: &&Module| {
            let next = arrows[*member].iter().filter(|next| members.contains(next));
            format!(
                "{} -> {}",
                shown(member),
                next.map(shown).collect::<Vec<_>>().join(", ")
            )
        };
        circles.push(members.iter().map(line).collect());
    }
    circles
}

#[test]
fn modules_that_import_each_other_in_circles_grow_fewer() {
    let mut wrong = Vec::new();
    for (name, arrows) in arrows(&sources()) {
        let circles = circles(&arrows);
        let count: usize = circles.iter().map(Vec::len).sum();
        let known = IN_CIRCLES.iter().find(|(known, _)| *known == name);
        let known = known.map_or(0, |(_, count)| *count);
        if count < known {
            wrong.push(format!(
                "crates/{name}: only {count} modules are in circles; lower the number in the table"
            ));
        }
        if count > known {
            wrong.push(format!(
                "crates/{name}: {count} modules are in circles, {known} were; each line imports:"
            ));
            wrong.extend(circles.concat());
        }
    }
    report(&wrong);
}

#[test]
fn this_test_finds_circles() {
    let source = |name: &str, text: &str| Source {
        name: format!("crates/x/src/{name}.rs"),
        text: text.to_owned(),
    };
    let sources = [
        source("lib", "mod a; mod b; mod c; mod d; pub use a::A;"),
        source("a", "use crate::{b::{self, B}, c as other, A as D}; struct A;"),
        source("b", "fn f() { crate::c::g(\"crate::d\"); }"),
        source("c", "mod below; use below::Z; fn g() { d(); }\n// crate::a"),
        source("c/below", "use super::super::a::A; use std::fmt;"),
        source("d", "use crate::a::A;\n#[cfg(test)]\nmod tests { use crate::d; }"),
    ];
    let found = circles(&arrows(&sources)["x"]);
    assert_eq!(found, [["a -> b, c", "b -> c", "c -> c::below", "c::below -> a"]]);
}
