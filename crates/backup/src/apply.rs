//! Giving an entry its owner, extended attributes, mode and times, in the order in which none undoes another.
//!
//! - Owner first (it clears set-id bits and capabilities), then extended attributes, then the mode, times last.
//! - Users and groups that ACLs name are found as owners are, so that no right goes to somebody else.
//! - Only what differs is set. Set-id bits are set only for the owner and group that they were given by.
//! - What cannot be set (not root, a file system without the attribute) is counted, and the rest is set.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use drystone_format::tree::{AclId, Entry, Kind, Time};
use parking_lot::Mutex;
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmod, chownat, fchmod,
    fchown, fgetxattr, flistxattr, fremovexattr, fsetxattr, fstat, futimens, getxattr, listxattr, openat, removexattr,
    setxattr, statat, utimensat,
};
use rustix::io::{Errno, Result};

use crate::local::accounts::Accounts;
use crate::local::acl::{ACCESS, Acl, is_acl, is_copy, name_of};
use crate::local::attributes::has_proc;
use crate::restore::tally::Tally;

/// Longest list of attribute names and longest value that Linux has, bytes.
const XATTR_MAX_BYTES: usize = 64 << 10;

/// How owners are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Owner {
    /// By name where this system knows the name, else by number.
    #[default]
    Names,
    /// By number.
    Numbers,
    /// Not at all: everything belongs to who restores it.
    Own,
}

/// Whether what gives rights to whoever runs or opens a file is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Special {
    /// As it was stored.
    #[default]
    AsStored,
    /// Set-id bits, file capabilities and devices are left out: for a snapshot that somebody else may have made up.
    LeaveOut,
}

/// The extended attribute that holds a file's capabilities.
const CAPABILITY: &[u8] = b"security.capability";
/// Set-user-id and set-group-id.
const SET_ID: u32 = 0o6000;
/// Why something special was not set.
pub(crate) const LEFT_OUT: &str = "left out, as --no-special asks";

/// The word for the time in a report of attributes that were not set.
pub(crate) const MTIME: &str = "modification time";
/// The reason given for a time that is not exact.
const INEXACT: &str = "the file system of the target cannot hold it exactly";
/// The reason given where only /proc would lead to the entry.
const NO_PROC: &str = "cannot be set, since /proc is not mounted; mount it and restore again";

const FOREIGN: &str = "it belongs to another owner";
const RIGHTS: &str = "rights of other users and groups in ACLs";
/// The reason given for rights that are left out.
const ALL_OWN: &str = "left out, as --owner own asks";
/// The word about rights whose holders have no recorded name.
const BY_NUMBER: &str = "given by number to accounts of this system, since the snapshot has no names for them: look whether they are the same";

/// What an entry in the target has before it is given what it should have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Permission, set-id and sticky bits.
    pub(crate) mode: u32,
    /// `None` if it is the time of its creation just now.
    pub(crate) mtime: Option<Time>,
    /// It may have extended attributes.
    pub(crate) xattrs: bool,
}

impl Now {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            mtime: Some(Time {
                seconds: stat.st_mtime,
                nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
            }),
            xattrs: true,
        }
    }
}

/// An entry of the target.
#[derive(Clone, Copy)]
pub(crate) enum Handle<'a> {
    /// Open for reading or writing.
    Open(BorrowedFd<'a>),
    /// A name in a directory; not followed if it is a symbolic link.
    Name(BorrowedFd<'a>, &'a [u8]),
}

/// Sets attributes.
pub(crate) struct Apply {
    accounts: Accounts,
    owner: Owner,
    pub(crate) special: Special,
    /// Effective user and group: what new files belong to.
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bits that new entries do not get.
    pub(crate) umask: u32,
    /// Owners that were refused before, so that each costs one failing call.
    refused: Mutex<HashSet<(Option<u32>, Option<u32>)>>,
}

impl Apply {
    pub(crate) fn new(owner: Owner, special: Special) -> Self {
        let accounts = if owner == Owner::Names {
            Accounts::load()
        } else {
            Accounts::default()
        };
        Self {
            accounts,
            owner,
            special,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            umask: umask(),
            refused: Mutex::default(),
        }
    }

    /// The user and group that an entry shall belong to.
    pub(crate) fn owner(&self, entry: &Entry) -> (u32, u32) {
        match self.owner {
            Owner::Own => (self.uid, self.gid),
            Owner::Numbers => (entry.uid, entry.gid),
            Owner::Names => (
                *self.accounts.users.get(&entry.user).unwrap_or(&entry.uid),
                *self.accounts.groups.get(&entry.group).unwrap_or(&entry.gid),
            ),
        }
    }

