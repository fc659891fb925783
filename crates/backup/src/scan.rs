//! Looking at a directory: its names, what the kernel says about them, what the cache says about that.
//!
//! - Done in batches of names in their order, so that a directory of any size takes bounded memory beyond its names.
//! - Nothing but directories is opened here.

pub(crate) mod count;
pub(crate) mod found;
pub(crate) mod job;
mod place;
pub(crate) mod prefetch;
pub(crate) mod rules;
pub(crate) mod walk;

use std::sync::Arc;

use drystone_format::recipe::Recipe;
use drystone_format::tree::{Entry, Kind, Marks};
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::cache::{Cache, Cursor, Lookup, Print, key};
use crate::error::{Error, Result, is_exhausted};
use crate::local::attributes::{self, XattrReader, entry};
use crate::local::dir::{Dir, Follow, Stat};
use crate::local::listing::{Lister, Listing};
use crate::options::OneFileSystem;
use crate::scan::found::{Below, Cached, Found, Order, Rest, Scanned};
use crate::scan::place::Place;
use crate::scan::rules::Rules;
use crate::scope::Scope;
use crate::scope::filters::Marker;
use crate::scope::sources::Named;
use crate::tracked::{Row, is_home};

/// Names looked at in one go.
const BATCH_NAMES: usize = 1024;

const OWN_DIR: &str = "belongs to this vault or to a cache of drystone, which are never backed up; it is left out";

