//! File systems that the kernel makes up, such as /proc and /sys: there is nothing in them to be brought back.
//!
//! - Known by the number that statfs gives. Of a directory that is a source itself, all is taken.
//! - Not among them: tmpfs and devtmpfs, which hold what programs put there, and autofs, behind which homes may be.

use std::collections::HashMap;
use std::os::fd::AsFd;

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, fstatfs, openat};

/// Numbers of linux/magic.h.
const MADE_UP: [u64; 24] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x1cd1,      // devpts
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0x6165_676c, // pstore
    0xcafe_4a11, // bpf
    0x6573_5543, // fusectl
    0x1980_0202, // mqueue
    0x9584_58f6, // hugetlbfs
    0x4249_4e4d, // binfmt_misc
    0xf97c_ff8c, // selinuxfs
    0x4341_5d53, // smackfs
    0xde5e_81e4, // efivarfs
    0x6e73_6673, // nsfs
    0x6759_6969, // rpc_pipefs
    0x6e66_7364, // nfsd
    0x6265_6570, // configfs
    0x5a3c_69f0, // apparmorfs
    0x0765_5821, // resctrl
    0xabba_1974, // xenfs
];

/// What is known of the file systems of a run, by device; and which of them were left out, and where.
#[derive(Default)]
pub(crate) struct Systems {
    known: Mutex<HashMap<u64, bool>>,
    left_out: Mutex<Vec<Vec<u8>>>,
}

impl Systems {
    /// Whether the directory `name` in `dir`, which is on this device, is on a file system that the kernel makes up.
    pub(crate) fn is_made_up(&self, dir: impl AsFd, name: &[u8], device: u64) -> bool {
        if let Some(known) = self.known.lock().get(&device) {
            return *known;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(dir, name, flags, Mode::empty());
        let kind = opened.and_then(fstatfs).map(|stat| stat.f_type as u64 & 0xffff_ffff);
        // One that cannot be asked is looked at as any other.
        let is_made_up = kind.is_ok_and(|kind| MADE_UP.contains(&kind));
        self.known.lock().insert(device, is_made_up);
        is_made_up
    }

    /// Notes that nothing of the file system at this path is taken.
    pub(crate) fn leave_out(&self, path: &[u8]) {
        self.left_out.lock().push(path.to_vec());
    }

    /// What was left out, sorted.
    pub(crate) fn left_out(self) -> Vec<Vec<u8>> {
        let mut paths = self.left_out.into_inner();
        paths.sort();
        paths
    }
}