    /// Makes the attributes of `handle`, which are `now`, those of `entry`.
    pub(crate) fn set(
        &self,
        handle: Handle<'_>,
        now: Now,
        entry: &Entry,
        report: (&Tally, &dyn Fn() -> Vec<u8>),
    ) -> Result<()> {
        let path_fd;
        let is_link = matches!(entry.kind, Kind::Symlink(_));
        let handle = match handle {
            Handle::Name(dir, name) if !is_link || now.xattrs || !entry.xattrs.is_empty() => {
                path_fd = openat(
                    dir,
                    name,
                    OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    Mode::empty(),
                )?;
                Place::Path(path_fd.as_fd(), format!("/proc/self/fd/{}", path_fd.as_raw_fd()))
            }
            Handle::Name(dir, name) => Place::Name(dir, name),
            Handle::Open(fd) => Place::Open(fd),
        };
        let denied = self.set_owner(&handle, now, entry, report);
        let xattrs_set = self.set_xattrs(&handle, now, entry, report);
        let mode = self.mode(entry) & !denied & !self.unguarded(&handle, entry);
        if self.mode(entry) != entry.mode {
            report.0.not_set("set-id bit", LEFT_OUT, report.1);
        } else if denied & entry.mode != 0 {
            report.0.not_set("set-id bit", FOREIGN, report.1);
        }
        let changed = now.mode != mode || (now.uid, now.gid) != self.owner(entry) || xattrs_set;
        if !is_link && changed {
            handle
                .chmod(Mode::from_raw_mode(mode))
                .unwrap_or_else(|errno| handle.report("mode", errno, report));
        }
        if now.mtime != Some(entry.mtime) {
            match handle.set_mtime(entry.mtime) {
                // A file system gives what it cannot hold the nearest time that it can.
                Ok(()) if handle.mtime().is_ok_and(|time| time != Some(entry.mtime)) => {
                    report.0.not_set(MTIME, INEXACT, report.1);
                }
                Ok(()) => {}
                Err(errno) => report.0.not_set(MTIME, &why(errno), report.1),
            }
        }
        Ok(())
    }

    /// Whether `fd`, whose attributes are `now`, has those of `entry`.
    pub(crate) fn is_set(&self, fd: BorrowedFd<'_>, now: Now, entry: &Entry) -> bool {
        let mut buffer = vec![0; XATTR_MAX_BYTES];
        let place = Place::Open(fd);
        let (uid, gid) = self.owner(entry);
        let mut ours = place.names(&mut buffer);
        ours.retain(|name| is_ours(name));
        (now.uid, now.gid, now.mode, now.mtime) == (uid, gid, self.mode(entry), Some(entry.mtime))
            && ours
                .iter()
                .all(|name| self.xattrs(entry).any(|(wanted, _)| wanted == name))
            && self
                .xattrs(entry)
                .all(|(name, value)| place.has_xattr(name, &value, &mut buffer))
    }

    /// The mode that an entry shall have.
    fn mode(&self, entry: &Entry) -> u32 {
        match self.special {
            Special::AsStored => entry.mode,
            Special::LeaveOut => entry.mode & !SET_ID,
        }
    }

