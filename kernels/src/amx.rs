//! The tile unit of x86-64 (AMX): products of small matrices of bf16 or bytes, by one instruction.
//!
//! The intrinsics are not stable, so this is inline assembly, all of it in this file. The unit has eight
//! registers of 16 rows of 64 bytes. Of a product of 32 rows by 32 columns they hold
//!
//! ```text
//!           tmm6  tmm7        columns 0..16 and 16..32 of B, 64 bytes of depth
//!     tmm4  tmm0  tmm1        rows 0..16 of A, and their sums
//!     tmm5  tmm2  tmm3        rows 16..32
//! ```
//!
//! A row of `A` is 64 bytes of depth, 32 bf16 or 64 bytes. A row of `B` is 4 bytes of depth of 16 columns
//! each. The unit wants to be configured before it is used, and the operating system to be asked before
//! that, since its registers make every thread's saved state 8 KiB larger.
//!
//! Reference: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18 (version
//! 087); Linux, `Documentation/arch/x86/xstate.rst`.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::OnceLock;

/// Bytes of a tile.
pub(crate) const TILE: usize = 1024;

/// Whether the CPU has tiles with products of bf16 and of bytes, and the system lets this process use them.
pub(crate) fn present() -> bool {
    static PRESENT: OnceLock<bool> = OnceLock::new();
    *PRESENT.get_or_init(|| has_tiles() && allowed())
}

fn has_tiles() -> bool {
    const BF16_TILE_INT8: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    const SAVED_BY_SYSTEM: u32 = 1 << 27;
    const TILE_STATE: u32 = 1 << 17 | 1 << 18;
    if __cpuid(0).eax < 7
        || __cpuid(1).ecx & SAVED_BY_SYSTEM == 0
        || __cpuid_count(7, 0).edx & BF16_TILE_INT8 != BF16_TILE_INT8
    {
        return false;
    }
    let state: u32;
    // SAFETY: the instruction is there, as its bit says; it reads which registers the system saves.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") state, out("edx") _, options(nomem, nostack));
    }
    state & TILE_STATE == TILE_STATE
}

/// Asks Linux for the tiles; the answer holds for all threads.
#[cfg(all(target_os = "linux", not(miri)))]
fn allowed() -> bool {
    const ARCH_PRCTL: isize = 158;
    const REQUEST_PERMISSION: usize = 0x1023;
    const TILE_DATA: usize = 18;
    let result: isize;
    // SAFETY: a system call of two numbers, which touches no memory; it writes the registers named.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") REQUEST_PERMISSION,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn allowed() -> bool {
    false
}

/// The tiles of this thread, configured for as long as it lives.
///
/// Rust's compiler uses no tile register of its own, so that they keep their values between the assembly
/// of this file.
pub(crate) struct Tiles(());

#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Tiles {
    /// # Safety
    /// Tiles are [`present`], and no other `Tiles` lives on this thread.
    pub(crate) unsafe fn configure() -> Self {
        let mut configuration = Configuration {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        configuration.row_bytes[..8].fill(64);
        configuration.rows[..8].fill(16);
        // SAFETY: the unit is there by the caller's word; the configuration has its 64 bytes.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly));
        }
        Self(())
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: `configure` is all that makes one.
        unsafe { asm!("tilerelease", options(nomem, nostack)) };
    }
}

/// Sets the sums of 32 rows to zero.
///
/// # Safety
/// The tiles are this thread's.
#[inline(always)]
pub(crate) unsafe fn clear(_: &Tiles) {
    // SAFETY: the tiles are configured.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            options(nomem, nostack),
        );
    }
}

/// Moves the sums of 32 or 16 rows.
macro_rules! moves {
    ($($name:ident $one:ident: $what:literal [$first:literal $second:literal $third:literal $fourth:literal];)*) => {$(
        #[doc = concat!($what, " the sums of 32 rows.")]
        ///
        /// # Safety
        /// The tiles are this thread's; `sums` has 32 rows of 32 sums of 4 bytes, `stride` bytes apart.
        #[inline(always)]
        pub(crate) unsafe fn $name(_: &Tiles, sums: *mut f32, stride: usize) {
            // SAFETY: the caller's; the tiles are configured.
            unsafe {
                asm!(
                    $first, $second, $third, $fourth,
                    near = in(reg) sums,
                    far = in(reg) sums.wrapping_byte_add(16 * stride),
                    stride = in(reg) stride,
                    options(nostack),
                );
            }
        }

        #[doc = concat!($what, " the sums of 16 rows.")]
        ///
        /// # Safety
        /// As those of 32 rows, for 16.
        #[inline(always)]
        pub(crate) unsafe fn $one(_: &Tiles, sums: *mut f32, stride: usize) {
            // SAFETY: the caller's; the tiles are configured.
            unsafe {
                asm!(
                    $first, $second,
                    near = in(reg) sums,
                    stride = in(reg) stride,
                    options(nostack),
                );
            }
        }
    )*};
}

