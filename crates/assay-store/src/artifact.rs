use std::path::{Path, PathBuf};

use crate::{Key, Result, Store, StoreError};

impl Store {
    /// Where the folder of an artifact stands, or will stand once [`Store::commit_dir`] has run.
    pub fn dir_for(&self, key: &Key) -> PathBuf {
        self.root().join("artifacts").join(key.step()).join(key.hash())
    }

    /// Whether the artifact's folder is there, whole.
    pub fn has_dir(&self, key: &Key) -> bool {
        self.dir_for(key).is_dir()
    }

    /// The folder in which the artifact is being made. It outlives an interrupted run, so that a
    /// step may leave checkpoints there and go on from them; a step that does not must clear it.
    pub fn work_dir(&self, key: &Key) -> Result<PathBuf> {
        let dir = self.root().join("tmp").join(key.step()).join(key.hash());
        fs_err::create_dir_all(&dir).map_err(|e| StoreError::from_io(&dir, e))?;
        Ok(dir)
    }

    /// Moves the finished work folder to [`Store::dir_for`] in one step, and returns that path.
    /// If the artifact is already there, it stays and the work is dropped.
    pub fn commit_dir(&self, key: &Key) -> Result<PathBuf> {
        let work = self.work_dir(key)?;
        let dir = self.dir_for(key);
        if self.has_dir(key) {
            fs_err::remove_dir_all(&work).map_err(|e| StoreError::from_io(&work, e))?;
            return Ok(dir);
        }
        // The bytes must reach the disk before the name does, or a power cut leaves empty files.
        sync_files(&work).map_err(|e| StoreError::from_io(&work, e))?;
        let parent = dir.parent().expect("an artifact's folder has a parent");
        fs_err::create_dir_all(parent).map_err(|e| StoreError::from_io(parent, e))?;
        fs_err::rename(&work, &dir).map_err(|e| StoreError::from_io(&dir, e))?;
        Ok(dir)
    }
}

fn sync_files(dir: &Path) -> std::io::Result<()> {
    for entry in fs_err::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_files(&path)?;
        } else {
            // Opened for writing because some systems sync no file that was opened for reading.
            fs_err::OpenOptions::new().write(true).open(&path)?.sync_all()?;
        }
    }
    Ok(())
}
