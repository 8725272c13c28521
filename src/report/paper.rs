//! The paper's figures, and which of its cells a configuration belongs to.
//!
//! Bartunov et al. 2018: Table 1 (errors on MNIST and CIFAR-10, "the best errors achieved in 500 epochs"), Table 2 (ImageNet) and Table 3
//! (the networks). Figures are in per cent, as printed. Everything else in the report is measured.

use super::variant::variant;
use crate::config::{Config, Layer, Nonlinearity, Output, Rule, Schedule};

/// Epochs that the paper's figures are the best of.
pub const EPOCHS: u64 = 500;
/// Auxiliary outputs of the paper's AO-SDTP (Section 3.2).
pub const AUXILIARY_UNITS: usize = 512;

/// A data set of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DataSet {
    Mnist,
    Cifar10,
    ImageNet,
}

impl DataSet {
    pub fn name(self) -> &'static str {
        match self {
            DataSet::Mnist => "MNIST",
            DataSet::Cifar10 => "CIFAR-10",
            DataSet::ImageNet => "ImageNet",
        }
    }

    /// Channels and classes of its images.
    pub fn shape(self) -> (usize, usize) {
        match self {
            DataSet::Mnist => (1, 10),
            DataSet::Cifar10 => (3, 10),
            DataSet::ImageNet => (3, 1000),
        }
    }

    /// Height and width of its images, where they are all of one size.
    pub fn sides(self) -> Option<[usize; 2]> {
        match self {
            DataSet::Mnist => Some([28, 28]),
            DataSet::Cifar10 => Some([32, 32]),
            DataSet::ImageNet => None,
        }
    }

    /// Images that there are to train on.
    pub fn train_samples(self) -> usize {
        match self {
            DataSet::Mnist => 60_000,
            DataSet::Cifar10 => 50_000,
            DataSet::ImageNet => 1_281_167,
        }
    }

    /// The table that has its results, and the figure with its learning curves.
    pub fn place(self) -> (&'static str, &'static str) {
        match self {
            DataSet::Mnist => ("Table 1 (a)", "Figure 8"),
            DataSet::Cifar10 => ("Table 1 (b)", "Figure 2"),
            DataSet::ImageNet => ("Table 2", "Figure 3"),
        }
    }
}

/// A network of Table 3, in the order of reports. Convolutional ones are the locally connected ones with shared weights; the paper lists
/// them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Network {
    FullyConnected,
    /// MNIST's as another extraction of the paper's text has it: with five hidden layers, where the first has six.
    FiveLayers,
    LocallyConnected,
}

impl Network {
    pub const ALL: [Network; 3] = [Network::FullyConnected, Network::FiveLayers, Network::LocallyConnected];

    pub fn name(self) -> &'static str {
        match self {
            Network::FullyConnected => "fully connected",
            Network::FiveLayers => "fully connected, five layers",
            Network::LocallyConnected => "locally connected",
        }
    }

    /// Hidden layers of Table 3; the paper has no fully connected network for ImageNet.
    fn layers(self, data: DataSet) -> &'static [Layer] {
        match (data, self) {
            (DataSet::Mnist, Network::FullyConnected) => const { &[dense(256); 6] },
            (DataSet::Mnist, Network::FiveLayers) => const { &[dense(256); 5] },
            (DataSet::Mnist, Network::LocallyConnected) => const { &[local(3, 32, 2), local(3, 64, 2), dense(1024)] },
            (DataSet::Cifar10, Network::FullyConnected) => const { &[dense(1024); 3] },
            (DataSet::Cifar10, Network::LocallyConnected) => const { &[local(5, 64, 2), local(5, 128, 2), local(3, 256, 1), dense(1024)] },
            (DataSet::ImageNet, Network::FullyConnected) | (_, Network::FiveLayers) => &[],
            (DataSet::ImageNet, Network::LocallyConnected) => {
                const {
                    &[
                        local(9, 48, 4),
                        local(3, 48, 2),
                        local(5, 96, 1),
                        local(3, 96, 2),
                        local(3, 192, 1),
                        local(3, 192, 2),
                        local(3, 384, 1),
                    ]
                }
            }
        }
    }

    /// The network of Table 3 that these hidden layers are, on whatever data they are trained.
    pub fn anywhere(layers: &[Layer]) -> Option<(DataSet, Network)> {
        [DataSet::Mnist, DataSet::Cifar10, DataSet::ImageNet].into_iter().find_map(|data| Some((data, Network::of(data, layers)?)))
    }

    /// The network of Table 3 that these hidden layers are, local or convolutional.
    pub fn of(data: DataSet, layers: &[Layer]) -> Option<Network> {
        let unshared: Vec<Layer> = layers
            .iter()
            .map(|layer| match *layer {
                Layer::Conv { kernel, channels, stride, nonlinearity, options } => {
                    Layer::Local { kernel, channels, stride, nonlinearity, options }
                }
                layer => layer,
            })
            .collect();
        Network::ALL.into_iter().find(|network| !layers.is_empty() && network.layers(data) == unshared)
    }
}

const fn dense(units: usize) -> Layer {
    Layer::dense(units, Nonlinearity::Tanh)
}