moves! {
    load_32 load_16: "Reads" [
        "tileloadd tmm0, [{near} + {stride}*1]"
        "tileloadd tmm1, [{near} + {stride}*1 + 64]"
        "tileloadd tmm2, [{far} + {stride}*1]"
        "tileloadd tmm3, [{far} + {stride}*1 + 64]"
    ];
    store_32 store_16: "Writes" [
        "tilestored [{near} + {stride}*1], tmm0"
        "tilestored [{near} + {stride}*1 + 64], tmm1"
        "tilestored [{far} + {stride}*1], tmm2"
        "tilestored [{far} + {stride}*1 + 64], tmm3"
    ];
}

/// Products of 32 or 16 rows by 32 columns, which are added to the sums. Tiles of `B` come in pairs, those of a pair
/// side by side.
macro_rules! products {
    ($($name:ident $one:ident: $instruction:literal, $what:literal;)*) => {$(
        #[doc = concat!("Adds products of ", $what, ", twice 16 rows by 32 columns.")]
        ///
        /// # Safety
        /// The tiles are this thread's; `near` and `far` have 16 rows of `64 · steps` bytes, `stride` bytes apart;
        /// `b` has `steps` pairs of tiles.
        #[inline(always)]
        pub(crate) unsafe fn $name(
            _: &Tiles,
            [near, far]: [*const u8; 2],
            stride: usize,
            b: *const u8,
            steps: usize,
        ) {
            // SAFETY: the caller's; the tiles are configured.
            unsafe {
                asm!(
                    "test {steps}, {steps}",
                    "jz 3f",
                    "2:",
                    "tileloadd tmm6, [{b} + {sixty_four}*1]",
                    "tileloadd tmm4, [{near} + {stride}*1]",
                    concat!($instruction, " tmm0, tmm4, tmm6"),
                    "tileloadd tmm7, [{b} + {sixty_four}*1 + 1024]",
                    concat!($instruction, " tmm1, tmm4, tmm7"),
                    "tileloadd tmm5, [{far} + {stride}*1]",
                    concat!($instruction, " tmm2, tmm5, tmm6"),
                    concat!($instruction, " tmm3, tmm5, tmm7"),
                    "add {near}, 64",
                    "add {far}, 64",
                    "add {b}, 2048",
                    "dec {steps}",
                    "jnz 2b",
                    "3:",
                    near = inout(reg) near => _,
                    far = inout(reg) far => _,
                    b = inout(reg) b => _,
                    steps = inout(reg) steps => _,
                    stride = in(reg) stride,
                    sixty_four = in(reg) 64_usize,
                    options(nostack, readonly),
                );
            }
        }

        #[doc = concat!("Adds products of ", $what, ", 16 rows by 32 columns.")]
        ///
        /// # Safety
        /// As those of twice 16 rows.
        #[inline(always)]
        pub(crate) unsafe fn $one(
            _: &Tiles,
            near: *const u8,
            stride: usize,
            b: *const u8,
            steps: usize,
        ) {
            // SAFETY: the caller's; the tiles are configured.
            unsafe {
                asm!(
                    "test {steps}, {steps}",
                    "jz 3f",
                    "2:",
                    "tileloadd tmm6, [{b} + {sixty_four}*1]",
                    "tileloadd tmm4, [{near} + {stride}*1]",
                    concat!($instruction, " tmm0, tmm4, tmm6"),
                    "tileloadd tmm7, [{b} + {sixty_four}*1 + 1024]",
                    concat!($instruction, " tmm1, tmm4, tmm7"),
                    "add {near}, 64",
                    "add {b}, 2048",
                    "dec {steps}",
                    "jnz 2b",
                    "3:",
                    near = inout(reg) near => _,
                    b = inout(reg) b => _,
                    steps = inout(reg) steps => _,
                    stride = in(reg) stride,
                    sixty_four = in(reg) 64_usize,
                    options(nostack, readonly),
                );
            }
        }
    )*};
}

products! {
    bf16_32 bf16_16: "tdpbf16ps", "bf16, in f32";
    int8_32 int8_16: "tdpbusd", "unsigned and signed bytes, in i32";
}