    /// The extended attributes that an entry shall have.
    fn xattrs<'e>(&'e self, entry: &'e Entry) -> impl Iterator<Item = (&'e [u8], Cow<'e, [u8]>)> {
        let without = self.no_capability(entry).is_some();
        let all = entry
            .xattrs
            .iter()
            .map(|(name, value)| (name.as_slice(), value.as_slice()));
        all.filter(move |(name, _)| !(without && *name == CAPABILITY || is_copy(name)))
            .map(|(name, value)| (name, self.value(entry, name, value)))
    }

    /// The value of an attribute here: ACLs with the numbers that their users and groups have on this system.
    fn value<'e>(&self, entry: &Entry, name: &[u8], value: &'e [u8]) -> Cow<'e, [u8]> {
        match Acl::decode(value).filter(|_| is_acl(name) && self.owner != Owner::Numbers) {
            Some(acl) => Cow::Owned(acl.map(|id| self.account(entry, id)).encode()),
            None => Cow::Borrowed(value),
        }
    }

    /// The number here of somebody whom an ACL of an entry names; `None` to leave the rule out.
    fn account(&self, entry: &Entry, id: AclId) -> Option<u32> {
        let (AclId::User(number) | AclId::Group(number)) = id;
        match self.owner {
            Owner::Own => None,
            Owner::Numbers => Some(number),
            Owner::Names => {
                let named = name_of(entry, id).and_then(|name| self.accounts.number(id, name));
                Some(named.unwrap_or(number))
            }
        }
    }

    /// Returns the group bits of an entry's mode that are those of its ACL's mask, if the ACL could not be set: without it they
    /// would be the owning group's.
    fn unguarded(&self, handle: &Place<'_>, entry: &Entry) -> u32 {
        let Some((name, value)) = self.xattrs(entry).find(|(name, _)| *name == ACCESS) else {
            return 0;
        };
        let mut buffer = vec![0; XATTR_MAX_BYTES];
        match Acl::decode(&value) {
            Some(acl) if !handle.has_xattr(name, &value, &mut buffer) => 0o070 & !(acl.group_permissions() << 3),
            _ => 0,
        }
    }

    /// Says which rights in an entry's ACLs are not given, or may be given to somebody else.
    fn report_acls(&self, entry: &Entry, report: (&Tally, &dyn Fn() -> Vec<u8>)) {
        let acls = entry.xattrs.iter().filter(|(name, _)| is_acl(name));
        for acl in acls.filter_map(|(_, value)| Acl::decode(value)) {
            let is_unsure = |id: AclId| name_of(entry, id).is_none() && self.accounts.has(id);
            match self.owner {
                Owner::Own if acl.named().next().is_some() => report.0.not_set(RIGHTS, ALL_OWN, report.1),
                Owner::Names if acl.named().any(is_unsure) => report.0.not_set(RIGHTS, BY_NUMBER, report.1),
                _ => {}
            }
        }
    }

    /// Why an entry's capabilities are not restored: nobody gets a file with rights that were given to another's.
    fn no_capability(&self, entry: &Entry) -> Option<&'static str> {
        let is_foreign = self.owner == Owner::Own && entry.uid != self.uid;
        match self.special {
            Special::LeaveOut => Some(LEFT_OUT),
            Special::AsStored => is_foreign.then_some(FOREIGN),
        }
    }

    /// Set-id bits that must not be set because the owner or group could not be.
    fn set_owner(&self, handle: &Place<'_>, now: Now, entry: &Entry, report: (&Tally, &dyn Fn() -> Vec<u8>)) -> u32 {
        let (uid, gid) = self.owner(entry);
        let wanted_uid = (uid != now.uid).then_some(uid);
        let wanted_gid = (gid != now.gid).then_some(gid);
        let denied = |uid: bool, gid: bool| if uid { 0o4000 } else { 0 } | if gid { 0o2000 } else { 0 };
        if (wanted_uid, wanted_gid) == (None, None) || self.try_owner(handle, (wanted_uid, wanted_gid)).is_ok() {
            return denied(
                self.owner == Owner::Own && entry.uid != uid,
                self.owner == Owner::Own && entry.gid != gid,
            );
        }
        let mut failed = (false, false);
        for (what, wanted, failed) in [
            ("owner", (wanted_uid, None), &mut failed.0),
            ("group", (None, wanted_gid), &mut failed.1),
        ] {
            if wanted != (None, None)
                && let Err(errno) = self.try_owner(handle, wanted)
            {
                report.0.not_set(what, &why(errno), report.1);
                *failed = true;
            }
        }
        denied(failed.0, failed.1)
    }

    fn try_owner(&self, handle: &Place<'_>, wanted: (Option<u32>, Option<u32>)) -> Result<()> {
        if self.refused.lock().contains(&wanted) {
            return Err(Errno::PERM);
        }
        let done = handle.chown(wanted.0.map(Uid::from_raw), wanted.1.map(Gid::from_raw));
        if done == Err(Errno::PERM) {
            self.refused.lock().insert(wanted);
        }
        done
    }

    /// Sets what differs and removes what should not be there; whether anything was changed.
    fn set_xattrs(&self, handle: &Place<'_>, now: Now, entry: &Entry, report: (&Tally, &dyn Fn() -> Vec<u8>)) -> bool {
        if let Some(why) = self.no_capability(entry)
            && entry.xattrs.iter().any(|(name, _)| name == CAPABILITY)
        {
            report.0.not_set("file capability", why, report.1);
        }
        if !now.xattrs && entry.xattrs.is_empty() {
            return false;
        }
        self.report_acls(entry, report);
        let mut buffer = vec![0; XATTR_MAX_BYTES];
        let present = if now.xattrs {
            handle.names(&mut buffer)
        } else {
            Vec::new()
        };
        let mut changed = false;
        for name in present.iter().filter(|name| is_ours(name)) {
            if self.xattrs(entry).all(|(wanted, _)| wanted != name) {
                changed |= handle.remove_xattr(name).is_ok();
            }
        }
        for (name, value) in self.xattrs(entry) {
            if present.iter().any(|there| there == name) && handle.has_xattr(name, &value, &mut buffer) {
                continue;
            }
            match handle.set_xattr(name, &value) {
                Ok(()) => changed = true,
                Err(errno) => {
                    let mut what = "extended attribute ".to_owned();
                    let _ = write!(what, "{}", name.escape_ascii());
                    handle.report(&what, errno, report);
                }
            }
        }
        changed
    }
}

