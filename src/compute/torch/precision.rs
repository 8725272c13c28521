//! Products in the precision that the configuration asks for. Activities, parameters and moments are float32 in every precision.

use std::ffi::c_void;

use anyhow::{Result, bail};
use tch::{Device, Kind, TchError, Tensor};

use crate::compute::cuda::libraries::symbol;
use crate::compute::settings::Precision;
use crate::network::Role;

/// How two batches of matrices are multiplied.
#[derive(Clone, Copy, Debug)]
pub enum Products {
    Float,
    /// Of factors rounded to tf32, summed in float32.
    Tf32(Tf32Switch),
    /// Of factors rounded to bf16, summed in float32.
    Bf16,
}

impl Products {
    /// What `precision` means on `device`, whose compute capability is given where it is a GPU.
    pub fn new(precision: Precision, device: Device, capability: Option<(i32, i32)>) -> Result<Products> {
        if let (Precision::Tf32 | Precision::Bf16, Some((major, minor))) = (precision, capability)
            && major < 8
        {
            bail!(
                "parallel.precision = \"{}\": this GPU (compute capability {major}.{minor}) does not have it, 8.0 and later do; use \"f32\"",
                if precision == Precision::Tf32 { "tf32" } else { "bf16" }
            );
        }
        match precision {
            Precision::F32 => Ok(Products::Float),
            Precision::Tf32 if device.is_cuda() => Tf32Switch::find().map(Products::Tf32),
            Precision::Tf32 => bail!("parallel.precision = \"tf32\": only GPUs have it; use \"f32\""),
            Precision::Bf16 => Ok(Products::Bf16),
        }
    }

    /// Those of passes over maps of this role.
    pub fn of_passes(self, role: Role) -> Products {
        if Precision::Bf16.of_passes(role) == Precision::F32 { Products::Float } else { self }
    }

    /// `a b` for matrices [n, i, j] and [n, j, k], in float32.
    pub fn product(self, a: &Tensor, b: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Products::Float => a.f_bmm(b),
            Products::Tf32(switch) => switch.during(|| a.f_bmm(b)),
            Products::Bf16 if a.device().is_cuda() => a.f_to_kind(Kind::BFloat16)?.f_bmm_dtype(&b.f_to_kind(Kind::BFloat16)?, Kind::Float),
            Products::Bf16 => rounded(a)?.f_bmm(&rounded(b)?),
        }
    }

    /// [`Products::product`] into `out`.
    pub fn product_into(self, out: &Tensor, a: &Tensor, b: &Tensor) -> Result<(), TchError> {
        let _ = match self {
            Products::Float => a.f_bmm_out(out, b)?,
            Products::Tf32(switch) => switch.during(|| a.f_bmm_out(out, b))?,
            Products::Bf16 if a.device().is_cuda() => {
                a.f_to_kind(Kind::BFloat16)?.f_bmm_dtype_out(out, &b.f_to_kind(Kind::BFloat16)?, Kind::Float)?
            }
            Products::Bf16 => rounded(a)?.f_bmm_out(out, &rounded(b)?)?,
        };
        Ok(())
    }
}

/// Factors with the precision of bf16: their float32 products are exact, so this is what bf16 products with float32 sums are.
fn rounded(x: &Tensor) -> Result<Tensor, TchError> {
    x.f_to_kind(Kind::BFloat16)?.f_to_kind(Kind::Float)
}

/// What lets libtorch's matrix products on GPUs round their factors to tf32, in the whole process.
///
/// tch does not have this switch, so it is called in libtorch by its C++ name; the pinned version of libtorch keeps that name fixed.
#[derive(Clone, Copy, Debug)]
pub struct Tf32Switch {
    context: Context,
    set: SetAllowTf32,
}

type Context = extern "C" fn() -> *mut c_void;
type SetAllowTf32 = extern "C" fn(*mut c_void, bool);

impl Tf32Switch {
    fn find() -> Result<Tf32Switch> {
        let symbols = (symbol(c"_ZN2at13globalContextEv"), symbol(c"_ZN2at7Context18setAllowTF32CuBLASEb"));
        let (Some(context), Some(set)) = symbols else {
            bail!(
                "parallel.precision = \"tf32\": this libtorch has no switch for it (at::Context::setAllowTF32CuBLAS); use \"f32\" or \"bf16\""
            );
        };
        // SAFETY: the symbols are libtorch's, and their mangled names say that these are their signatures.
        let (context, set) =
            unsafe { (std::mem::transmute::<*mut c_void, Context>(context), std::mem::transmute::<*mut c_void, SetAllowTf32>(set)) };
        Ok(Tf32Switch { context, set })
    }

    /// Has it allowed while `product` is given to the GPU, and not for what follows.
    fn during<T>(self, product: impl FnOnce() -> T) -> T {
        (self.set)((self.context)(), true);
        let result = product();
        (self.set)((self.context)(), false);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtorch_takes_the_tf32_switch() {
        // SAFETY: as in allow_tf32.
        let allowed = || unsafe {
            let context: extern "C" fn() -> *mut c_void =
                std::mem::transmute(symbol(c"_ZN2at13globalContextEv").expect("libtorch has a context"));
            let get: extern "C" fn(*const c_void) -> bool =
                std::mem::transmute(symbol(c"_ZNK2at7Context15allowTF32CuBLASEv").expect("libtorch can be asked"));
            get(context())
        };
        assert!(Tf32Switch::find().unwrap().during(allowed) && !allowed());
    }

    #[test]
    fn precisions_that_a_device_lacks_are_refused() {
        let refusal = |precision, device, capability| Products::new(precision, device, capability).unwrap_err().to_string();
        assert!(refusal(Precision::Tf32, Device::Cpu, None).contains("only GPUs"));
        let old = refusal(Precision::Bf16, Device::Cuda(0), Some((7, 5)));
        assert!(old.contains("7.5") && old.contains("use \"f32\""), "{old}");
        assert!(matches!(Products::new(Precision::Bf16, Device::Cpu, None).unwrap(), Products::Bf16));
    }

    #[test]
    fn bf16_products_round_factors_and_keep_sums() {
        // 1 + 2^-9 is not a bf16 number; 256 + 1 is not either, but the sum of products is kept in float32.
        let a = Tensor::from_slice(&[1.0f32 + 1.0 / 512.0, 1.0]).view([1, 1, 2]);
        let b = Tensor::from_slice(&[256.0f32, 1.0]).view([1, 2, 1]);
        let product = |products: Products| products.product(&a, &b).unwrap().double_value(&[0, 0, 0]);
        assert_eq!((product(Products::Float), product(Products::Bf16)), (257.5, 257.0));
        let out = Tensor::zeros([1, 1, 1], (Kind::Float, Device::Cpu));
        Products::Bf16.product_into(&out, &a, &b).unwrap();
        assert_eq!(out.double_value(&[0, 0, 0]), 257.0);
    }
}
