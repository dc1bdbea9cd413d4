//! Products on AMX tiles, through inline assembly: the intrinsics are not stable.
//!
//! A tile holds 16 rows of 64 bytes. `tdpbf16ps` adds to a 16 × 16 tile of `f32` the product of a
//! 16 × 32 tile of bf16 with a 32 × 16 one whose rows come in pairs.

use std::arch::asm;

/// Bytes of a tile.
const TILE: usize = 1024;
/// Rows of a tile, and columns of an accumulator.
pub(crate) const SIDE: usize = 16;

/// Asks Linux for the tile registers of this process; false where they are not to be had.
pub(crate) fn enable() -> bool {
    use std::arch::x86_64::__cpuid_count;

    if !cfg!(target_os = "linux") {
        return false;
    }
    // Leaf 7: EDX bits 22 (AMX-BF16) and 24 (AMX-TILE).
    let wanted = (1 << 22) | (1 << 24);
    if __cpuid_count(0, 0).eax < 7 || __cpuid_count(7, 0).edx & wanted != wanted {
        return false;
    }
    const ARCH_PRCTL: isize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILEDATA: usize = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: the system call reads and writes no memory of ours.
    unsafe {
        asm!("syscall", inlateout("rax") result, in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA, out("rcx") _, out("r11") _, options(nostack));
    }
    result == 0
}

/// Operand of `ldtilecfg`: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIG: Config = Config {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// `C [m, n] (+)= A · B` on one thread.
pub(crate) struct Product {
    pub(crate) m: usize,
    pub(crate) n: usize,
    /// Tiles along the inner dimension.
    pub(crate) steps: usize,
    /// Tiles of A: rows of tiles `a_row` tiles apart, readable up to a whole tile past `m`.
    pub(crate) a: *const u8,
    pub(crate) a_row: usize,
    /// Tiles of B: columns of tiles `b_column` tiles apart, readable up to a whole tile past `n`.
    pub(crate) b: *const u8,
    pub(crate) b_column: usize,
    pub(crate) c: *mut f32,
    /// Elements between rows of C.
    pub(crate) c_row: usize,
    /// Add to C instead of overwriting it.
    pub(crate) add: bool,
}

/// Runs products in turn. Each element of C sums over the inner dimension in order, whatever `m`
/// and `n`.
///
/// # Safety
/// [`enable`] returned true, and the pointers are valid for the shapes.
pub(crate) unsafe fn products(products: &[Product]) {
    // SAFETY: the configuration is valid and lives in this thread until `tilerelease`.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) &CONFIG, options(nostack, readonly, preserves_flags));
        for p in products {
            let (mut j, columns) = (0, p.n.div_ceil(SIDE));
            while j < columns {
                let width = (columns - j).min(2);
                let (mut i, rows) = (0, p.m.div_ceil(SIDE));
                while i < rows {
                    let height = (rows - i).min(2);
                    block(p, i, j, height, width);
                    i += height;
                }
                j += width;
            }
        }
        asm!("tilerelease", options(nomem, nostack, preserves_flags));
    }
}

/// One block of `height × width` accumulator tiles, directly in C or, at its edges, through a copy,
/// of which the parts beyond the edges hold nothing of use.
unsafe fn block(p: &Product, i: usize, j: usize, height: usize, width: usize) {
    let (row, column) = (i * SIDE, j * SIDE);
    let (rows, columns) = ((height * SIDE).min(p.m - row), (width * SIDE).min(p.n - column));
    // SAFETY: the tiles exist by the contract of `products`; the copy has room for 2 × 2 tiles.
    unsafe {
        let a = p.a.add(i * p.a_row * TILE);
        let b = p.b.add(j * p.b_column * TILE);
        let c = p.c.add(row * p.c_row + column);
        if rows == height * SIDE && columns == width * SIDE {
            kernel(p, a, b, c, p.c_row, height, width);
            return;
        }
        const WIDTH: usize = 2 * SIDE;
        let mut copy = std::mem::MaybeUninit::<[f32; WIDTH * WIDTH]>::uninit();
        let copy: *mut f32 = copy.as_mut_ptr().cast();
        if p.add {
            for r in 0..rows {
                c.add(r * p.c_row).copy_to_nonoverlapping(copy.add(r * WIDTH), columns);
            }
        }
        kernel(p, a, b, copy, WIDTH, height, width);
        for r in 0..rows {
            c.add(r * p.c_row).copy_from_nonoverlapping(copy.add(r * WIDTH), columns);
        }
    }
}

