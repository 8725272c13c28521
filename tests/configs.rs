//! The configurations that come with the project, against the paper's tables and an independent count of parameters.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use biodist::commands::check::{self, CheckArgs};
use biodist::config::{ByLayer, Config, EpsilonForm, Layer, Output, ParameterGroup, Rule, Schedule};
use biodist::network::{Maps, Network, Role};
use clap::Parser;

const NINE: [&str; 9] =
    ["dtp_parallel", "dtp_alternating", "sdtp_parallel", "sdtp_alternating", "ao_sdtp_parallel", "ao_sdtp_alternating", "fa", "dfa", "bp"];
const NETWORKS: [&str; 4] = ["mnist_fc", "mnist_lc", "cifar_fc", "cifar_lc"];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("configs/{name}.toml"))
}

fn load(name: &str) -> Config {
    Config::load(&path(name), &[]).unwrap_or_else(|error| panic!("{error}"))
}

fn names() -> BTreeSet<String> {
    names_in("")
}

/// Of the configurations in a folder.
fn names_in(folder: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(path("").with_file_name(folder)).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_file()).map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// Keys in which two configurations differ.
fn changed(one: &Config, other: &Config) -> Vec<String> {
    one.differences(other).into_iter().map(|difference| difference.key).collect()
}

/// Stored image and classes, by the first part of a configuration's name.
fn image(name: &str) -> ([usize; 3], usize) {
    match name.split('_').next().unwrap() {
        "mnist" | "fashion" => ([28, 28, 1], 10),
        "cifar" => ([32, 32, 3], 10),
        "imagenet" => ([224, 224, 3], 1000),
        other => panic!("configs/{name}.toml: data set {other}?"),
    }
}

#[test]
fn every_cell_has_its_file() {
    let mut expected: BTreeSet<String> = NETWORKS.iter().flat_map(|network| NINE.map(|method| format!("{network}_{method}"))).collect();
    expected.extend(["mnist_conv_bp", "cifar_conv_bp"].map(str::to_owned));
    assert_eq!(expected.len(), 38, "Table 1");
    expected.extend(NINE.map(|method| format!("mnist_fc5_{method}")));
    let methods = ["bp", "fa", "dfa", "dtp", "dtp_alternating", "sdtp", "sdtp_alternating", "ao_sdtp", "ao_sdtp_alternating", "conv_bp"];
    expected.extend(methods.map(|method| format!("imagenet_{method}")));
    expected.extend(["bp", "dtp", "sdtp"].map(|rule| format!("mnist_autoencoder_{rule}")));
    expected.extend(["mnist_fc_hybrid", "mnist_fc_tp"].map(str::to_owned));
    expected.extend(NINE.map(|method| format!("fashion_fc_{method}")));
    expected.extend(["bp", "fa", "dtp_parallel", "sdtp_parallel"].map(|method| format!("fashion_lc_{method}")));
    assert_eq!(names(), expected);
}

#[test]
fn files_are_what_their_names_say() {
    for name in names() {
        let config = load(&name);
        assert_eq!(config.experiment.name, name);
        let rule = match name.as_str() {
            name if name.contains("ao_sdtp") => Rule::AO_SDTP,
            name if name.contains("sdtp") || name.contains("hybrid") => Rule::SDTP,
            name if name.contains("dtp") => Rule::DTP,
            name if name.ends_with("_tp") => Rule::TP,
            name if name.ends_with("dfa") => Rule::DFA,
            name if name.ends_with("fa") => Rule::FA,
            _ => Rule::BP,
        };
        let schedule = if name.ends_with("alternating") { Schedule::Alternating } else { Schedule::Parallel };
        assert_eq!((config.learning.rule, config.learning.schedule), (rule, schedule), "{name}");
        assert_eq!(config.learning.auxiliary_units, (rule == Rule::AO_SDTP).then_some(512), "{name}");
        assert_eq!(config.learning.hybrid > 0.0, name.contains("hybrid"), "{name}");
        assert_eq!(config.network.output == Output::Linear, name.contains("autoencoder"), "{name}");
        assert_eq!(config.network.layers.iter().any(|layer| matches!(layer, Layer::Conv { .. })), name.contains("_conv_"), "{name}");
        let (folder, batch) = match name.split('_').next().unwrap() {
            "cifar" => ("data/cifar10", 128),
            "imagenet" => ("data/imagenet", 256),
            other => (&*format!("data/{other}"), 128),
        };
        assert_eq!(config.data.train, Path::new(folder).join("train"), "{name}");
        let test = if name.starts_with("imagenet") { "val" } else { "test" };
        assert_eq!(config.data.test, Some(Path::new(folder).join(test)), "{name}");
        assert_eq!(config.data.batch_size, batch, "{name}");
        assert_eq!((config.training.epochs, config.optimizer.epsilon_form), (Some(500), EpsilonForm::Hat), "{name}");
    }
}

