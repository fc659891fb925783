//! Writes a seed corpus: the examples of docs/format.md and the objects of the golden vault.

use std::path::{Path, PathBuf};

use drystone_format::id::pack_id;

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn write(target: &str, bytes: &[u8]) {
    let directory = top().join("fuzz/corpus").join(target);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join(pack_id(bytes).short()), bytes).unwrap();
}

/// Which target an example goes to, and what comes before it.
fn target(example: &str) -> Option<(&'static str, &'static [u8])> {
    Some(match example {
        "secrets" => ("secrets", b""),
        "header" => ("header", b""),
        "slot" => ("slot", b""),
        "pack" => ("preamble", b""),
        "shard-data" => ("shard", b"\x03\x02\x00\x00\x01\xbe"),
        "shard-parity" => ("shard", b"\x03\x04\x00\x00\x01\xbe"),
        "recipe-node" => ("recipe", b"\x01\x00\x00\x01\x00\x00\x00\x10\x06"),
        "tree" => ("tree", b""),
        "snapshot" => ("snapshot", b""),
        "root" => ("root", b""),
        "verified-list" => ("verified", b""),
        "epoch" => ("epoch", b""),
        "config" | "place" => ("config", b""),
        "ledger" => ("ledger", b""),
        "presence" => ("presence", b""),
        "index-part" | "index-run" => ("index", b""),
        _ => return None,
    })
}

fn examples() {
    let document = std::fs::read_to_string(top().join("docs/format.md")).unwrap();
    for block in document.split("```hex ").skip(1) {
        let (name, rest) = block.split_once("-example\n").unwrap();
        let digits: Vec<u8> = rest
            .split("```")
            .next()
            .unwrap()
            .bytes()
            .filter(u8::is_ascii_hexdigit)
            .collect();
        let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        let bytes: Vec<u8> = pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        if let Some((target, before)) = target(name) {
            write(target, &[before, &bytes].concat());
        } else if name.starts_with("frame-") {
            write("codec", &[&[bytes[0]], &bytes[2..]].concat());
        }
    }
    let row = [
        [0xa1, 0, 0x81, 0x82, 0x18, 100, 0x58, 36].as_slice(),
        &[7; 32],
        &[0, 0, 0, 1],
    ]
    .concat();
    write("trailer", &[&[0, 100], row.as_slice()].concat());
}

/// The objects below `directory`, whose path from the top of the vault is `name`.
fn objects(directory: &Path, name: &str) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{name}{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            objects(&entry.path(), &format!("{name}/"));
            continue;
        }
        let bytes = std::fs::read(entry.path()).unwrap();
        let (target, start) = match name.split('/').next().unwrap() {
            "drystone" => ("header", 0),
            "keys" => ("slot", 0),
            "packs" => ("preamble", bytes.len().saturating_sub(1024)),
            "roots" => ("root", 0),
            _ => ("verified", 0),
        };
        write(target, &bytes[start..]);
        write("name", name.as_bytes());
    }
}

fn main() {
    examples();
    objects(&top().join("testdata/format/v1/vault"), "");
}