/// Declares the loop of one block shape: which accumulators it has, and one step of products.
macro_rules! tiles {
    ($p:ident, $a:ident, $b:ident, $c:ident, $c_row:ident;
     load $($load:literal)+; zero $($zero:literal)+; step $($step:literal)+; store $($store:literal)+) => {
        asm!(
            "/* {c1} is absent from the lower blocks */",
            "test {add:e}, {add:e}",
            "jz 3f",
            $($load,)+
            "jmp 2f",
            "3:",
            $($zero,)+
            "2:",
            $($step,)+
            "add {a0}, 1024",
            "add {a1}, 1024",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "dec {steps}",
            "jnz 2b",
            $($store,)+
            add = in(reg) u32::from($p.add),
            steps = inout(reg) $p.steps => _,
            a0 = inout(reg) $a => _,
            a1 = inout(reg) $a.wrapping_add($p.a_row * TILE) => _,
            b0 = inout(reg) $b => _,
            b1 = inout(reg) $b.wrapping_add($p.b_column * TILE) => _,
            c0 = in(reg) $c,
            c1 = in(reg) $c.wrapping_add(SIDE * $c_row),
            c_bytes = in(reg) $c_row * 4,
            row = in(reg) 64usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// Accumulators in tmm0..4 as `[[0, 1], [2, 3]]`, A in tmm4 and tmm5, B in tmm6 and tmm7.
unsafe fn kernel(
    p: &Product,
    a: *const u8,
    b: *const u8,
    c: *mut f32,
    c_row: usize,
    height: usize,
    width: usize,
) {
    // SAFETY: loads and stores stay in the tiles of the block, which the caller vouches for;
    // addresses of absent tiles are computed without being read.
    unsafe {
        match (height, width) {
            (2, 2) => tiles!(p, a, b, c, c_row;
                load "tileloadd tmm0, [{c0} + {c_bytes}*1]"
                    "tileloadd tmm1, [{c0} + {c_bytes}*1 + 64]"
                    "tileloadd tmm2, [{c1} + {c_bytes}*1]"
                    "tileloadd tmm3, [{c1} + {c_bytes}*1 + 64]";
                zero "tilezero tmm0" "tilezero tmm1" "tilezero tmm2" "tilezero tmm3";
                step "tileloadd tmm4, [{a0} + {row}*1]"
                    "tileloadd tmm6, [{b0} + {row}*1]"
                    "tdpbf16ps tmm0, tmm4, tmm6"
                    "tileloadd tmm7, [{b1} + {row}*1]"
                    "tdpbf16ps tmm1, tmm4, tmm7"
                    "tileloadd tmm5, [{a1} + {row}*1]"
                    "tdpbf16ps tmm2, tmm5, tmm6"
                    "tdpbf16ps tmm3, tmm5, tmm7";
                store "tilestored [{c0} + {c_bytes}*1], tmm0"
                    "tilestored [{c0} + {c_bytes}*1 + 64], tmm1"
                    "tilestored [{c1} + {c_bytes}*1], tmm2"
                    "tilestored [{c1} + {c_bytes}*1 + 64], tmm3"),
            (2, _) => tiles!(p, a, b, c, c_row;
                load "tileloadd tmm0, [{c0} + {c_bytes}*1]" "tileloadd tmm2, [{c1} + {c_bytes}*1]";
                zero "tilezero tmm0" "tilezero tmm2";
                step "tileloadd tmm4, [{a0} + {row}*1]"
                    "tileloadd tmm6, [{b0} + {row}*1]"
                    "tdpbf16ps tmm0, tmm4, tmm6"
                    "tileloadd tmm5, [{a1} + {row}*1]"
                    "tdpbf16ps tmm2, tmm5, tmm6";
                store "tilestored [{c0} + {c_bytes}*1], tmm0"
                    "tilestored [{c1} + {c_bytes}*1], tmm2"),
            (_, 2) => tiles!(p, a, b, c, c_row;
                load "tileloadd tmm0, [{c0} + {c_bytes}*1]"
                    "tileloadd tmm1, [{c0} + {c_bytes}*1 + 64]";
                zero "tilezero tmm0" "tilezero tmm1";
                step "tileloadd tmm4, [{a0} + {row}*1]"
                    "tileloadd tmm6, [{b0} + {row}*1]"
                    "tdpbf16ps tmm0, tmm4, tmm6"
                    "tileloadd tmm7, [{b1} + {row}*1]"
                    "tdpbf16ps tmm1, tmm4, tmm7";
                store "tilestored [{c0} + {c_bytes}*1], tmm0"
                    "tilestored [{c0} + {c_bytes}*1 + 64], tmm1"),
            _ => tiles!(p, a, b, c, c_row;
                load "tileloadd tmm0, [{c0} + {c_bytes}*1]";
                zero "tilezero tmm0";
                step "tileloadd tmm4, [{a0} + {row}*1]"
                    "tileloadd tmm6, [{b0} + {row}*1]"
                    "tdpbf16ps tmm0, tmm4, tmm6";
                store "tilestored [{c0} + {c_bytes}*1], tmm0"),
        }
    }
}
