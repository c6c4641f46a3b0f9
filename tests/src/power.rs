//! Power cuts, in truth: an ext4 file system on a loop device is shut down at once, without writing out data or journal, and mounted again.
//!
//! Needs root, ext4 and free loop devices.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Size of an image; the file is sparse.
const IMAGE_BYTES: u64 = 512 << 20;
/// ext4 commits its journal by itself every five seconds. Not here: what nobody synced shall be lost.
const OPTIONS: &str = "loop,commit=600,noauto_da_alloc";

/// The one system call that has no safe form.
mod shutdown {
    #![allow(unsafe_code)] // An ioctl that the kernel defines to read one u32; nothing else is touched.
    use std::fs::File;

    /// `EXT4_IOC_SHUTDOWN`: `_IOR('X', 125, u32)`.
    const SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587D;
    /// Neither data nor journal are written out.
    const NO_LOG_FLUSH: u32 = 2;

    /// Shuts down the file system that this file is on.
    pub fn now(on: &File) -> rustix::io::Result<()> {
        // SAFETY: the argument is a valid pointer to a u32 for the length of the call, as SHUTDOWN asks.
        unsafe { rustix::ioctl::ioctl(on, rustix::ioctl::Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH)) }
    }
}

/// A file system in a file, unmounted when dropped.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// Makes an empty one in the file `image`, which must not exist, and mounts it on the directory `mount`.
    ///
    /// # Errors
    /// Without the rights, ext4 or loop devices: the reason.
    pub fn new(image: &Path, mount: &Path) -> Result<Self, String> {
        Self::made(image, mount, IMAGE_BYTES, &["-J", "size=16"])
    }

    /// A small one, without room that only root may take, and with so many inodes.
    ///
    /// # Errors
    /// As of [`Disk::new`].
    pub fn small(image: &Path, mount: &Path, bytes: u64, inodes: u32) -> Result<Self, String> {
        Self::made(image, mount, bytes, &["-b", "4096", "-J", "size=4", "-m", "0", "-N", &inodes.to_string()])
    }

    fn made(image: &Path, mount: &Path, bytes: u64, how: &[&str]) -> Result<Self, String> {
        let disk = Self { image: image.into(), mount: mount.into() };
        File::create_new(image).and_then(|f| f.set_len(bytes)).map_err(|e| format!("{}: {e}", image.display()))?;
        run("mkfs.ext4", &[&["-q", "-F"], how, &[&image.to_string_lossy()]].concat())?;
        disk.try_mount()?;
        // Programs that want an empty directory find one.
        std::fs::remove_dir(mount.join("lost+found")).map_err(|e| e.to_string())?;
        Ok(disk)
    }

    /// [`Disk::new`], or nothing and a loud word where it cannot be done on this machine.
    pub fn new_or_skip(image: &Path, mount: &Path) -> Option<Self> {
        let made = Self::new(image, mount);
        if let Err(why) = &made {
            eprintln!("\n*** SKIPPED: no power cut was tried, as this needs root, ext4 and loop devices: {why}\n");
        }
        made.ok()
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    fn try_mount(&self) -> Result<(), String> {
        run("mount", &["-o", OPTIONS, &self.image.to_string_lossy(), &self.mount.to_string_lossy()])
    }

    /// Cuts the power: from now on every call on it fails, and what was not synced is gone.
    ///
    /// A sync that is under way meanwhile may return without an error though nothing was made durable (ext4 on Linux 6.18: 7 times in
    /// 400 cuts of a file that was extended and synced in a loop). So what was answered while it lasts proves nothing: kill whoever
    /// may act on it first, or take such answers for unknown.
    #[track_caller]
    pub fn cut(&self) {
        shutdown::now(&File::open(&self.mount).unwrap()).unwrap();
    }

    /// Mounts it again after a cut. Nobody may have files open on it; whoever had may need a moment to let go.
    #[track_caller]
    pub fn restore(&self) {
        self.unmount();
        self.mount();
    }

    /// Mounts it.
    #[track_caller]
    pub fn mount(&self) {
        self.try_mount().unwrap();
    }

    /// Unmounts it.
    #[track_caller]
    pub fn unmount(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        while let Err(e) = run("umount", &[&self.mount.to_string_lossy()]) {
            assert!(Instant::now() < until, "{e}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Moves what a directory holds to a new disk of its own, which is mounted in its place: what is synced elsewhere does
    /// not make it durable as well.
    ///
    /// # Errors
    /// As of [`Disk::new`].
    pub fn under(dir: &Path, image: &Path) -> Result<Self, String> {
        let aside = image.with_extension("was");
        std::fs::create_dir(&aside).map_err(|e| e.to_string())?;
        run("cp", &["-a", &format!("{}/.", dir.display()), &aside.to_string_lossy()])?;
        let disk = Self::new(image, dir)?;
        run("cp", &["-a", &format!("{}/.", aside.display()), &dir.to_string_lossy()])?;
        run("sync", &["-f", &dir.to_string_lossy()])?;
        std::fs::remove_dir_all(&aside).map_err(|e| e.to_string())?;
        Ok(disk)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whether it still is mounted or not; lazily, as what failed may still have files open on it.
        let _not_mounted = run("umount", &["-l", &self.mount.to_string_lossy()]);
        // Room on the real disk is wanted back even if its directory stays.
        let _gone = std::fs::remove_file(&self.image);
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr))) }
}
