//! What is measured of each sample of a batch. How many measures there are, what files call them, and of which samples a mean is made, all
//! follow from one table.

/// A measure, by sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Loss,
    /// 1 where the label is not the first choice.
    Top1Error,
    /// 1 where the label is not among the first five.
    Top5Error,
    /// Sum over layers.
    InverseLoss,
}

/// The samples that a measure has a meaning for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    All,
    /// Where labels are predicted.
    Classified,
    /// Those that trained an inverse.
    TrainedInverse,
}

/// In the order of [`Measure`], which is that of the sums in a checkpoint.
const TABLE: [(Measure, &str, Of); 4] = [
    (Measure::Loss, "loss", Of::All),
    (Measure::Top1Error, "top1_error", Of::Classified),
    (Measure::Top5Error, "top5_error", Of::Classified),
    (Measure::InverseLoss, "inverse_loss", Of::TrainedInverse),
];

impl Measure {
    pub const COUNT: usize = TABLE.len();

    pub const ALL: [Measure; Measure::COUNT] = {
        let mut all = [Measure::Loss; Measure::COUNT];
        let mut at = 0;
        while at < all.len() {
            assert!(TABLE[at].0 as usize == at, "the table is in order");
            all[at] = TABLE[at].0;
            at += 1;
        }
        all
    };

    /// Its key in files.
    pub const fn key(self) -> &'static str {
        TABLE[self as usize].1
    }

    pub const fn of(self) -> Of {
        TABLE[self as usize].2
    }
}
