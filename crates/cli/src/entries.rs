//! Entries of snapshots as `ls`, `find` and `diff` show them.

use drystone_format::recipe::Recipe;
use drystone_format::tree::{Entry, Kind, Marks};
use serde_json::{Value, json};

use crate::output::{local_time, put_bytes, size, utc_time};
use crate::shown::shown;

/// The word of an entry's kind in JSON, and of `find --type`.
pub(crate) fn kind_word(kind: &Kind) -> &'static str {
    match kind {
        Kind::File(_) => "file",
        Kind::Dir(_) => "dir",
        Kind::Symlink(_) => "symlink",
        Kind::BlockDevice { .. } => "block_device",
        Kind::CharDevice { .. } => "char_device",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
    }
}

/// Bytes of a file; nothing else has a size.
pub(crate) fn file_size(entry: &Entry) -> Option<u64> {
    match &entry.kind {
        Kind::File(Recipe { size_bytes, .. }) => Some(*size_bytes),
        _ => None,
    }
}

/// An entry as JSON.
pub(crate) fn fields(path: &[u8], entry: &Entry) -> Value {
    let mut fields = json!({});
    put_bytes(&mut fields, "path", path);
    let name = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    let mut marks = Vec::new();
    for (mark, word) in [
        (Marks::CHANGED_WHILE_READ, "changed_while_read"),
        (Marks::INCOMPLETE, "incomplete"),
    ] {
        if entry.marks.has(mark) {
            marks.push(word);
        }
    }
    let xattrs: Vec<String> = entry.xattrs.iter().map(|(name, _)| shown(name)).collect();
    let rest = json!({
        "kind": kind_word(&entry.kind),
        "mode": entry.mode,
        "uid": entry.uid,
        "gid": entry.gid,
        "user": name(&entry.user),
        "group": name(&entry.group),
        "size": file_size(entry),
        "mtime": utc_time(entry.mtime),
        "xattrs": xattrs,
        "hard_link": entry.hard_link.map(|(device, inode)| [device, inode]),
        "marks": marks,
    });
    if let (Value::Object(fields), Value::Object(rest)) = (&mut fields, rest) {
        fields.extend(rest.into_iter().filter(|(_, value)| !value.is_null()));
    }
    match &entry.kind {
        Kind::Symlink(target) => put_bytes(&mut fields, "target", target),
        Kind::BlockDevice { major, minor } | Kind::CharDevice { major, minor } => {
            if let Value::Object(fields) = &mut fields {
                fields.insert("major".to_owned(), (*major).into());
                fields.insert("minor".to_owned(), (*minor).into());
            }
        }
        _ => {}
    }
    fields
}

/// The path, with a `/` after directories.
pub(crate) fn name(path: &[u8], entry: &Entry) -> String {
    let slash = if matches!(entry.kind, Kind::Dir(_)) && !path.ends_with(b"/") {
        "/"
    } else {
        ""
    };
    format!("{}{slash}", shown(path))
}

/// A row as `ls -l` has them.
pub(crate) fn long(path: &[u8], entry: &Entry) -> String {
    let or_number = |name: &str, number: u32| {
        if name.is_empty() {
            number.to_string()
        } else {
            shown(name.as_bytes())
        }
    };
    let what = match &entry.kind {
        Kind::BlockDevice { major, minor } | Kind::CharDevice { major, minor } => format!("{major},{minor}"),
        _ => file_size(entry).map_or_else(|| "-".to_owned(), size),
    };
    let mut row = format!(
        "{}  {:<8} {:<8} {:>8}  {}  {}",
        mode(entry),
        or_number(&entry.user, entry.uid),
        or_number(&entry.group, entry.gid),
        what,
        local_time(entry.mtime),
        name(path, entry)
    );
    if let Kind::Symlink(target) = &entry.kind {
        row += &format!(" -> {}", shown(target));
    }
    if entry.marks.has(Marks::CHANGED_WHILE_READ) {
        row += "  (changed while it was read)";
    }
    if entry.marks.has(Marks::INCOMPLETE) {
        row += "  (incomplete)";
    }
    row
}

/// `drwxr-xr-x`.
fn mode(entry: &Entry) -> String {
    let mut text = String::with_capacity(10);
    text.push(match entry.kind {
        Kind::File(_) => '-',
        Kind::Dir(_) => 'd',
        Kind::Symlink(_) => 'l',
        Kind::BlockDevice { .. } => 'b',
        Kind::CharDevice { .. } => 'c',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
    });
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = entry.mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (entry.mode & special != 0, bits & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_shown_as_ls_shows_them() {
        let entry = |kind, bits| Entry {
            name: b"x".to_vec(),
            kind,
            mode: bits,
            uid: 0,
            gid: 0,
            user: String::new(),
            group: String::new(),
            mtime: Default::default(),
            xattrs: Vec::new(),
            hard_link: None,
            marks: Marks::default(),
            acl_names: Vec::new(),
            unknown: Vec::new(),
        };
        for (kind, bits, text) in [
            (Kind::Fifo, 0o640, "prw-r-----"),
            (Kind::Dir(Recipe::default()), 0o1777, "drwxrwxrwt"),
            (Kind::File(Recipe::default()), 0o6750, "-rwsr-s---"),
            (Kind::File(Recipe::default()), 0o5644, "-rwSr--r-T"),
        ] {
            assert_eq!(mode(&entry(kind, bits)), text);
        }
        assert_eq!(fields(b"a\xff", &entry(Kind::Fifo, 0))["path_bytes"], "61ff");
    }
}
