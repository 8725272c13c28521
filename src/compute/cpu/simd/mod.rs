//! One vector of sixteen float32, on every machine.
//!
//! Sixteen floats are a cache line, one AVX-512 register, or two AVX ones. Kernels are written once against [`Simd`] and compiled for each
//! instruction set; [`Isa::run`] enters the variant that this machine has. Multiplication and addition are fused on AVX2 and AVX-512 alike,
//! element by element, so both give the same bits.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use anyhow::{Result, bail};

use crate::compute::settings::{KernelChoice, Precision};

/// Lanes of a vector; activations and weights are padded to it.
pub const LANES: usize = 16;

/// Sixteen float32 and the arithmetic that the kernels need.
///
/// # Safety
/// Every method may use instructions of its set: call them only inside [`Kernel::run`]. Pointers need [`LANES`] valid elements
/// (no alignment is asked for).
#[allow(clippy::missing_safety_doc)]
pub unsafe trait Simd: Copy {
    /// Registers that a tile of products may hold as sums: rows by vectors.
    const TILE_ROWS: usize;
    const TILE_VECTORS: usize;
    /// Rows of a tile of one vector, for weight gradients.
    const GRADIENT_ROWS: usize;
    /// Whether there are registers for the optimiser while those of a tile are in use.
    const OVERLAPS: bool;

    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// `self * a + b`.
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;
    unsafe fn sqrt(self) -> Self;
    /// Limits to -bound..bound; NaN stays NaN.
    unsafe fn clamp(self, bound: f32) -> Self;
    /// `then` in lanes that are above 0, else (of NaN too) `otherwise`.
    unsafe fn where_positive(self, then: Self, otherwise: Self) -> Self;
    /// Transposes the 16x16 block at `from` (rows `stride` apart) to `to` (rows 16 apart).
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32);

    /// Sum of the lanes, in one fixed order.
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let mut lanes = [0.0f32; LANES];
        unsafe { self.store(lanes.as_mut_ptr()) };
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
            width /= 2;
        }
        lanes[0]
    }
}

/// How near a line is to come.
#[derive(Clone, Copy)]
pub enum Near {
    /// To the first-level cache.
    First,
    /// To the second-level one, which has room for what is needed a little later.
    Second,
}

/// Asks for the cache line at `at`, which need not be valid.
#[inline(always)]
pub fn prefetch(near: Near, at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        // SAFETY: it reads nothing that the program could see, and faults at no address.
        unsafe {
            match near {
                Near::First => _mm_prefetch::<_MM_HINT_T0>(at.cast()),
                Near::Second => _mm_prefetch::<_MM_HINT_T1>(at.cast()),
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (near, at);
}

/// Work that is compiled once for every instruction set. `run` must be `#[inline(always)]`, or it loses the instructions.
pub trait Kernel {
    type Output;
    /// # Safety
    /// What the kernel's own pointers ask for.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// An instruction set that this machine was seen to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    Avx512,
    Avx2,
    Portable,
}

impl Isa {
    /// The variant asked for, or the widest one here; an error where the machine lacks it, or the precision.
    pub fn choose(choice: KernelChoice, precision: Precision) -> Result<Isa> {
        let available = Isa::available();
        let isa = match choice {
            KernelChoice::Auto => available[0],
            KernelChoice::Avx512 => Isa::Avx512,
            KernelChoice::Avx2 => Isa::Avx2,
            KernelChoice::Portable => Isa::Portable,
            KernelChoice::Cuda => {
                bail!("parallel.kernels = \"cuda\": these kernels are for GPUs, and this rank computes on the CPU; use \"auto\"")
            }
            KernelChoice::Libtorch => {
                bail!(
                    "parallel.kernels = \"libtorch\": this biodist was built without libtorch; use \"auto\", or build it with --features torch"
                )
            }
        };
        if !available.contains(&isa) {
            let names = available.iter().map(|isa| format!("\"{}\"", isa.name())).collect::<Vec<_>>().join(", ");
            bail!("parallel.kernels = \"{}\": this processor does not have it; use \"auto\", or one of {names}", isa.name());
        }
        match precision {
            Precision::F32 => Ok(isa),
            Precision::Tf32 => bail!("parallel.precision = \"tf32\": only GPUs have it; use \"f32\" on a CPU"),
            // Processors that multiply bf16 gain nothing by it here: updates are bound by memory, and their parameters stay float32.
            Precision::Bf16 => bail!("parallel.precision = \"bf16\": only GPUs have it; use \"f32\" on a CPU"),
        }
    }

    /// [`Simd::TILE_VECTORS`] of this variant.
    pub fn tile_vectors(self) -> usize {
        match self {
            Isa::Avx512 => 3,
            Isa::Avx2 | Isa::Portable => 1,
        }
    }

    /// The variants that this machine can run, widest first.
    pub fn available() -> Vec<Isa> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
                sets.push(Isa::Avx512);
            }
            if avx2 {
                sets.push(Isa::Avx2);
            }
        }
        sets.push(Isa::Portable);
        sets
    }

    pub fn name(self) -> &'static str {
        match self {
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Portable => "portable",
        }
    }

    /// Runs `kernel` with this instruction set.
    ///
    /// # Safety
    /// What [`Kernel::run`] asks for.
    #[inline]
    pub unsafe fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { avx512::enter(kernel) },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2::enter(kernel) },
            _ => unsafe { kernel.run::<portable::Lanes>() },
        }
    }
}
