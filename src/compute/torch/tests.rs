//! The kernels' sources, without a GPU: compiled by the machine's C++ compiler, to be run here thread after thread and compared with what
//! the backend does without them. And on a GPU where there is one.

use std::ffi::c_void;
use std::process::Command;
use std::rc::Rc;

use libloading::os::unix::{Library, RTLD_NOW};
use tch::{Device, Kind, Tensor};

use super::kernels::Kernels;
use super::libtorch;
use super::parameters::Parameters;
use crate::compute::cpu::{Place, normals};
use crate::compute::cuda::driver::Driver;
use crate::compute::cuda::kernels::SOURCES;
use crate::compute::{Method, OptimizerStep};
use crate::config::Config;
use crate::network::{Maps, Network};

/// What CUDA gives kernels, for C++; and a launch of `blocks` blocks of 256 threads, one thread after another.
const HOST: &str = r"
#include <cmath>
#include <cstring>
#define __global__
#define __device__ static
static struct { unsigned x; } blockIdx, threadIdx, blockDim = {256};
static unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((unsigned long long)a * b) >> 32); }
static unsigned __float_as_uint(float x) { unsigned y; std::memcpy(&y, &x, 4); return y; }
static float __uint_as_float(unsigned x) { float y; std::memcpy(&y, &x, 4); return y; }
template <class F> static void each_thread(unsigned blocks, F kernel) {
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x) kernel();
}
";

/// Compiles `kernels` and `launcher`, a C function, for this machine; nothing where there is no C++ compiler.
fn on_host(name: &str, launcher: &str) -> Option<(Library, tempfile::TempDir)> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    if Command::new(&compiler).arg("--version").output().is_err() {
        eprintln!("skipped: there is no C++ compiler ({compiler})");
        return None;
    }
    let source = SOURCES.iter().find(|(file, _)| *file == name).unwrap().1;
    let folder = tempfile::tempdir().unwrap();
    let (text, library) = (folder.path().join("kernel.cpp"), folder.path().join("kernel.so"));
    std::fs::write(&text, format!("{HOST}{source}{launcher}")).unwrap();
    let options = ["-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-o"];
    let output = Command::new(compiler).args(options).arg(&library).arg(&text).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // SAFETY: it was just compiled, and does nothing when it is loaded.
    Some((unsafe { Library::open(Some(&library), RTLD_NOW) }.unwrap(), folder))
}

#[test]
fn the_noise_kernel_draws_the_cpus_numbers() {
    const LAUNCHER: &str = r#"
extern "C" void launch(unsigned blocks, const float* source, float* destination, const unsigned* sizes, float sigma, const unsigned* keys) {
    each_thread(blocks, [&] {
        add_noise(source, destination, sizes[0], sizes[1], sizes[2], sigma, keys[0], keys[1], keys[2], keys[3], keys[4]);
    });
}"#;
    type Launch = unsafe extern "C" fn(u32, *const f32, *mut f32, *const u32, f32, *const u32);
    let Some((library, _folder)) = on_host("noise.cu", LAUNCHER) else { return };
    // SAFETY: the signature is that of the function in the text above.
    let launch: Launch = unsafe { *library.get(b"launch").unwrap() };
    let place = Place { seed: 20260 + (5 << 32), step: (3 << 32) + 17, layer: 2, first: 40 };
    for [positions, batch, channels] in [[1, 3, 1000usize], [6, 4, 20], [9, 5, 3], [1, 1, 1], [3, 2, 64]] {
        let source: Vec<f32> = (0..positions * batch * channels).map(|i| (i as f32 * 0.37).sin()).collect();
        let mut ours = vec![0.0f32; source.len()];
        let sizes = [positions, batch, channels].map(|size| size as u32);
        let keys = [place.seed as u32, (place.seed >> 32) as u32, place.step as u32, place.stream(), place.first as u32];
        let blocks = (positions * channels.div_ceil(16)).div_ceil(4) * 16 * batch;
        // SAFETY: the buffers hold what the kernel is told of their sizes.
        unsafe { launch(blocks.div_ceil(256) as u32, source.as_ptr(), ours.as_mut_ptr(), sizes.as_ptr(), 0.25, keys.as_ptr()) };
        let eps = normals(positions, batch, channels, place);
        let wanted: Vec<f32> = source.iter().zip(&eps).map(|(x, eps)| x + eps * 0.25).collect();
        assert_eq!(ours, wanted, "{positions} positions, {batch} samples, {channels} channels");
        let tensor = Tensor::from_slice(&source).view([positions as i64, batch as i64, channels as i64]);
        let plain = Kernels::Plain.add_noise(&tensor, 0.25, place).unwrap();
        assert_eq!(Vec::<f32>::try_from(plain.view([-1])).unwrap(), wanted);
    }
}

