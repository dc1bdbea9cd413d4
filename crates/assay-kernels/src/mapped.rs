//! Files as memory.

use std::fs::File;
use std::io;
use std::ops::Deref;

/// The bytes of a file, read when they are touched.
///
/// Here because mapping is `unsafe`: the bytes change if somebody writes to the file meanwhile. Map only files
/// that are made aside, renamed into place and never written again.
pub struct Mapped(memmap2::Mmap);

impl Mapped {
    /// Maps the whole file, which must not be written to any more.
    ///
    /// # Errors
    /// When the system cannot map it.
    pub fn new(file: &File) -> io::Result<Self> {
        // SAFETY: the caller's promise. All bytes are valid values of what they are read as.
        unsafe { memmap2::Mmap::map(file) }.map(Mapped)
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