const fn local(kernel: usize, channels: usize, stride: usize) -> Layer {
    Layer::local(kernel, channels, stride, Nonlinearity::Tanh)
}

/// A row of the paper's tables: how the network learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    pub rule: Rule,
    /// Meaningful where the rule trains inverses.
    pub schedule: Schedule,
    /// Whether it is the network with shared weights.
    pub convolutional: bool,
}

impl Method {
    pub fn of(config: &Config) -> Method {
        let convolutional = config.network.layers.iter().any(|layer| matches!(layer, Layer::Conv { .. }));
        Method { rule: config.learning.rule, schedule: config.schedule(), convolutional }
    }

    pub fn name(self) -> String {
        let rule = self.rule.name().to_uppercase().replace('_', "-");
        match self.schedule {
            _ if self.convolutional => format!("{rule} ConvNet"),
            _ if !self.rule.has_inverses() => rule,
            Schedule::Parallel => format!("{rule}, parallel"),
            Schedule::Alternating => format!("{rule}, alternating"),
        }
    }

    /// Its place in the legends of Figures 2 and 8, which have BP before FA.
    pub fn legend_order(self) -> usize {
        let of_feedback = [Rule::FA, Rule::DFA].contains(&self.rule);
        if of_feedback {
            self.order() + 2
        } else if self.rule == Rule::BP && self.order() < METHODS.len() {
            self.order() - 2
        } else {
            self.order()
        }
    }

    /// Its place in tables: the paper's rows, then what the paper has not.
    pub fn order(self) -> usize {
        METHODS.iter().position(|method| *method == self).unwrap_or(METHODS.len())
    }
}

const fn method(rule: Rule, schedule: Schedule) -> Method {
    Method { rule, schedule, convolutional: false }
}

/// The rows of Table 1, and vanilla target propagation, which the paper describes and gives no figures for.
pub const METHODS: [Method; 12] = [
    method(Rule::DTP, Schedule::Parallel),
    method(Rule::DTP, Schedule::Alternating),
    method(Rule::SDTP, Schedule::Parallel),
    method(Rule::SDTP, Schedule::Alternating),
    method(Rule::AO_SDTP, Schedule::Parallel),
    method(Rule::AO_SDTP, Schedule::Alternating),
    method(Rule::FA, Schedule::Parallel),
    method(Rule::DFA, Schedule::Parallel),
    method(Rule::BP, Schedule::Parallel),
    Method { rule: Rule::BP, schedule: Schedule::Parallel, convolutional: true },
    method(Rule::TP, Schedule::Parallel),
    method(Rule::TP, Schedule::Alternating),
];

/// Train and test error of Table 1: MNIST fully and locally connected, CIFAR-10 fully and locally connected. Rows as [`METHODS`].
type Row = [Option<[f64; 2]>; 4];
const TABLE_1: [Row; 10] = [
    [Some([0.44, 2.86]), Some([0.00, 1.52]), Some([59.45, 59.14]), Some([28.69, 39.47])],
    [Some([0.00, 1.83]), Some([0.00, 1.46]), Some([30.41, 42.32]), Some([28.54, 39.47])],
    [Some([1.14, 3.52]), Some([0.00, 1.98]), Some([51.48, 55.32]), Some([43.00, 46.63])],
    [Some([0.00, 2.28]), Some([0.00, 1.90]), Some([48.65, 54.27]), Some([40.40, 45.66])],
    [Some([0.96, 2.93]), Some([0.00, 1.92]), Some([4.28, 47.11]), Some([32.67, 40.05])],
    [Some([0.00, 1.86]), Some([0.00, 1.91]), Some([0.00, 45.40]), Some([34.11, 40.21])],
    [Some([0.00, 1.85]), Some([0.00, 1.26]), Some([25.62, 41.97]), Some([17.46, 37.44])],
    [Some([0.85, 2.75]), Some([0.23, 2.05]), Some([33.35, 47.80]), Some([32.74, 44.41])],
    [Some([0.00, 1.48]), Some([0.00, 1.17]), Some([28.97, 41.32]), Some([0.83, 32.41])],
    [None, Some([0.00, 1.01]), None, Some([1.39, 31.87])],
];

/// Top-1 and top-5 test error of Table 2, locally connected. The rows' names are those of Table 5's columns for ImageNet.
const TABLE_2: [(usize, [f64; 2]); 6] =
    [(0, [98.34, 94.56]), (1, [99.36, 97.28]), (2, [99.28, 97.15]), (6, [93.08, 82.54]), (8, [71.43, 49.07]), (9, [63.93, 40.17])];

/// A cell of the paper's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub data: DataSet,
    pub network: Network,
    pub method: Method,
}

impl Cell {
    /// The cell that a run of `config` on `data` belongs to, whether or not the paper has a figure for it. None where the network is not
    /// Table 3's, or the rule is a variant.
    pub fn of(config: &Config, data: DataSet) -> Option<Cell> {
        let classifies = config.network.output == Output::Softmax;
        if !classifies || config.learning.rule == Rule::TP || !variant(config).is_empty() {
            return None;
        }
        Some(Cell { data, network: Network::of(data, &config.network.layers)?, method: Method::of(config) })
    }

