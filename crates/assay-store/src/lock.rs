use std::fs::TryLockError;
use std::io::Write;
use std::path::Path;

use crate::{Result, StoreError};

/// The right to run in a project, until it is dropped. The operating system takes it back when the
/// process dies, however it dies.
#[derive(Debug)]
pub struct RunLock {
    _file: fs_err::File,
}

/// Takes the lock of the store folder `root`.
pub(crate) fn lock_run(root: &Path) -> Result<RunLock> {
    // The number of the process stands in a file of its own: some systems let nobody read a locked file.
    let pid_path = root.join("run.pid");
    let path = root.join("run.lock");
    let file = fs_err::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| StoreError::from_io(&path, e))?;
    match file.file().try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = fs_err::read_to_string(&pid_path).ok().and_then(|s| s.trim().parse().ok());
            return Err(StoreError::Locked { project: root.to_path_buf(), pid });
        }
        Err(TryLockError::Error(e)) => return Err(StoreError::from_io(&path, e)),
    }
    fs_err::File::create(&pid_path)
        .and_then(|mut f| writeln!(f, "{}", std::process::id()))
        .map_err(|e| StoreError::from_io(&pid_path, e))?;
    Ok(RunLock { _file: file })
}
