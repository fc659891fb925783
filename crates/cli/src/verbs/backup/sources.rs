//! What `backup` takes.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use drystone_backup::parse_list;

use crate::context::App;
use crate::exit::{Exit, Failure, Result};
use crate::output::counted;
use crate::shown::shown_path;

/// Links that are named one by one; of a long list of files the rest is counted.
const LINKS_SAID: usize = 5;

/// The paths that flags, lists or the profile name, absolute; an error if nothing of it is there.
pub(super) fn sources(paths: &[PathBuf], lists: &[PathBuf], app: &App) -> Result<Vec<PathBuf>> {
    let mut sources = paths.to_vec();
    for file in lists {
        let content = if file == Path::new("-") {
            read_stdin()
        } else {
            fs::read(file)
        };
        let content = content.map_err(|error| Failure::io("cannot read the list of files", file, &error))?;
        sources.extend(parse_list(&content));
    }
    if paths.is_empty() && lists.is_empty() {
        sources.clone_from(&app.settings.profile.paths);
    }
    if sources.is_empty() {
        return Err(
            Failure::usage("nothing to back up was named").next("drystone backup PATH, or set `paths` in the profile")
        );
    }
    let there =
        |path: &PathBuf| !matches!(fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound);
    if !sources.iter().any(there) {
        let first = sources.first().map(|path| shown_path(path)).unwrap_or_default();
        return Err(Failure::new(Exit::Error, format!("{first}: no such file or directory")).next("check the path"));
    }
    sources.iter().map(|path| absolute(path)).collect()
}

fn read_stdin() -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    io::stdin().lock().read_to_end(&mut content)?;
    Ok(content)
}

/// The path from the root. A final link is kept as what it is, and so is a final `/`, which says that it is to be followed;
/// `..` is resolved, since links make it ambiguous.
fn absolute(path: &Path) -> Result<PathBuf> {
    let failed = |error: io::Error| Failure::io("cannot find out where this is", path, &error);
    let has_parent = path.components().any(|part| part == Component::ParentDir);
    let absolute = match (has_parent, path.parent(), path.file_name()) {
        (false, _, _) => std::path::absolute(path).map_err(failed)?,
        (true, Some(parent), Some(name)) => fs::canonicalize(parent).map_err(failed)?.join(name),
        (true, _, _) => fs::canonicalize(path).map_err(failed)?,
    };
    let given = path.as_os_str().as_bytes();
    let is_followed = given.ends_with(b"/") || given.ends_with(b"/.");
    // Joining nothing puts the `/` at the end.
    Ok(if is_followed { absolute.join("") } else { absolute })
}

/// Says which sources are links to something that no source holds: of these the link alone is stored.
pub(super) fn lone_links(sources: &[PathBuf]) -> Vec<String> {
    let is_link = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    let (links, others): (Vec<_>, Vec<_>) = sources.iter().partition(|path| is_link(path));
    if links.is_empty() {
        return Vec::new();
    }
    let held: BTreeSet<PathBuf> = others.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    let mut said = Vec::new();
    let mut unsaid = 0_u64;
    for link in links {
        let Ok(target) = fs::canonicalize(link) else { continue };
        if target.ancestors().any(|path| held.contains(path)) {
            continue;
        }
        if said.len() == LINKS_SAID {
            unsaid += 1;
            continue;
        }
        let (link, to) = (shown_path(link), shown_path(&target));
        let name = if target.is_dir() {
            format!("{link}/")
        } else {
            to.clone()
        };
        said.push(format!(
            "{link}: is a link to {to}; only the link is stored; to back up what it leads to, name {name}"
        ));
    }
    if unsaid > 0 {
        said.push(format!(
            "of {} more only the link is stored",
            counted(unsaid, "such link")
        ));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_absolute() {
        let here = fs::canonicalize(".").unwrap();
        assert_eq!(
            absolute(Path::new("src/./verbs")).unwrap(),
            std::path::absolute("src/verbs").unwrap()
        );
        assert_eq!(absolute(Path::new("..")).unwrap(), here.parent().unwrap());
        assert_eq!(absolute(Path::new("src/../src")).unwrap(), here.join("src"));
        assert_eq!(absolute(Path::new("/")).unwrap(), Path::new("/"));
        for path in ["src/", "src/.", "src/../src/", "src/verbs/../../src/."] {
            let absolute = absolute(Path::new(path)).unwrap();
            let expected = here.join("src/");
            assert_eq!(absolute.as_os_str(), expected.as_os_str(), "{path}");
        }
    }
}
