//! What this machine has: cores, memory, disk, instruction set.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use sysinfo::{CpuRefreshKind, Disks, MemoryRefreshKind, RefreshKind, System};

/// Facts about the machine; sizes in bytes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) os: String,
    pub(crate) cpu: String,
    /// Threads that compute: the cores this process may use, or `RAYON_NUM_THREADS`.
    pub(crate) threads: usize,
    /// Instruction set that the kernels use.
    pub(crate) kernel_path: &'static str,
    /// The fastest that they could use.
    pub(crate) fastest_kernel_path: &'static str,
    pub(crate) memory_total: u64,
    pub(crate) memory_available: u64,
}

impl Machine {
    pub(crate) fn look() -> Result<Self> {
        let what = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(what).context("asking the system what it has")?;
        let cpu = system.cpus().first().map_or("unknown", |c| c.brand()).trim().to_owned();
        // A container may be allowed less than the machine has.
        let limits = system.cgroup_limits();
        let total = limits.as_ref().map_or(system.total_memory(), |l| l.total_memory);
        let free = limits.as_ref().map_or(u64::MAX, |l| l.free_memory);
        Ok(Machine {
            os: System::long_os_version().unwrap_or_else(|_| std::env::consts::OS.to_owned()),
            cpu,
            threads: std::thread::available_parallelism().map_or(1, usize::from).min(threads()),
            kernel_path: assay_kernels::dispatch(),
            fastest_kernel_path: assay_kernels::supported().last().unwrap_or(&"portable"),
            memory_total: total.min(system.total_memory()),
            memory_available: free.min(system.available_memory()),
        })
    }
}

/// `RAYON_NUM_THREADS`, where it says a number.
fn threads() -> usize {
    let wanted = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok());
    wanted.filter(|n| *n > 0).unwrap_or(usize::MAX)
}

/// Free bytes on the disk that holds `path`, if the system says.
pub(crate) fn free_disk(path: &Path) -> Option<u64> {
    let path = path.ancestors().find_map(|p| fs_err::canonicalize(p).ok())?;
    let disks = Disks::new_with_refreshed_list().ok()?;
    let holding = disks.iter().filter(|d| path.starts_with(d.mount_point()));
    let nearest = holding.max_by_key(|d| d.mount_point().as_os_str().len())?;
    Some(nearest.available_space())
}

/// The most memory that this process has held, where the system tells (Linux).
pub(crate) fn peak_memory() -> Option<u64> {
    own_memory("VmHWM:")
}

/// Makes [`peak_memory`] count anew from what is held now, where the system lets it (Linux).
pub(crate) fn restart_peak() {
    let _ = fs_err::write("/proc/self/clear_refs", "5");
}

/// Memory that this process holds, where the system tells (Linux).
pub(crate) fn held_memory() -> Option<u64> {
    own_memory("VmRSS:")
}

fn own_memory(what: &str) -> Option<u64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix(what))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// `3.2 GB`, as people say it.
pub(crate) fn size(bytes: u64) -> String {
    match bytes as f64 {
        b if b >= 1e9 => format!("{:.1} GB", b / 1e9),
        b => format!("{:.0} MB", b / 1e6),
    }
}
