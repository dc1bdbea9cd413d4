//! Which instruction set the kernels use, decided once per process.
//!
//! The fastest that the processor has, or the one that the variable `ASSAY_KERNELS` names. No other
//! code of the libraries reads the environment. Here it must be: the choice holds for every kernel of
//! the process, tests and benchmarks included, none of which has an edge that could pass it on.

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
    /// Every path this machine can run, slowest first, up to the one that `ASSAY_KERNELS` names.
    pub fn available() -> &'static [Path] {
        &Choice::of_process().available
    }

    /// The path for calls from this thread: the last one available, or the one [`with_path`] forces.
    pub(crate) fn current() -> Path {
        FORCED.get().unwrap_or_else(|| Self::available()[Self::available().len() - 1])
    }

    fn name(self) -> &'static str {
        match self {
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
}

thread_local! {
    static FORCED: Cell<Option<Path>> = const { Cell::new(None) };
}

/// Name of the instruction set in use: `amx-bf16`, `avx512-bf16`, `avx512`, `avx2`, `neon-bf16`,
/// `neon-dotprod`, `neon` or `portable`.
pub fn dispatch() -> &'static str {
    Path::current().name()
}

/// Names of all instruction sets that this machine can run, slowest first, whatever `ASSAY_KERNELS`
/// says.
pub fn supported() -> &'static [&'static str] {
    &Choice::of_process().supported
}

/// Whether `ASSAY_KERNELS` has named the instruction set in use.
///
/// # Errors
/// When it names none that this machine can run. Kernels, which have no way to fail, then use the
/// fastest: whoever owns the process asks here first.
pub fn forced() -> Result<bool, UnknownKernels> {
    Choice::of_process().forced.clone()
}

/// `ASSAY_KERNELS` names no instruction set of this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ASSAY_KERNELS is `{name}`, but this machine can run {}", supported.join(", "))]
pub struct UnknownKernels {
    /// What the variable says.
    pub name: String,
    /// What it could say, slowest first.
    pub supported: Vec<&'static str>,
}

struct Choice {
    available: Vec<Path>,
    supported: Vec<&'static str>,
    forced: Result<bool, UnknownKernels>,
}

impl Choice {
    fn of_process() -> &'static Choice {
        static CHOICE: OnceLock<Choice> = OnceLock::new();
        CHOICE.get_or_init(|| {
            let name = std::env::var_os("ASSAY_KERNELS").unwrap_or_default();
            Choice::new(detect(), &name.to_string_lossy())
        })
    }

    /// An empty name is none.
    fn new(mut available: Vec<Path>, name: &str) -> Self {
        let supported: Vec<_> = available.iter().map(|p| p.name()).collect();
        let forced = match supported.iter().position(|s| *s == name) {
            _ if name.is_empty() => Ok(false),
            Some(last) => {
                available.truncate(last + 1);
                Ok(true)
            }
            None => Err(UnknownKernels { name: name.to_owned(), supported: supported.clone() }),
        };
        Choice { available, supported, forced }
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
/// [`Vector`](crate::simd::Vector) type, compiled once per instruction set; further parameters are types of
/// stored values.
///
/// Each generated function is unsafe: `path` must be available, and pointers must be valid as the
/// body's comment says.
macro_rules! kernel {
    (
        $(#[$meta:meta])*
        fn $name:ident<$V:ident $(, $S:ident: $bound:path)*>(
            $($arg:ident: $ty:ty),* $(,)?
        ) $(-> $ret:ty)? $body:block
    ) => {
        $(#[$meta])*
        pub(crate) unsafe fn $name<$($S: $bound),*>(
            path: $crate::dispatch::Path,
            $($arg: $ty),*
        ) $(-> $ret)? {
            #[inline(always)]
            unsafe fn body<$V: $crate::simd::Vector, $($S: $bound),*>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            unsafe fn avx512<$($S: $bound),*>($($arg: $ty),*) $(-> $ret)? {
                unsafe { body::<$crate::simd::Avx512, $($S),*>($($arg),*) }
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2<$($S: $bound),*>($($arg: $ty),*) $(-> $ret)? {
                unsafe { body::<$crate::simd::Avx2, $($S),*>($($arg),*) }
            }

            unsafe {
                match path {
                    #[cfg(target_arch = "x86_64")]
                    $crate::dispatch::Path::Amx
                    | $crate::dispatch::Path::Avx512Bf16
                    | $crate::dispatch::Path::Avx512 => avx512::<$($S),*>($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::dispatch::Path::Avx2 => avx2::<$($S),*>($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    $crate::dispatch::Path::Neon
                    | $crate::dispatch::Path::NeonDot
                    | $crate::dispatch::Path::NeonBf16 => {
                        body::<$crate::simd::Neon, $($S),*>($($arg),*)
                    }
                    _ => body::<$crate::simd::Portable, $($S),*>($($arg),*),
                }
            }
        }
    };
}
pub(crate) use kernel;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_the_list_of_paths_and_an_unknown_one_is_reported() {
        let detected = [Path::Portable, Path::Avx2, Path::Avx512];
        let check = |name: &str, available: usize, forced: Option<bool>| {
            let choice = Choice::new(detected.to_vec(), name);
            assert_eq!(choice.available, &detected[..available], "{name}");
            assert_eq!(choice.supported, ["portable", "avx2", "avx512"], "{name}");
            assert_eq!(choice.forced.clone().ok(), forced, "{name}");
            choice
        };
        check("", 3, Some(false));
        check("portable", 1, Some(true));
        check("avx2", 2, Some(true));
        check("avx512", 3, Some(true));
        check("amx-bf16", 3, None);
        let choice = check("AVX2", 3, None);
        assert_eq!(
            choice.forced.unwrap_err().to_string(),
            "ASSAY_KERNELS is `AVX2`, but this machine can run portable, avx2, avx512"
        );
    }
}