    /// The configuration that comes with the project for it.
    pub fn configuration(self) -> String {
        let Method { rule, schedule, convolutional } = self.method;
        let data = match self.data {
            DataSet::Mnist => "mnist",
            DataSet::Cifar10 => "cifar",
            DataSet::ImageNet => "imagenet",
        };
        let network = match (convolutional, self.data, self.network) {
            (true, ..) => "_conv",
            (false, DataSet::ImageNet, _) => "",
            (false, _, Network::FullyConnected) => "_fc",
            (false, _, Network::FiveLayers) => "_fc5",
            (false, _, Network::LocallyConnected) => "_lc",
        };
        let schedule = match schedule {
            _ if !rule.has_inverses() => "",
            Schedule::Alternating => "_alternating",
            Schedule::Parallel if self.data == DataSet::ImageNet => "",
            Schedule::Parallel => "_parallel",
        };
        format!("{data}{network}_{}{schedule}.toml", rule.name())
    }

    /// What the paper has there, in per cent: train and test error, for ImageNet top-1 and top-5 test error. Both readings of one network have
    /// one figure.
    pub fn figures(self) -> Option<[f64; 2]> {
        let row = self.method.order();
        let column = usize::from(self.network == Network::LocallyConnected);
        match self.data {
            DataSet::ImageNet => TABLE_2.iter().find(|(of, _)| column == 1 && *of == row).map(|(_, figures)| *figures),
            data => TABLE_1.get(row)?[2 * usize::from(data == DataSet::Cifar10) + column],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn figures_are_those_that_the_configurations_quote() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        let mut cells = 0;
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            let text = std::fs::read_to_string(&path).unwrap();
            let data = match text.lines().next().unwrap() {
                line if line.starts_with("# Table 1(a): MNIST") => DataSet::Mnist,
                line if line.starts_with("# Table 1(b): CIFAR") => DataSet::Cifar10,
                line if line.starts_with("# Table 2: ImageNet") => DataSet::ImageNet,
                _ => continue,
            };
            let name = path.file_stem().unwrap().to_str().unwrap();
            let cell = Cell::of(&Config::load(&path, &[]).unwrap(), data).unwrap_or_else(|| panic!("{name} is in no table"));
            let first = text.lines().next().unwrap();
            let quoted: Vec<f64> =
                first.split_whitespace().filter_map(|word| word.trim_end_matches('.').strip_suffix('%')?.parse().ok()).collect();
            assert_eq!(cell.figures().map_or(vec![], Vec::from), quoted, "{name}");
            assert_eq!(cell.configuration(), format!("{name}.toml"));
            assert!(first.contains(&format!(", {}:", cell.method.name())), "{name} is {}", cell.method.name());
            let network = if cell.method.convolutional { "convolutional" } else { cell.network.name() };
            assert!(first.contains(network), "{name} is {network}");
            cells += usize::from(cell.figures().is_some());
        }
        assert_eq!(cells, 38 + 9 + 6, "Table 1, MNIST's fully connected network in both readings, and Table 2");
    }

    #[test]
    fn legends_have_the_papers_order() {
        let mut methods: Vec<Method> = METHODS[..10].to_vec();
        methods.sort_by_key(|method| method.legend_order());
        let names: Vec<String> = methods[6..].iter().map(|method| method.name()).collect();
        assert_eq!(names, ["BP", "BP ConvNet", "FA", "DFA"]);
    }

    #[test]
    fn variants_are_in_no_cell() {
        let cell = |name: &str, set: &str| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("configs/{name}.toml"));
            Cell::of(&Config::load(&path, &[set.to_owned()]).unwrap(), DataSet::Mnist)
        };
        const AO_SDTP: &str = "mnist_fc_ao_sdtp_parallel";
        const TRANSPOSED: &str = "learning.feedback_weights=transposed";
        assert_eq!(cell(AO_SDTP, "learning.sigma=0.5").unwrap().figures(), Some([0.96, 2.93]), "hyperparameters may differ");
        for set in ["learning.auxiliary_units=64", "learning.hybrid=0.5", "learning.inverse_regularizer=0.5", "network.output=linear"] {
            assert_eq!(cell(AO_SDTP, set), None, "{set}");
        }
        assert_eq!(cell("mnist_fc_fa", TRANSPOSED), None);
        assert_eq!(cell("mnist_fc_fa", "learning.feedback_gain=0.5"), None);
        assert_eq!(cell(AO_SDTP, "learning.inverse_weights=transposed"), None);
        for set in ["learning.inverse_fields=dense", "learning.inverse_growth=2"] {
            assert_eq!(cell("mnist_lc_dtp_parallel", set), None, "{set}");
            assert!(cell("mnist_fc_dtp_parallel", set).is_some(), "dense layers have dense inverses: {set}");
        }
        for (name, set) in [(AO_SDTP, TRANSPOSED), ("mnist_fc_bp", TRANSPOSED), ("mnist_fc_bp", "learning.hybrid=0.5")] {
            assert!(cell(name, set).is_some(), "{name} does not use {set}");
        }
    }
}
