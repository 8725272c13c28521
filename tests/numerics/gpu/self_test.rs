//! The comparison that a network passes before a GPU trains it: what is right passes, and what is wrong does not.

use std::collections::BTreeSet;
use std::rc::Rc;

use biodist::compute::cuda::Gpu;
use biodist::exit::Exit;
use biodist::learner::self_test;
use biodist::network::Network;

use super::stand_in::{Early, StandIn};
use super::{NORMALIZED, configured, samples};

/// The comparison of `rule` with a kernel that does nothing. Returns the kernels that were started, without those for other purposes.
fn compare(overrides: &[&str], skipped: Option<&str>) -> (anyhow::Result<()>, BTreeSet<String>) {
    let (config, samples) = (configured(overrides), samples());
    let network = Network::new(samples.shape, samples.classes, &config.network).unwrap();
    let stand_in = Rc::new(StandIn::new(Early::All));
    *stand_in.skipped.borrow_mut() = skipped.map(str::to_owned);
    let gpu: Rc<dyn Gpu> = stand_in.clone();
    let result = self_test::run(&config, &network, &gpu, 1);
    let log = stand_in.log.borrow();
    let started = log.iter().filter_map(|line| line.split_once(' ')).map(|(_, what)| what.to_owned());
    (result, started.filter(|what| !what.contains(' ')).collect())
}

#[test]
fn what_is_right_passes() {
    for rule in ["bp", "dtp", "ao_sdtp", "wm", "brsf", "l_drl"] {
        let rule = format!("learning.rule={rule}");
        for precision in ["parallel.precision=f32", "parallel.precision=bf16"] {
            passes(&[&rule, precision]);
        }
    }
    for rule in ["bp", "wm"] {
        passes(&[NORMALIZED, &format!("learning.rule={rule}"), "parallel.precision=bf16"]);
    }
    // Of which rounded products of inverses would leave nothing.
    passes(&["learning.rule=dtp", "learning.alpha=0.002", "parallel.precision=bf16"]);
    passes(&["learning.rule=pepita"]);
    passes(&["learning.rule=sdtp", "learning.schedule=alternating"]);
    passes(&["learning.rule=dtp", "network.output=linear", "optimizer.forward.method=sgd"]);
}

#[test]
fn corners_are_left_out_where_products_are_rounded() {
    let [conv, pool, dense] = [
        "{ kind = \"conv\", kernel = 3, channels = 8, stride = 1, nonlinearity = \"relu\" }, ",
        "{ kind = \"max_pool\", kernel = 2, stride = 2 }, ",
        "{ kind = \"dense\", units = 32, nonlinearity = \"leaky_relu\" }",
    ];
    let layers = format!("network.layers=[{conv}{conv}{pool}{conv}{dense}]");
    passes(&["learning.rule=bp", &layers, "parallel.precision=tf32"]);
}

fn passes(overrides: &[&str]) {
    compare(overrides, None).0.unwrap_or_else(|error| panic!("{overrides:?}: {error:#}"));
}

#[test]
fn a_kernel_that_does_nothing_is_noticed() {
    for overrides in [
        &[
            "learning.rule=bp",
            "network.layers=[{ kind = \"conv\", kernel = 3, channels = 5 }, { kind = \"average_pool\", kernel = 2, stride = 2 }]",
        ][..],
        &["learning.rule=ao_sdtp", "parallel.precision=bf16"],
        &["learning.rule=bp", NORMALIZED],
    ] {
        let (_, kernels) = compare(overrides, None);
        assert!(kernels.len() > 8, "{kernels:?}");
        for kernel in kernels {
            let error = compare(overrides, Some(&kernel)).0.expect_err(&kernel);
            assert_eq!(Exit::of(&error), Exit::Failed);
            let said = error.to_string();
            assert!(said.starts_with("stand-in does not compute what the CPU does: after a few steps of "), "{kernel}: {said}");
            assert!(said.ends_with("or parallel.device = \"cpu\""), "{said}");
        }
    }
}
