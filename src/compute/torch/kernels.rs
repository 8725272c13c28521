//! The operations for which libtorch has no single pass over memory: noise, and the optimisers.
//!
//! On a GPU they are kernels of our own, compiled for it when the program starts. Elsewhere, and where NVRTC is missing, optimisers are
//! rows of tensor operations, and noise is drawn by the CPU's code; the numbers are the same.

use std::ffi::c_void;
use std::ops::Range;
use std::rc::Rc;

use anyhow::{Result, ensure};
use tch::{Kind, TchError, Tensor};

use super::parameters::Parameters;
use crate::compute::cpu::{Place, normals};
use crate::compute::cuda::driver::Driver;
use crate::compute::cuda::kernels::ptx;
use crate::compute::cuda::{Function, Gpu};
use crate::compute::{Method, OptimizerStep};

pub enum Kernels {
    /// By libtorch's operations and the CPU's noise.
    Plain,
    Compiled {
        driver: Rc<Driver>,
        adam: Function,
        sgd: Function,
        noise: Function,
    },
}

impl Kernels {
    /// Compiles the kernels for `driver`'s GPU.
    pub fn compile(driver: Rc<Driver>) -> Result<Kernels> {
        let ptx = ptx(driver.capability()?)?;
        let module = |ptx: &[u8]| driver.module(ptx);
        let (optimizers, noises) = (module(&ptx[0])?, module(&ptx[1])?);
        let [adam, sgd] = [driver.kernel(optimizers, "adam")?, driver.kernel(optimizers, "sgd")?];
        let noise = driver.kernel(noises, "add_noise")?;
        Ok(Kernels::Compiled { driver, adam, sgd, noise })
    }

    /// `source + sigma * eps`, [positions, batch, channels].
    pub fn add_noise(&self, source: &Tensor, sigma: f32, place: Place) -> Result<Tensor> {
        let (positions, batch, channels) = source.size3()?;
        let Kernels::Compiled { driver, noise, .. } = self else {
            let eps = Tensor::f_from_slice(&normals(positions as usize, batch as usize, channels as usize, place))?;
            let eps = eps.f_view([positions, batch, channels])?.f_to_device(source.device())?;
            return Ok(source.f_add(&eps.f_mul_scalar(f64::from(sigma))?)?);
        };
        let source = source.f_contiguous()?;
        let destination = source.f_empty_like()?;
        let counters = (positions as u64 * (channels as u64).div_ceil(16)).div_ceil(4) * 16;
        let (mut from, mut to) = (source.data_ptr(), destination.data_ptr());
        let mut sizes = [positions as u32, batch as u32, channels as u32];
        let mut sigma = sigma;
        let mut keys = [place.seed as u32, (place.seed >> 32) as u32, place.step as u32, place.stream(), place.first as u32];
        let [positions, batch_argument, channels] = sizes.each_mut().map(argument);
        let [key_low, key_high, step, stream, first] = keys.each_mut().map(argument);
        let (from, to, sigma) = (argument(&mut from), argument(&mut to), argument(&mut sigma));
        let mut arguments = [from, to, positions, batch_argument, channels, sigma, key_low, key_high, step, stream, first];
        // SAFETY: the arguments are those of the kernel in their order, and the tensors are contiguous and of these
        // sizes.
        unsafe { driver.launch(*noise, counters * batch as u64, &mut arguments)? };
        Ok(destination)
    }

    /// The optimiser on elements `range` of `parameters`, all of them owned by this rank, from the gradients of these elements, summed over the
    /// global batch.
    pub fn optimize(&self, parameters: &mut Parameters, range: Range<usize>, gradients: &Tensor, step: &OptimizerStep) -> Result<()> {
        let owned = &parameters.owned;
        ensure!(owned.start <= range.start && range.end <= owned.end, "elements {range:?} are not this rank's, which has {owned:?}");
        let (start, len) = (range.start - owned.start, range.len());
        ensure!(gradients.is_contiguous() && gradients.numel() == len, "gradients do not fit elements {range:?}");
        let part = |tensor: &Tensor, start: usize| tensor.f_narrow(0, start as i64, len as i64);
        let weights = part(&parameters.values, range.start)?;
        let (first, second) = (part(&parameters.first, start)?, part(&parameters.second, start)?);
        let Kernels::Compiled { driver, adam, sgd, .. } = self else { return Ok(plain(weights, first, second, gradients, step)?) };
        let mut buffers = [gradients, &weights, &first, &second].map(Tensor::data_ptr);
        let mut count = len as u64;
        let [gradients, weights, first, second] = buffers.each_mut().map(argument);
        let (count, mut common) = (argument(&mut count), [step.scale, step.keep]);
        let [scale, keep] = common.each_mut().map(argument);
        // SAFETY of both: the arguments are those of the kernel in their order, and each tensor was seen to hold `len`
        // elements.
        match step.method {
            Method::Adam { beta1, beta2, size, deviation_scale, epsilon } => {
                let mut own = [beta1, beta2, size, deviation_scale, epsilon];
                let [beta1, beta2, size, deviation_scale, epsilon] = own.each_mut().map(argument);
                let common = [gradients, weights, first, second, count, scale, keep];
                let mut arguments: Vec<_> = common.into_iter().chain([beta1, beta2, size, deviation_scale, epsilon]).collect();
                // SAFETY: see above.
                unsafe { driver.launch(*adam, len as u64, &mut arguments) }
            }
            Method::Sgd { mut size, mut momentum, nesterov } => {
                let mut nesterov = u32::from(nesterov);
                let own = [argument(&mut momentum), argument(&mut size), argument(&mut nesterov)];
                let mut arguments: Vec<_> = [gradients, weights, first, count, scale, keep].into_iter().chain(own).collect();
                // SAFETY: see above.
                unsafe { driver.launch(*sgd, len as u64, &mut arguments) }
            }
        }
    }
}

/// The address of a kernel's argument.
fn argument<T>(value: &mut T) -> *mut c_void {
    std::ptr::from_mut(value).cast()
}

/// The optimiser by libtorch's operations.
fn plain(mut weights: Tensor, mut first: Tensor, mut second: Tensor, gradients: &Tensor, step: &OptimizerStep) -> Result<(), TchError> {
    let number = |x: f32| f64::from(x);
    let gradient = gradients.f_mul_scalar(number(step.scale))?;
    let change = match step.method {
        Method::Adam { beta1, beta2, size, deviation_scale, epsilon } => {
            let _ = first.f_mul_scalar_(number(beta1))?.f_add_(&gradient.f_mul_scalar(number(1.0 - beta1))?)?;
            let square = gradient.f_mul(&gradient)?.f_mul_scalar(number(1.0 - beta2))?;
            let _ = second.f_mul_scalar_(number(beta2))?.f_add_(&square)?;
            let divisor = second.f_sqrt()?.f_mul_scalar(number(deviation_scale))?.f_add_scalar(number(epsilon))?;
            first.f_mul_scalar(number(size))?.f_div(&divisor)?
        }
        Method::Sgd { size, momentum, nesterov } => {
            let _ = first.f_mul_scalar_(number(momentum))?.f_add_(&gradient)?;
            let direction = if nesterov { gradient.f_add(&first.f_mul_scalar(number(momentum))?)? } else { first };
            direction.f_mul_scalar(number(size))?
        }
    };
    let _ = weights.f_mul_scalar_(number(step.keep))?.f_sub_(&change)?;
    debug_assert_eq!(weights.kind(), Kind::Float);
    Ok(())
}