#[test]
fn the_optimizers_kernels_do_what_tensor_operations_do() {
    const LAUNCHER: &str = r#"
extern "C" void launch(unsigned blocks, float* const* buffers, unsigned long long count, const float* n, unsigned nesterov) {
    each_thread(blocks, [&] {
        if (nesterov < 2) sgd(buffers[0], buffers[1], buffers[2], count, n[0], n[1], n[2], n[3], nesterov);
        else adam(buffers[0], buffers[1], buffers[2], buffers[3], count, n[0], n[1], n[2], n[3], n[4], n[5], n[6]);
    });
}"#;
    type Launch = unsafe extern "C" fn(u32, *const *mut c_void, u64, *const f32, u32);
    let Some((library, _folder)) = on_host("adam.cu", LAUNCHER) else { return };
    // SAFETY: the signature is that of the function in the text above.
    let launch: Launch = unsafe { *library.get(b"launch").unwrap() };
    let mut parameters = parameters();
    let count = parameters.padded();
    let values = |factor: f32| Tensor::from_slice(&(0..count).map(|i| (i as f32 * factor).sin()).collect::<Vec<f32>>());
    for step in optimizers() {
        let gradients = values(0.3);
        // Some have never had a gradient.
        let _ = gradients.narrow(0, 0, 10).zero_();
        parameters.values.copy_(&values(0.7));
        parameters.first.zero_().copy_(&gradients);
        parameters.second.copy_(&gradients.square());
        let ours = [&gradients, &parameters.values, &parameters.first, &parameters.second].map(Tensor::copy);
        let (nesterov, own) = match step.method {
            Method::Adam { beta1, beta2, size, deviation_scale, epsilon } => (2, [beta1, beta2, size, deviation_scale, epsilon]),
            Method::Sgd { size, momentum, nesterov } => (u32::from(nesterov), [momentum, size, 0.0, 0.0, 0.0]),
        };
        let numbers = [&[step.scale, step.keep], &own[..]].concat();
        let buffers = ours.each_ref().map(Tensor::data_ptr);
        // SAFETY: the buffers hold what the kernel is told of their sizes.
        unsafe { launch(count.div_ceil(256) as u32, buffers.as_ptr(), count as u64, numbers.as_ptr(), nesterov) };
        Kernels::Plain.optimize(&mut parameters, 0..count, &gradients, &step).unwrap();
        for (ours, plain) in ours[1..].iter().zip([&parameters.values, &parameters.first, &parameters.second]) {
            let difference = (ours - plain).abs().max().double_value(&[]);
            assert!(difference < 1e-6, "differs by {difference}: {step:?}");
        }
        let moved = (&ours[1] - values(0.7) * f64::from(step.keep)).abs();
        assert!(moved.narrow(0, 0, 10).max().double_value(&[]) < 1e-7 && moved.narrow(0, 10, 40).min().double_value(&[]) > 1e-4);
    }
}

#[test]
fn kernels_on_a_gpu_do_what_the_cpu_does() {
    if libtorch::gpus().is_err() {
        return eprintln!("skipped: there is no GPU");
    }
    let device = Device::Cuda(0);
    // Where this fails the program goes on, slowly, and other tests pass.
    let kernels = Kernels::compile(Rc::new(Driver::new(0).unwrap())).unwrap();
    let place = Place { seed: 20260 + (5 << 32), step: (3 << 32) + 17, layer: 2, first: 40 };
    // The last is a layer of the ImageNet network: more blocks than a GPU holds at once.
    for size in [[1, 3, 1000], [6, 4, 20], [9, 5, 3], [1, 1, 1], [3136, 32, 48]] {
        // Read through strides, as a rule may hand it out.
        let source =
            Tensor::arange(size.iter().product::<i64>(), (Kind::Float, device)).sin().view([size[1], size[0], size[2]]).transpose(0, 1);
        let noisy = kernels.add_noise(&source, 0.25, place).unwrap().to_device(Device::Cpu);
        let plain = Kernels::Plain.add_noise(&source.to_device(Device::Cpu), 0.25, place).unwrap();
        assert!(noisy.equal(&plain), "{size:?}: {}", (noisy - plain).abs().max().double_value(&[]));
    }

    for step in optimizers() {
        let mut both = [device, Device::Cpu].map(parameters_on);
        for (parameters, kernels) in both.iter_mut().zip([&kernels, &Kernels::Plain]) {
            let numbers = Tensor::arange(parameters.padded() as i64, (Kind::Float, Device::Cpu));
            let values = |factor: f64| (&numbers * factor).sin().to_device(parameters.values.device());
            let gradients = values(0.3);
            let _ = gradients.narrow(0, 0, 10).zero_();
            parameters.values.copy_(&values(0.7));
            parameters.first.copy_(&gradients);
            parameters.second.copy_(&gradients.square());
            kernels.optimize(parameters, 0..numbers.numel(), &gradients, &step).unwrap();
        }
        let [ours, plain] = both.each_ref().map(|of| [&of.values, &of.first, &of.second].map(|tensor| tensor.to_device(Device::Cpu)));
        for (ours, plain) in ours.iter().zip(&plain) {
            let difference = (ours - plain).abs().max().double_value(&[]);
            assert!(difference < 1e-6, "differs by {difference}: {step:?}");
        }
    }
}

/// Each method, and each form of it.
fn optimizers() -> [OptimizerStep; 4] {
    let adam = |epsilon| Method::Adam { beta1: 0.9, beta2: 0.99, size: 0.01, deviation_scale: 1.5, epsilon };
    let sgd = |nesterov| Method::Sgd { size: 0.01, momentum: 0.9, nesterov };
    let step = |keep, method| OptimizerStep { scale: 0.125, keep, method };
    [step(1.0, adam(1e-4)), step(0.999, adam(f32::MIN_POSITIVE)), step(1.0, sgd(false)), step(0.999, sgd(true))]
}

/// Parameters of a small dense layer, all of them this rank's.
fn parameters() -> Parameters {
    parameters_on(Device::Cpu)
}

fn parameters_on(device: Device) -> Parameters {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(
        file.path(),
        "[data]\ntrain = \"unused\"\nbatch_size = 1\n[network]\nlayers = []\n[learning]\nrule = \"bp\"\n\
         [optimizer.forward]\nlearning_rate = 0.1\n[training]\nmax_steps = 1\n",
    )
    .unwrap();
    let config = Config::load(file.path(), &[]).unwrap();
    let network = Network::new([4, 4, 5], 10, &config.network).unwrap();
    let maps = Maps::new(&network, &config.learning.needs());
    let parameters = Parameters::new(&maps.all[0], 0, 1, device).unwrap();
    assert_eq!(parameters.values.kind(), Kind::Float);
    parameters
}
