//! What goes wrong is said in one line, which names the cause and what to do.

use std::rc::Rc;
use std::sync::Arc;

use biodist::compute::cuda::{Failure, old_driver};
use biodist::exchange::Single;
use biodist::exit::Exit;
use biodist::learner::Engine;
use biodist::network::Network;

use super::stand_in::{Early, StandIn};
use super::{configured, samples};
use crate::support::Learner;

/// The error of a learner that cannot be made on `gpu`.
fn refused(gpu: StandIn, overrides: &[&str]) -> anyhow::Error {
    let (config, samples) = (configured(overrides), samples());
    let network = Network::new(samples.shape, samples.classes, &config.network).unwrap();
    Engine::on_gpu(&config, &network, Arc::new(Single), Rc::new(gpu)).err().expect("the engine cannot be made")
}

#[test]
fn an_old_gpu_is_refused() {
    let mut gpu = StandIn::new(Early::All);
    gpu.capability = (7, 5);
    let error = refused(gpu, &[]);
    assert_eq!(Exit::of(&error), Exit::Usage);
    let said = error.to_string();
    assert!(said.contains("stand-in has compute capability 7.5") && said.contains("8.0 or later"), "{said}");
    assert!(said.contains("parallel.device = \"cpu\"") && said.contains("parallel.kernels = \"libtorch\""), "{said}");
}

#[test]
fn memory_that_is_short_is_told_at_the_start() {
    let of = |free: u64, total: u64| {
        let mut gpu = StandIn::new(Early::All);
        gpu.memory = (free, total);
        refused(gpu, &["learning.rule=dtp"])
    };
    for (error, exit) in [(of(1 << 16, 1 << 40), Exit::Failed), (of(1 << 16, 1 << 17), Exit::Usage)] {
        assert_eq!(Exit::of(&error), exit, "{error}");
        let said = error.to_string();
        assert!(said.starts_with("the GPU's memory is full: this network needs 0.00") && said.contains("for 8 samples a GPU"), "{said}");
        assert!(said.contains("GiB are free") && said.ends_with("make data.batch_size smaller, or use more GPUs"), "{said}");
    }
}

#[test]
fn nccl_is_refused_where_there_is_no_gpu() {
    let error = refused(StandIn::new(Early::All), &["parallel.backend=nccl"]);
    assert_eq!(Exit::of(&error), Exit::Usage);
    assert!(error.to_string().starts_with("parallel.backend = \"nccl\""), "{error}");
}

/// What a step says whose kernel, named so and after so many good launches, fails with `status`.
fn said(kernel: &'static str, after: usize, status: i32, name: &str) -> String {
    let gpu = Rc::new(StandIn::new(Early::None));
    let mut learner = Learner::on_stand_in(&configured(&["learning.rule=dtp"]), &samples(), gpu.clone());
    let failure = Failure { call: "cuEventSynchronize", status, name: name.to_owned(), gpu: 0 };
    *gpu.fault.borrow_mut() = Some((kernel, after, failure));
    for _ in 0..4 {
        let units = learner.samples.units();
        let (pixels, labels) = (learner.samples.pixels[..8 * units].to_vec(), learner.samples.labels[..8].to_vec());
        let batch = biodist::compute::Batch { pixels: (&pixels).into(), labels: &labels, samples: 8, first: 0, step: learner.step };
        if let Err(error) = learner.engine.learn(&batch, biodist::rules::Phase::Both, 1.0) {
            assert_eq!(Exit::of(&error), Exit::Failed);
            return error.to_string();
        }
        learner.step += 1;
    }
    panic!("nothing failed");
}

#[test]
fn a_kernel_that_reaches_outside_is_named_by_phase_and_layer() {
    const ILLEGAL: (i32, &str) = (700, "CUDA_ERROR_ILLEGAL_ADDRESS");
    let first = said("apply", 2, ILLEGAL.0, ILLEGAL.1);
    assert!(first.contains("a kernel reached outside of its memory") && first.contains("CUDA_ERROR_ILLEGAL_ADDRESS, 700"), "{first}");
    assert!(first.ends_with("it was doing: forward of layer 2"), "{first}");
    assert!(said("update", 0, ILLEGAL.0, ILLEGAL.1).ends_with("it was doing: update of layer 3"));
    assert!(said("noise", 0, ILLEGAL.0, ILLEGAL.1).ends_with("it was doing: noise of layer 1"));
    // In a graph, by the graph.
    let later = said("noise", 7, ILLEGAL.0, ILLEGAL.1);
    assert!(later.ends_with("it was doing: the graph of a step of both models, or what came before it"), "{later}");
}

#[test]
fn an_error_of_the_memory_is_told() {
    let said = said("apply", 1, Failure::ECC, "CUDA_ERROR_ECC_UNCORRECTABLE");
    assert!(said.starts_with("GPU 0: its memory has an error that cannot be corrected (ECC)"), "{said}");
    assert!(said.contains("nvidia-smi -q -d ECC") && said.contains("forward of layer 1"), "{said}");
}

#[test]
fn an_old_driver_is_told() {
    let said = old_driver(12_040, (13, 0)).unwrap();
    assert!(said.contains("serves CUDA 12.4") && said.contains("is of CUDA 13.0: update the driver"), "{said}");
    assert_eq!((old_driver(13_000, (13, 0)), old_driver(13_000, (13, 1))), (None, None));
    let failure = Failure { call: "cuModuleLoadData", status: 222, name: "CUDA_ERROR_UNSUPPORTED_PTX_VERSION".to_owned(), gpu: 1 };
    assert!(
        failure.to_string().contains("GPU 1: the driver is older than the CUDA libraries")
            && failure.to_string().contains("update the driver")
    );
    let unknown = Failure { status: 12345, ..failure };
    assert_eq!(unknown.to_string(), "cuModuleLoadData failed on GPU 1: CUDA_ERROR_UNSUPPORTED_PTX_VERSION (12345)");
}