/// Whether an attribute that was not stored is removed; labels that the system gives by itself stay.
fn is_ours(name: &[u8]) -> bool {
    (!name.starts_with(b"security.") || name == CAPABILITY) && !is_copy(name)
}

fn why(errno: Errno) -> String {
    match errno {
        Errno::PERM | Errno::ACCESS if rustix::process::geteuid().is_root() => {
            "the target does not permit it, not even to root".to_owned()
        }
        Errno::PERM | Errno::ACCESS => "not permitted to this user; run as root to set it".to_owned(),
        Errno::OPNOTSUPP => "the file system of the target does not support it".to_owned(),
        errno => std::io::Error::from(errno).to_string(),
    }
}

/// The umask of this process, read without changing it as umask(2) would for all threads.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok())
        .unwrap_or(0o7777)
}

/// How an entry is reached; [`Handle`] after what it is has been looked at.
pub(crate) enum Place<'a> {
    Open(BorrowedFd<'a>),
    /// An `O_PATH` descriptor and its name in /proc, which leads to the entry itself, symbolic link or not.
    Path(BorrowedFd<'a>, String),
    /// A symbolic link without extended attributes.
    Name(BorrowedFd<'a>, &'a [u8]),
}

impl Place<'_> {
    fn chown(&self, uid: Option<Uid>, gid: Option<Gid>) -> Result<()> {
        match self {
            Self::Open(fd) => fchown(fd, uid, gid),
            Self::Path(fd, _) => chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH),
            Self::Name(dir, name) => chownat(dir, *name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    fn chmod(&self, mode: Mode) -> Result<()> {
        match self {
            Self::Open(fd) => fchmod(fd, mode),
            Self::Path(_, path) => chmod(path, mode),
            Self::Name(..) => Ok(()),
        }
    }

    /// Its time as the file system has it.
    fn mtime(&self) -> Result<Option<Time>> {
        let stat = match self {
            Self::Open(fd) | Self::Path(fd, _) => fstat(fd),
            Self::Name(dir, name) => statat(dir, *name, AtFlags::SYMLINK_NOFOLLOW),
        };
        Ok(Now::of(&stat?).mtime)
    }

    /// Says what could not be set; a problem of the entry if only the way to it is missing.
    fn report(&self, what: &str, errno: Errno, (tally, path): (&Tally, &dyn Fn() -> Vec<u8>)) {
        match self {
            Self::Path(..) if errno == Errno::NOENT && !has_proc() => {
                tally.problem(path(), &format!("its {what} {NO_PROC}"))
            }
            _ => tally.not_set(what, &why(errno), path),
        }
    }

    pub(crate) fn set_mtime(&self, time: Time) -> Result<()> {
        let omit = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        };
        let times = Timestamps {
            last_access: omit,
            last_modification: Timespec {
                tv_sec: time.seconds,
                tv_nsec: time.nanos.into(),
            },
        };
        match self {
            Self::Open(fd) => futimens(fd, &times),
            Self::Path(fd, _) => utimensat(fd, "", &times, AtFlags::EMPTY_PATH),
            Self::Name(dir, name) => utimensat(dir, *name, &times, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    /// Names of the extended attributes; none where there is no such thing.
    fn names(&self, buffer: &mut [u8]) -> Vec<Vec<u8>> {
        let length = match self {
            Self::Open(fd) => flistxattr(fd, &mut *buffer),
            Self::Path(_, path) => listxattr(path, &mut *buffer),
            Self::Name(..) => Ok(0),
        };
        let list = buffer.get(..length.unwrap_or(0)).unwrap_or_default();
        let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        names.map(<[u8]>::to_vec).collect()
    }

    fn has_xattr(&self, name: &[u8], value: &[u8], buffer: &mut [u8]) -> bool {
        let length = match self {
            Self::Open(fd) => fgetxattr(fd, name, &mut *buffer),
            Self::Path(_, path) => getxattr(path, name, &mut *buffer),
            Self::Name(..) => Err(Errno::NODATA),
        };
        length.is_ok_and(|length| buffer.get(..length) == Some(value))
    }

    fn set_xattr(&self, name: &[u8], value: &[u8]) -> Result<()> {
        match self {
            Self::Open(fd) => fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Path(_, path) => setxattr(path, name, value, XattrFlags::empty()),
            Self::Name(..) => Err(Errno::OPNOTSUPP),
        }
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        match self {
            Self::Open(fd) => fremovexattr(fd, name),
            Self::Path(_, path) => removexattr(path, name),
            Self::Name(..) => Ok(()),
        }
    }
}