/// Columns of Table 5, and its rows from top to bottom; the inverse's end with its columns.
struct Block {
    network: &'static str,
    columns: &'static [&'static str],
    /// Of both models; where there is none it is Table 4's, 0.9.
    beta1: &'static [f64],
    forward: [&'static [f64]; 3],
    inverse: [&'static [f64]; 3],
    alpha: &'static [f64],
    sigma: &'static [f64],
}

const FC: &[&str] = &["fc_dtp_parallel", "fc_dtp_alternating", "fc_sdtp_parallel", "fc_sdtp_alternating", "fc_bp", "fc_fa", "fc_dfa"];
const LC: &[&str] =
    &["lc_dtp_parallel", "lc_dtp_alternating", "lc_sdtp_parallel", "lc_sdtp_alternating", "lc_bp", "conv_bp", "lc_fa", "lc_dfa"];

const FC5: &[&str] =
    &["fc5_dtp_parallel", "fc5_dtp_alternating", "fc5_sdtp_parallel", "fc5_sdtp_alternating", "fc5_bp", "fc5_fa", "fc5_dfa"];

const MNIST_FC: Block = Block {
    network: "mnist",
    columns: FC,
    beta1: &[],
    forward: [
        &[0.000757, 0.000308, 0.000402, 0.000301, 0.000152, 0.000168, 0.001649],
        &[0.99, 0.99, 0.999, 0.95, 0.999, 0.999, 0.95],
        &[1e-3, 1e-4, 1e-8, 1e-4, 1e-8, 1e-4, 1e-3],
    ],
    inverse: [&[0.000768, 0.004593, 0.001101, 0.009572], &[0.99, 0.99, 0.99, 0.95], &[1e-4, 1e-4, 1e-6, 1e-3]],
    alpha: &[0.15008, 0.231758],
    sigma: &[0.36133, 0.220444, 0.213995, 0.118267],
};

const TABLE_5: [Block; 6] = [
    MNIST_FC,
    // The same block as another extraction of the text prints it.
    Block {
        columns: FC5,
        beta1: &[0.99, 0.99, 0.99, 0.9, 0.9, 0.9, 0.9],
        forward: [MNIST_FC.forward[0], &[0.95, 0.99, 0.999, 0.95, 0.999, 0.999, 0.95], MNIST_FC.forward[2]],
        inverse: [MNIST_FC.inverse[0], &[0.999, 0.999, 0.95, 0.95], MNIST_FC.inverse[2]],
        ..MNIST_FC
    },
    Block {
        network: "mnist",
        columns: LC,
        beta1: &[],
        forward: [
            &[0.000905, 0.001481, 0.000145, 0.000651, 0.000133, 0.000297, 0.000219, 0.002462],
            &[0.99, 0.99, 0.99, 0.99, 0.99, 0.99, 0.999, 0.99],
            &[1e-4, 1e-4, 1e-6, 1e-4, 1e-8, 1e-8, 1e-6, 1e-4],
        ],
        inverse: [&[0.001239, 0.000137, 0.001652, 0.003741], &[0.999, 0.999, 0.999, 0.99], &[1e-4, 1e-6, 1e-4, 1e-4]],
        alpha: &[0.116131, 0.310892],
        sigma: &[0.099236, 0.366964, 0.061555, 0.134739],
    },
    Block {
        network: "cifar",
        columns: FC,
        beta1: &[],
        forward: [
            &[0.000012, 0.000013, 0.000129, 0.000041, 0.000019, 0.000025, 0.000050],
            &[0.999, 0.999, 0.99, 0.99, 0.999, 0.99, 0.99],
            &[1e-8, 1e-8, 1e-6, 1e-4, 1e-6, 1e-4, 1e-8],
        ],
        inverse: [&[0.000039, 0.000114, 0.000011, 0.000014], &[0.99, 0.99, 0.99, 0.99], &[1e-6, 1e-4, 1e-6, 1e-8]],
        alpha: &[0.125693, 0.172085],
        sigma: &[0.169783, 0.134811, 0.273341, 0.125678],
    },
    Block {
        network: "cifar",
        columns: LC,
        beta1: &[],
        forward: [
            &[0.000032, 0.000036, 0.000020, 0.000109, 0.000044, 0.000133, 0.000022, 0.000040],
            &[0.99, 0.99, 0.99, 0.99, 0.999, 0.99, 0.999, 0.999],
            &[1e-6, 1e-8, 1e-4, 1e-4, 1e-6, 1e-4, 1e-8, 1e-8],
        ],
        inverse: [&[0.000852, 0.000389, 0.000261, 1.1e-05], &[0.999, 0.999, 0.999, 0.99], &[1e-4, 1e-8, 1e-6, 1e-8]],
        alpha: &[0.189828, 0.208141],
        sigma: &[0.146728, 0.094869, 0.299769, 0.023804],
    },
    Block {
        network: "imagenet",
        columns: &["dtp", "dtp_alternating", "sdtp", "bp", "conv_bp", "fa"],
        beta1: &[],
        forward: [
            &[0.000217, 0.000101, 0.000011, 0.000024, 0.000049, 0.000043],
            &[0.99, 0.99, 0.999, 0.999, 0.99, 0.99],
            &[1e-6, 1e-8, 1e-6, 1e-8, 1e-8, 1e-4],
        ],
        inverse: [&[0.000234, 0.000064, 0.000170], &[0.999, 0.999, 0.999], &[1e-6, 1e-8, 1e-8]],
        alpha: &[0.163359, 0.03706],
        sigma: &[0.192835, 0.097217, 0.168522],
    },
];

#[test]
fn hyperparameters_are_table_5s() {
    for block in TABLE_5 {
        for (index, column) in block.columns.iter().enumerate() {
            let name = format!("{}_{column}", block.network);
            let config = load(&name);
            let adam = |rows: [&[f64]; 3]| {
                let [learning_rate, beta2, epsilon] = rows.map(|row| row.get(index).copied());
                let beta1 = block.beta1.get(index).copied().unwrap_or(0.9);
                Some((learning_rate?, beta1, beta2?, epsilon?))
            };
            let of = |group: &ParameterGroup| (group.learning_rate.at(0), group.beta1, group.beta2, group.epsilon);
            let forward = adam(block.forward).unwrap();
            assert_eq!(of(&config.optimizer.forward), forward, "{name}");
            assert_eq!(of(&config.optimizer.inverse), adam(block.inverse).unwrap_or(forward), "{name}");
            assert_eq!(config.learning.alpha, block.alpha.get(index).copied(), "{name}");
            assert_eq!(config.learning.sigma, block.sigma.get(index).map(|sigma| ByLayer::All(*sigma)), "{name}");
        }
    }
}

#[test]
fn ao_sdtp_has_the_hyperparameters_of_sdtp() {
    for name in names().iter().filter(|name| name.contains("ao_sdtp")) {
        let changed = changed(&load(name), &load(&name.replace("ao_sdtp", "sdtp")));
        assert_eq!(changed, ["learning.auxiliary_units", "learning.rule"], "{name}");
    }
}

#[test]
fn the_two_readings_of_mnists_network_differ_in_a_layer_and_in_betas() {
    for method in NINE {
        let (five, six) = (load(&format!("mnist_fc5_{method}")), load(&format!("mnist_fc_{method}")));
        assert_eq!(five.network.layers, six.network.layers[1..], "{method}");
        let mut changed = changed(&five, &six);
        // Feedback has the forward model's.
        changed.retain(|key| !key.starts_with("network.layers") && !key.starts_with("optimizer.feedback."));
        let betas = match method {
            "dtp_parallel" => 4,
            "dtp_alternating" | "sdtp_parallel" | "ao_sdtp_parallel" => 3,
            _ => 0,
        };
        assert!(changed.len() == betas && changed.iter().all(|key| key.contains("beta")), "{method}: {changed:?}");
    }
}

#[test]
fn hybrid_targets_are_between_those_of_sdtp_and_bp() {
    assert_eq!(changed(&load("mnist_fc_hybrid"), &load("mnist_fc_sdtp_parallel")), ["learning.hybrid"]);
}

#[test]
fn fashion_differs_from_mnist_in_its_data_alone() {
    for name in names().iter().filter(|name| name.starts_with("fashion")) {
        assert_eq!(changed(&load(name), &load(&name.replace("fashion", "mnist"))), [""; 0], "{name}");
    }
}

/// Trained forward and inverse, and fixed parameters of networks under rules, as counted from the shapes that a PyTorch implementation of
/// Table 3's networks gives its tensors.
const PARAMETERS: [(&str, [usize; 3]); 30] = [
    ("mnist_fc5_sdtp_parallel", [466_698, 265_984, 0]),
    ("mnist_fc_bp", [532_490, 0, 0]),
    ("mnist_fc_dtp_parallel", [532_490, 328_960, 0]),
    ("mnist_fc_sdtp_parallel", [532_490, 331_776, 0]),
    ("mnist_fc_ao_sdtp_parallel", [532_490, 462_848, 131_584]),
    ("mnist_fc_fa", [532_490, 0, 330_240]),
    ("mnist_fc_dfa", [532_490, 0, 15_360]),
    ("mnist_lc_dtp_parallel", [4_191_562, 4_123_840, 0]),
    ("mnist_lc_sdtp_alternating", [4_191_562, 4_135_104, 0]),
    ("mnist_lc_ao_sdtp_parallel", [4_191_562, 4_659_392, 524_800]),
    ("mnist_lc_fa", [4_191_562, 0, 4_124_672]),
    ("mnist_lc_dfa", [4_191_562, 0, 104_320]),
    ("mnist_conv_bp", [3_241_354, 0, 0]),
    ("cifar_fc_dtp_parallel", [5_256_202, 2_099_200, 0]),
    ("cifar_fc_sdtp_parallel", [5_256_202, 2_110_464, 0]),
    ("cifar_fc_ao_sdtp_alternating", [5_256_202, 2_634_752, 524_800]),
    ("cifar_fc_fa", [5_256_202, 0, 2_107_392]),
    ("cifar_fc_dfa", [5_256_202, 0, 30_720]),
    ("cifar_lc_dtp_alternating", [50_039_818, 48_799_744, 0]),
    ("cifar_lc_sdtp_parallel", [50_039_818, 48_811_008, 0]),
    ("cifar_lc_ao_sdtp_parallel", [50_039_818, 49_335_296, 524_800]),
    ("cifar_lc_fa", [50_039_818, 0, 48_769_024]),
    ("cifar_lc_dfa", [50_039_818, 0, 419_840]),
    ("cifar_conv_bp", [17_293_450, 0, 0]),
    ("imagenet_dtp", [259_859_368, 204_445_248, 0]),
    ("imagenet_sdtp", [259_859_368, 223_280_064, 0]),
    ("imagenet_ao_sdtp", [259_859_368, 232_913_856, 9_634_304]),
    ("imagenet_fa", [259_859_368, 0, 222_931_968]),
    ("imagenet_dfa", [259_859_368, 0, 348_096_000]),
    ("imagenet_conv_bp", [20_209_816, 0, 0]),
];

#[test]
fn networks_have_table_3s_parameters() {
    for (name, [forward, inverse, fixed]) in PARAMETERS {
        let config = load(name);
        let (input, classes) = image(name);
        if let Some([height, width]) = config.data.crop {
            assert_eq!([height, width, 3], input, "{name}");
        }
        let network = Network::new(input, classes, &config.network).unwrap();
        let maps = Maps::new(&network, &config.learning.needs());
        let random = [Role::Feedback, Role::DirectFeedback, Role::Auxiliary].map(|role| maps.parameters(role)).iter().sum::<usize>();
        assert_eq!([maps.parameters(Role::Forward), maps.parameters(Role::Inverse), random], [forward, inverse, fixed], "{name}");
    }
}

/// Rules that came after the paper.
const BEYOND: [&str; 9] = ["kp", "usf", "frsf", "brsf", "wm", "dkp", "drtp", "pepita", "l_drl"];

/// Rules without inverses.
const RESIDUAL: [&str; 10] = ["bp", "fa", "dfa", "kp", "usf", "frsf", "brsf", "wm", "dkp", "drtp"];

#[test]
fn resnet_20_has_its_parameters_under_every_rule() {
    for rule in RESIDUAL {
        let config = load(&format!("beyond/cifar_resnet20_{rule}"));
        assert_eq!(config.learning.rule.name(), rule);
        let network = Network::new([32, 32, 3], 10, &config.network).unwrap();
        let maps = Maps::new(&network, &config.learning.needs());
        // 19 convolutions and two of shortcuts, two numbers for each of their channels, and the output layer.
        let convolutions = 9 * (3 * 16 + 6 * 16 * 16 + 16 * 32 + 5 * 32 * 32 + 32 * 64 + 5 * 64 * 64) + 16 * 32 + 32 * 64;
        let channels = 7 * 16 + 7 * 32 + 7 * 64;
        assert_eq!(maps.parameters(Role::Forward), convolutions + 650);
        assert_eq!([Role::Normalization, Role::Statistics].map(|role| maps.parameters(role)), [2 * channels; 2]);
    }
}

#[test]
fn rules_beyond_the_paper_have_a_file_for_each_of_its_networks() {
    let networks = || NETWORKS.into_iter().chain(["imagenet"]);
    let plain = networks().flat_map(|network| BEYOND.map(|rule| format!("{network}_{rule}")));
    assert_eq!(names_in("beyond"), plain.chain(RESIDUAL.map(|rule| format!("cifar_resnet20_{rule}"))).collect());
    for network in networks() {
        let of_the_paper = load(&format!("{network}_bp"));
        for rule in BEYOND {
            let config = load(&format!("beyond/{network}_{rule}"));
            assert_eq!((config.experiment.name.as_str(), config.learning.rule.name()), (&*format!("{network}_{rule}"), rule));
            assert_eq!((&config.network, &config.data), (&of_the_paper.network, &of_the_paper.data), "{network}_{rule}");
        }
    }
}

#[derive(Parser)]
struct Check {
    #[command(flatten)]
    args: CheckArgs,
}

/// What `check` says of an ImageNet configuration on so many ranks, as text and as JSON.
fn checked(name: &str, ranks: usize, sets: &[&str]) -> (String, serde_json::Value) {
    let (file, ranks) = (path(name), ranks.to_string());
    let describe = |more: &[&str]| {
        let words = ["check", file.to_str().unwrap(), "--input", "224x224x3", "--classes", "1000", "--ranks", &ranks];
        check::describe(&Check::parse_from(words.iter().chain(more).chain(sets)).args).unwrap()
    };
    (describe(&[]), serde_json::from_str(&describe(&["--json"])).unwrap())
}

#[test]
fn a_gpu_has_its_part_of_the_moments_of_imagenet() {
    // Weights and biases of both models, as the table of `check` adds them up.
    let parameters = 259_859_368.0 + 204_445_248.0;
    for ranks in [1, 8, 64] {
        for exchange in ["auto", "activities", "gradients"] {
            let (text, json) = checked("imagenet_dtp", ranks, &[&format!("parallel.exchange={exchange}")]);
            let near = |of: &str, wanted: f64| {
                let found = json["memory_bytes_per_gpu"][of].as_f64().unwrap();
                assert!((0.999..1.01).contains(&(found / wanted)), "{ranks} ranks, {exchange}: {of} {found}");
            };
            near("parameters", 4.0 * parameters);
            // Two of Adam, padded to whole lines; once only, among all ranks.
            near("moments", 8.0 * parameters / ranks as f64);
            let wanted = ["optimiser's moments 3.71 GB", "optimiser's moments 464 MB", "optimiser's moments 58.0 MB"];
            let line = text.lines().find(|line| line.contains(" a GPU: ")).unwrap();
            assert!(line.contains(wanted[[1, 8, 64].iter().position(|one| *one == ranks).unwrap()]), "{line}");
        }
    }
    // Of the lower layers three have more factors than parameters: 256 x (56x56x48 + 28x28x48) are 48 million for 16 of layer 1, say.
    let (text, json) = checked("imagenet_dtp", 8, &[]);
    assert!(text.contains("of which each updates 1/8 of every layer: activities for 9 maps, gradients for 5"), "{text}");
    assert!(
        text.contains("(activities where 256 samples x (inputs + outputs of a layer) are no more numbers than its parameters)"),
        "{text}"
    );
    let ways = json["exchange_between_gpus"].as_object().unwrap();
    let gradients: BTreeSet<&str> = ways.iter().filter(|(_, way)| *way == "gradients").map(|(map, _)| map.as_str()).collect();
    let lower = ["layers.0.weight", "layers.1.weight", "layers.3.weight", "layers.1.inverse.weight", "layers.3.inverse.weight"];
    assert_eq!(gradients, lower.into());
    assert!(!checked("imagenet_dtp", 8, &["parallel.exchange=activities"]).0.contains("activities where"));
}

#[test]
fn check_passes_on_all_of_them() {
    let beyond = names_in("beyond").into_iter().map(|name| (format!("beyond/{name}"), name));
    for (file, name) in names().into_iter().map(|name| (name.clone(), name)).chain(beyond) {
        let ([height, width, channels], classes) = image(&name);
        for output in [&["--json"][..], &[]] {
            let (input, classes) = (format!("{height}x{width}x{channels}"), classes.to_string());
            let file = path(&file);
            let words = ["check", file.to_str().unwrap(), "--input", &input, "--classes", &classes, "--ranks", "8"];
            let check = Check::try_parse_from(words.iter().chain(output)).unwrap_or_else(|error| panic!("{name}: {error}"));
            let text = check::describe(&check.args).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(text.contains(&name), "{text}");
        }
    }
}
