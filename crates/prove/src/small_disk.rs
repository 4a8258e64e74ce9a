//! A small disk that can be full: a tmpfs, which only root may mount.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Result, bail};
use nix::unistd::geteuid;

/// A mounted tmpfs. It is unmounted when this is dropped.
pub(crate) struct SmallDisk {
    pub folder: PathBuf,
}

impl SmallDisk {
    /// Mounts a disk of this size at a new folder.
    ///
    /// # Errors
    /// When this process may not mount.
    pub(crate) fn mount(folder: PathBuf, mebibytes: u32) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        let options = format!("size={mebibytes}m,mode=755");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "prove"]).arg(&folder);
        if !run(&mut mount) {
            let _ = fs::remove_dir(&folder);
            bail!("cannot mount a tmpfs at {}", folder.display());
        }
        Ok(Self { folder })
    }

    /// Gives the disk to another user.
    ///
    /// # Errors
    /// When this process is not root.
    pub(crate) fn give_to(&self, user: u32, group: u32) -> Result<()> {
        Ok(chown(&self.folder, Some(user), Some(group))?)
    }

    /// Fills the disk to its last byte.
    ///
    /// # Errors
    /// When it cannot be written for another reason.
    pub(crate) fn fill(&self) -> Result<()> {
        let mut file = fs::File::create(self.filler())?;
        // Ever smaller pieces, so that no byte is free.
        for piece in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0; piece]).is_ok() {}
        }
        Ok(())
    }

    /// Frees what [`SmallDisk::fill`] has taken.
    ///
    /// # Errors
    /// When the disk is gone.
    pub(crate) fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process may still have an open file there.
        run(Command::new("umount").arg("--lazy").arg(&self.folder));
        let _ = fs::remove_dir(&self.folder);
    }
}

fn run(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Whether this process may mount a disk. Root in a container often may not.
pub(crate) fn is_possible() -> bool {
    let folder = std::env::temp_dir().join(format!("prove-mount-{}", std::process::id()));
    geteuid().is_root() && SmallDisk::mount(folder, 1).is_ok()
}

/// The user and the group that own a folder.
///
/// # Errors
/// When the folder cannot be read.
pub(crate) fn owner(folder: &Path) -> Result<(u32, u32)> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = fs::metadata(folder)?;
    Ok((metadata.uid(), metadata.gid()))
}
