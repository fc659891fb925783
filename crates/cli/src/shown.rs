//! Bytes and texts from outside, made safe for people to look at.
//!
//! - No terminal takes anything in them for a command, and no eye takes a letter for another one.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes as a person can read and no terminal can misunderstand them.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for piece in bytes.utf8_chunks() {
        for letter in piece.valid().chars() {
            push_safe(&mut text, letter, LineEnds::Shown);
        }
        for byte in piece.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// What becomes of line ends in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineEnds {
    /// They end lines.
    Kept,
    /// They are escaped.
    Shown,
}

/// The text made safe, if it was not.
pub(crate) fn tamed(text: &str) -> Option<String> {
    Some(safe(text, LineEnds::Kept)).filter(|safe| safe != text)
}

/// The text without anything that a terminal, or the eye, may take for something else.
pub(crate) fn safe(text: &str, ends: LineEnds) -> String {
    let mut safe = String::with_capacity(text.len());
    text.chars().for_each(|letter| push_safe(&mut safe, letter, ends));
    safe
}

fn push_safe(text: &mut String, letter: char, ends: LineEnds) {
    let is_end = letter == '\n' && ends == LineEnds::Kept;
    if (letter.is_control() || is_format(letter)) && !is_end {
        text.extend(letter.escape_default())
    } else {
        text.push(letter)
    }
}

/// Whether a letter only changes how others are shown: category Cf of Unicode 16, and the separators of lines and paragraphs.
fn is_format(letter: char) -> bool {
    matches!(letter,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
        | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}')
}

/// A path, as [`shown`].
pub(crate) fn shown_path(path: &Path) -> String {
    shown(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_reach_no_terminal() {
        assert_eq!(shown(b"a\x1b[31m\xff\xfe \xc3\xa9\n"), "a\\u{1b}[31m\\xff\\xfe é\\n");
        assert_eq!(
            shown("cod.\u{202e}gpj\u{200b}\u{feff}".as_bytes()),
            "cod.\\u{202e}gpj\\u{200b}\\u{feff}"
        );
        let text = "a\u{1b}]0;x\u{7}\u{9b}2J\r\u{2028}\nb";
        assert_eq!(safe(text, LineEnds::Kept), "a\\u{1b}]0;x\\u{7}\\u{9b}2J\\r\\u{2028}\nb");
        assert!(!safe(text, LineEnds::Shown).contains('\n'));
        // What was made safe before stays as it is.
        assert_eq!(safe(&shown(b"\x1b\n"), LineEnds::Kept), "\\u{1b}\\n");
    }
}
