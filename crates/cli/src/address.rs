//! How places are named: directories and URLs, one or several, and K/N.
//!
//! - Commas separate places, unless a directory has that very name.
//! - Local paths are made absolute, for the configuration is read from anywhere.

use std::path::{Path, PathBuf};

/// The places that `text` names.
pub(crate) fn named(text: &str) -> Vec<String> {
    if Path::new(text).exists() {
        return vec![absolute(text)];
    }
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let mut places: Vec<String> = parts.map(absolute).collect();
    if places.is_empty() {
        places.push(text.to_owned());
    }
    places
}

/// The same places, with relative paths taken from `base`.
pub(crate) fn anchored(text: &str, base: &Path) -> String {
    let anchor = |place: &str| match base.join(place).to_str() {
        Some(path) if !place.contains("://") => path.to_owned(),
        _ => place.to_owned(),
    };
    if base.join(text).exists() {
        return anchor(text);
    }
    let parts: Vec<String> = text.split(',').map(|part| anchor(part.trim())).collect();
    parts.join(",")
}

/// A path as it is from anywhere, without `/` at its end; URLs and what is no path are left alone.
pub(crate) fn absolute(place: &str) -> String {
    if place.is_empty() || place.contains("://") {
        return place.to_owned();
    }
    let path = std::path::absolute(place)
        .ok()
        .map(|path| path.components().collect::<PathBuf>());
    let text = path.and_then(|path| path.into_os_string().into_string().ok());
    text.unwrap_or_else(|| place.to_owned())
}

/// `K/N`, as in 2/3.
pub(crate) fn spread(text: &str) -> Result<(u8, u8), String> {
    let wrong = || format!("`{text}` is no spread; write K/N, for example 2/3: any 2 of 3 are enough");
    let (needed, total) = text.split_once('/').ok_or_else(wrong)?;
    let (needed, total): (u8, u8) = (
        needed.parse().map_err(|_| wrong())?,
        total.parse().map_err(|_| wrong())?,
    );
    if needed == 0 || needed > total {
        return Err(wrong());
    }
    Ok((needed, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_places_are_separated_by_commas() {
        let here = std::path::absolute("a").unwrap();
        assert_eq!(named("a, s3://b/c,"), [here.to_str().unwrap(), "s3://b/c"]);
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("x,y");
        std::fs::create_dir(&odd).unwrap();
        assert_eq!(named(odd.to_str().unwrap()), [odd.to_str().unwrap()]);
        assert_eq!(named(","), [","]);
        assert_eq!(absolute("a/"), here.to_str().unwrap());
    }

    #[test]
    fn spreads_are_read() {
        assert_eq!(spread("2/3"), Ok((2, 3)));
        assert_eq!(spread("1/1"), Ok((1, 1)));
        for text in ["", "2", "0/3", "3/2", "2/256", "2/3/4", "-1/2", "a/b"] {
            assert!(spread(text).is_err(), "{text}");
        }
    }
}