/// Looks at directories; one for each thread.
pub(crate) struct Scanner<'a> {
    rules: &'a Rules<'a>,
    cache: Cache<'a>,
    lister: Lister,
    xattrs: XattrReader,
    path: Vec<u8>,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(rules: &'a Rules<'a>) -> Result<Self> {
        let reader = if rules.reads_cache {
            Some(rules.state.reader()?)
        } else {
            None
        };
        Ok(Self {
            rules,
            cache: Cache::new(rules.vault, reader, rules.loss_epoch),
            lister: Lister::new(),
            xattrs: XattrReader::new(),
            path: Vec::new(),
        })
    }

    fn problem(&self, path: &[u8], what: &str, error: impl Into<std::io::Error>) {
        self.rules.problem(path, format_args!("{what}: {}", error.into()));
    }

    /// Opens a directory and looks at the first of its names; `None` if it has vanished.
    pub(crate) fn scan(&mut self, order: &Order) -> Result<Option<Box<Scanned>>> {
        let dir = match self.open(order) {
            Ok(dir) => Arc::new(dir),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) if is_exhausted(error) => {
                return Err(Error::Exhausted {
                    path: order.path.clone(),
                    source: error.into(),
                });
            }
            Err(error) => return Ok(self.closed(order, error)),
        };
        if let Some(row) = self.spared(Some(&dir), dir.stat.ino, &order.path)? {
            let head = entry(&order.name, &dir.stat, Kind::Dir(Recipe::default()), self.rules.names);
            return Ok(Some(Box::new(Scanned {
                spared: Some(row),
                dir: Some(dir),
                ..self.empty(order, head)
            })));
        }
        let mut head = self.head(order, &dir);
        let listing = match &order.scope {
            Scope::Listed(named) => Listing::of(named.children.keys()),
            Scope::Whole { named, .. } => {
                let (mut listing, result) = self.lister.list(&dir.fd);
                if let Err(error) = result {
                    if error.kind() == std::io::ErrorKind::NotFound {
                        // It was removed after it was opened.
                        return Ok(None);
                    }
                    self.problem(&order.path, "cannot be listed to its end", error);
                    head.marks.0 |= Marks::INCOMPLETE;
                }
                self.apply_markers(&dir, named.as_deref(), &mut listing);
                listing
            }
        };
        let cached = self.cached(order);
        let slot = self.rules.slots.keys.get(cached.slot).copied().unwrap_or_default();
        let cursor = Cursor::open(&self.cache, &slot, &cached.key)?;
        let cached = Cached {
            epoch: cursor.epoch(),
            is_current: self.rules.reads_cache && (cursor.epoch().is_none() || cursor.is_trusted()),
            ..cached
        };
        let mut rest = Rest {
            listing,
            next: 0,
            cursor: Some(cursor),
        };
        let batch = self.batch(&dir, &order.path, &order.scope, &mut rest)?;
        Ok(Some(Box::new(Scanned {
            dir: Some(dir),
            cached,
            rest,
            batch,
            ..self.empty(order, head)
        })))
    }

    /// The entry of a directory, with its extended attributes.
    fn head(&mut self, order: &Order, dir: &Dir) -> Entry {
        let xattrs = match &order.scope {
            Scope::Whole { .. } => self.xattrs.of_open(&dir.fd),
            Scope::Listed(_) => self.xattrs.of_passed(dir),
        };
        let mut head = entry(&order.name, &dir.stat, Kind::Dir(Recipe::default()), self.rules.names);
        attributes::put(&mut head, xattrs.xattrs, self.rules.names);
        if let Some(missing) = xattrs.missing {
            let what = format_args!("extended attributes are not stored: {missing}");
            self.rules.problem(order.path.as_slice(), what);
            head.marks.0 |= Marks::INCOMPLETE;
        }
        head
    }

    /// The directory, as a snapshot has it where there is one.
    fn open(&self, order: &Order) -> std::result::Result<Dir, Errno> {
        match &order.scope {
            Scope::Whole { .. } => {
                let dir = order.parent.open_through(&order.name, order.scope.follow())?;
                Ok(self.rules.tracker.enter(dir, &order.path))
            }
            Scope::Listed(_) => order.parent.pass(&order.name),
        }
    }

    /// A directory that nothing is known to be in.
    fn empty(&self, order: &Order, head: Entry) -> Scanned {
        Scanned {
            head,
            dir: None,
            cached: self.cached(order),
            rest: Rest::NONE,
            batch: Vec::new(),
            spared: None,
        }
    }

    /// What the last run made of a directory in which nothing has changed since: the inode in the same subvolume as `beside`.
    fn spared(&self, beside: Option<&Dir>, inode: u64, path: &[u8]) -> Result<Option<Box<Row>>> {
        let Some(tracked) = beside
            .and_then(|dir| self.rules.tracker.of(dir))
            .filter(|_| !path.is_empty())
        else {
            return Ok(None);
        };
        let path = key(&[path]);
        let Some((rows, row)) = tracked.row_of(inode, &path) else {
            return Ok(None);
        };
        let page = self.cache.page(&rows, &row, 0, None)?;
        let row = page.and_then(|(_, page)| Row::decode(&page.bytes));
        Ok(row.filter(|row| tracked.holds(row, &path)).map(Box::new))
    }

    fn cached(&self, order: &Order) -> Cached {
        let slot = match order.scope {
            Scope::Whole { slot, .. } => slot,
            Scope::Listed(_) => self.rules.slots.files(),
        };
        Cached {
            slot,
            key: key(&[&order.path]),
            epoch: None,
            is_current: true,
        }
    }

    /// A directory that cannot be opened: itself, and the mark that something is missing.
    fn closed(&self, order: &Order, error: Errno) -> Option<Box<Scanned>> {
        let stat = order.parent.look(&order.name, order.scope.follow());
        let stat = stat.ok().filter(Stat::is_dir)?;
        self.problem(&order.path, "directory cannot be opened", error);
        let mut head = entry(&order.name, &stat, Kind::Dir(Recipe::default()), self.rules.names);
        head.marks.0 |= Marks::INCOMPLETE;
        Some(Box::new(self.empty(order, head)))
    }

    /// A directory of another file system, kept as the empty place that it is mounted on.
    pub(crate) fn mount_point(&self, order: &Order, stat: &Stat) -> Box<Scanned> {
        let head = entry(&order.name, stat, Kind::Dir(Recipe::default()), self.rules.names);
        Box::new(self.empty(order, head))
    }

    /// Drops what a marker keeps out; what was named stays.
    fn apply_markers(&self, dir: &Dir, named: Option<&Named>, listing: &mut Listing) {
        if named.is_some_and(|named| named.source.is_some()) {
            return;
        }
        let is_marked = |marker: &&Marker| listing.find(&marker.name).is_some() && marker.holds(&dir.fd);
        if let Some(marker) = self.rules.filters.markers().iter().find(is_marked) {
            let is_named = |name: &[u8]| named.is_some_and(|named| named.children.contains_key(name));
            listing.retain(|name| name == marker.name || is_named(name));
        }
    }

    /// Looks at the next names of a directory.
    pub(crate) fn batch(&mut self, dir: &Dir, path: &[u8], scope: &Scope, rest: &mut Rest) -> Result<Vec<Found>> {
        let mut batch = Vec::with_capacity(rest.listing.len().saturating_sub(rest.next).min(BATCH_NAMES));
        self.path.clear();
        self.path.extend_from_slice(path);
        self.path.push(b'/');
        let prefix = self.path.len();
        let place = Place::new(&self.rules.tracker, dir, path);
        for number in (rest.next..rest.listing.len()).take(BATCH_NAMES) {
            rest.next = number + 1;
            if let Some((name, kind)) = rest.listing.get(number) {
                self.path.truncate(prefix);
                self.path.extend_from_slice(name);
                self.look(&place, (name, kind), scope, (&mut rest.cursor, &mut batch))?;
            }
        }
        if rest.is_empty()
            && let Some(mut cursor) = rest.cursor.take()
            && cursor.has_more(&self.cache)?
        {
            batch.push(Found::Gone);
        }
        Ok(batch)
    }

    /// Looks at one name; its path is in `self.path`.
    fn look(
        &mut self,
        place: &Place<'_>,
        (name, kind): (&[u8], FileType),
        scope: &Scope,
        (cursor, batch): (&mut Option<Cursor>, &mut Vec<Found>),
    ) -> Result<()> {
        let named = scope.named().and_then(|named| named.children.get(name));
        let asks = named.is_none_or(|named| named.source.is_none()) && self.rules.filters.has_patterns();
        let mut is_excluded = asks && kind != FileType::Unknown && self.excludes(kind == FileType::Directory);
        if is_excluded && named.is_none() {
            return Ok(());
        }
        // On the way to a source links are followed; the source itself may be one.
        let leads_on = matches!(scope, Scope::Listed(_)) && named.is_some_and(|named| named.source.is_none());
        let is_followed = named.is_some_and(|named| named.follow == Follow::Yes) && place.is_link(name);
        let follow = if leads_on || is_followed {
            Follow::Yes
        } else {
            Follow::No
        };
        let (stat, live) = match place.look(name, follow) {
            Ok((stat, _)) if is_home(name, &stat) => return Ok(()),
            Ok(found) => found,
            Err(Errno::NOENT) if named.is_none() => return Ok(()),
            Err(error) => {
                self.problem(&self.path, "cannot be looked at", error);
                return Ok(());
            }
        };
        if self.rules.own.has(&stat) {
            if named.is_some() {
                self.rules.problem(self.path.as_slice(), OWN_DIR);
            }
            return Ok(());
        }
        is_excluded |= asks && kind == FileType::Unknown && self.excludes(stat.is_dir());
        if is_excluded && named.is_none() {
            return Ok(());
        }
        if live.is_some() {
            // The next run's snapshot will not tell what changes here.
            self.rules.unsettle(place.path);
        }
        if stat.is_dir() {
            let scope = if is_excluded { None } else { Some(scope) };
            return self.look_dir(place, (name, live, stat), (scope, named), batch);
        }
        if is_followed {
            self.problem(&self.path, "cannot be entered", Errno::NOTDIR);
            return Ok(());
        }
        if named.is_some_and(|named| !named.children.is_empty()) {
            self.problem(&self.path, "what was named in it is not taken", Errno::NOTDIR);
        }
        if leads_on {
            return Ok(());
        }
        let (stat, live) = match (live, scope) {
            (None, Scope::Listed(_)) => place.look_inside(name, stat),
            (live, _) => (stat, live),
        };
        let print = Print::new(&stat);
        let lookup = match cursor {
            Some(cursor) => cursor.find(&self.cache, name, &print, &mut || batch.push(Found::Gone))?,
            None => Lookup::New,
        };
        batch.push(Found::file(name, (stat, live), lookup));
        Ok(())
    }

    /// Decides what becomes of a directory, whose path is in `self.path`; `scope` is that of the one it is in, unless it is left
    /// out.
    fn look_dir(
        &mut self,
        place: &Place<'_>,
        (name, live, stat): (&[u8], Option<Arc<Dir>>, Stat),
        (scope, named): (Option<&Scope>, Option<&Arc<Named>>),
        batch: &mut Vec<Found>,
    ) -> Result<()> {
        let dir = live.as_deref().unwrap_or(place.dir);
        let is_made_up = matches!(scope, Some(Scope::Whole { .. }))
            && named.is_none_or(|named| named.source.is_none())
            && stat.device != dir.stat.device
            && self.rules.systems.is_made_up(&dir.fd, name, stat.device);
        if is_made_up {
            self.rules.systems.leave_out(&self.path);
        }
        let Some(below) = self.below((name, live), stat, scope, (named, is_made_up)) else {
            return Ok(());
        };
        let is_here = below.live.is_none() && below.stat.is_none();
        let beside = Some(place.dir).filter(|_| is_here);
        let source = below.scope.source().map(|number| (number, stat.ino));
        batch.push(match self.spared(beside, stat.ino, &self.path)? {
            Some(row) => Found::Spared { row, source },
            None => Found::Below(below),
        });
        Ok(())
    }

    fn excludes(&self, is_dir: bool) -> bool {
        self.rules.filters.excludes(&self.path, is_dir)
    }

    /// Why and how the directory `name` is to be looked at; `scope` is that of the one it is in, unless it is left out. One on a
    /// file system that the kernel makes up stays empty but for what is named in it.
    fn below(
        &self,
        (name, live): (&[u8], Option<Arc<Dir>>),
        stat: Stat,
        scope: Option<&Scope>,
        (named, is_made_up): (Option<&Arc<Named>>, bool),
    ) -> Option<Below> {
        let below = |scope, stat| {
            let name = name.to_vec();
            Some(Below {
                name,
                scope,
                stat,
                live,
                task: None,
            })
        };
        if let Some(source) = named.and_then(|named| named.source) {
            let scope = Scope::Whole {
                slot: self.rules.slots.of(source),
                device: stat.device,
                named: named.cloned(),
            };
            return below(scope, None);
        }
        let on_the_way = named.cloned();
        let Some(Scope::Whole { slot, device, .. }) = scope else {
            return below(Scope::Listed(on_the_way?), None);
        };
        let is_other = self.rules.one_file_system == OneFileSystem::Stay && stat.device != *device;
        let leaves = is_other || is_made_up;
        let whole = Scope::Whole {
            slot: *slot,
            device: *device,
            named: on_the_way.clone(),
        };
        match on_the_way {
            Some(named) if leaves => below(Scope::Listed(named), None),
            _ => below(whole, leaves.then_some(stat)),
        }
    }
}
