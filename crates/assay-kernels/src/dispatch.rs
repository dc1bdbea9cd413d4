//! Which instruction set the kernels use, decided once per process.

use std::cell::Cell;
use std::sync::OnceLock;

/// A set of kernels. Of those of one architecture, a later one has all that an earlier one has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// Plain Rust.
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ, VL; VNNI for quantised weights where there is.
    Avx512,
    /// The same with `vdpbf16ps` for bf16 weights.
    Avx512Bf16,
    /// The same with AMX tiles for bf16 weights.
    Amx,
    /// NEON, as every 64-bit ARM has it.
    Neon,
    /// The same with `sdot` for quantised weights.
    NeonDot,
    /// The same with `bfdot` for bf16 weights.
    NeonBf16,
}

impl Path {
    /// Every path this machine can run, slowest first.
    pub fn available() -> &'static [Path] {
        static AVAILABLE: OnceLock<Vec<Path>> = OnceLock::new();
        AVAILABLE.get_or_init(detect)
    }

    /// The path for calls from this thread: the fastest, or the one [`with_path`] forces.
    pub(crate) fn current() -> Path {
        FORCED.get().unwrap_or_else(|| Self::available()[Self::available().len() - 1])
    }
}

thread_local! {
    static FORCED: Cell<Option<Path>> = const { Cell::new(None) };
}

/// Name of the instruction set in use: `amx-bf16`, `avx512-bf16`, `avx512`, `avx2`, `neon-bf16`,
/// `neon-dotprod`, `neon` or `portable`.
pub fn dispatch() -> &'static str {
    match Path::current() {
        Path::Portable => "portable",
        Path::Avx2 => "avx2",
        Path::Avx512 => "avx512",
        Path::Avx512Bf16 => "avx512-bf16",
        Path::Amx => "amx-bf16",
        Path::Neon => "neon",
        Path::NeonDot => "neon-dotprod",
        Path::NeonBf16 => "neon-bf16",
    }
}

/// Runs `f` with every kernel that this thread calls on `path`. For tests and benchmarks.
///
/// # Panics
/// When this machine cannot run `path`.
pub fn with_path<T>(path: Path, f: impl FnOnce() -> T) -> T {
    struct Restore(Option<Path>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORCED.set(self.0);
        }
    }
    assert!(Path::available().contains(&path), "{path:?} does not run on this machine");
    let _restore = Restore(FORCED.replace(Some(path)));
    f()
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Vec<Path> {
    let mut paths = vec![Path::Portable];
    if !(is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c"))
    {
        return paths;
    }
    paths.push(Path::Avx2);
    if !(is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl"))
    {
        return paths;
    }
    paths.push(Path::Avx512);
    if !is_x86_feature_detected!("avx512bf16") {
        return paths;
    }
    paths.push(Path::Avx512Bf16);
    if crate::amx::enable() {
        paths.push(Path::Amx);
    }
    paths
}

#[cfg(target_arch = "aarch64")]
fn detect() -> Vec<Path> {
    use std::arch::is_aarch64_feature_detected;
    let mut paths = vec![Path::Portable, Path::Neon];
    if is_aarch64_feature_detected!("dotprod") {
        paths.push(Path::NeonDot);
        if is_aarch64_feature_detected!("bf16") {
            paths.push(Path::NeonBf16);
        }
    }
    paths
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detect() -> Vec<Path> {
    vec![Path::Portable]
}

/// Defines `unsafe fn name(path, args…)` from one body that is generic over a
/// [`Vector`](crate::simd::Vector) type, compiled once per instruction set.
///
/// Each generated function is unsafe: `path` must be available, and pointers must be valid as the
/// body's comment says.
macro_rules! kernel {
    (
        $(#[$meta:meta])*
        fn $name:ident<$V:ident>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block
    ) => {
        $(#[$meta])*
        pub(crate) unsafe fn $name(
            path: $crate::dispatch::Path,
            $($arg: $ty),*
        ) $(-> $ret)? {
            #[inline(always)]
            unsafe fn body<$V: $crate::simd::Vector>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            unsafe fn avx512($($arg: $ty),*) $(-> $ret)? {
                unsafe { body::<$crate::simd::Avx512>($($arg),*) }
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2($($arg: $ty),*) $(-> $ret)? {
                unsafe { body::<$crate::simd::Avx2>($($arg),*) }
            }

            unsafe {
                match path {
                    #[cfg(target_arch = "x86_64")]
                    $crate::dispatch::Path::Amx
                    | $crate::dispatch::Path::Avx512Bf16
                    | $crate::dispatch::Path::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::dispatch::Path::Avx2 => avx2($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    $crate::dispatch::Path::Neon
                    | $crate::dispatch::Path::NeonDot
                    | $crate::dispatch::Path::NeonBf16 => body::<$crate::simd::Neon>($($arg),*),
                    _ => body::<$crate::simd::Portable>($($arg),*),
                }
            }
        }
    };
}
pub(crate) use kernel;
