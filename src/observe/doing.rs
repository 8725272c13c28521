//! Names for what a rank can be doing.

/// What a rank does; the order of [`KINDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Doing {
    Starting,
    BetweenSteps,
    Step,
    Load,
    Input,
    Forward,
    Inverse,
    Transpose,
    Feedback,
    Noise,
    Elementwise,
    Output,
    UpdateForward,
    UpdateInverse,
    Barrier,
    AllGather,
    Gather,
    ReduceScatter,
    Broadcast,
    SharedMemory,
    Device,
    Evaluation,
    Checkpoint,
    Ending,
    FactorsTransfer,
    GradientTransfer,
    ParametersTransfer,
}

/// Rows of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    Step,
    Load,
    Compute,
    Exchange,
    Update,
    Between,
    Background,
}

impl Row {
    pub const ALL: [(Row, &str); 7] = [
        (Row::Step, "step"),
        (Row::Load, "load"),
        (Row::Compute, "compute"),
        (Row::Exchange, "exchange"),
        (Row::Update, "update"),
        (Row::Between, "between steps"),
        (Row::Background, "exchange (background)"),
    ];
}

/// Row of a trace, name for people, and what a profile calls it where it is a part of a step that has a floor.
const KINDS: [(Doing, Row, &str, Option<&str>); 27] = [
    (Doing::Starting, Row::Between, "starting", None),
    (Doing::BetweenSteps, Row::Between, "between steps", None),
    (Doing::Step, Row::Step, "step", None),
    (Doing::Load, Row::Load, "waiting for data", None),
    (Doing::Input, Row::Compute, "input", Some("load")),
    (Doing::Forward, Row::Compute, "forward", Some("forward")),
    (Doing::Inverse, Row::Compute, "inverse", Some("inverse")),
    (Doing::Transpose, Row::Compute, "transpose", Some("transpose")),
    (Doing::Feedback, Row::Compute, "feedback", Some("feedback")),
    (Doing::Noise, Row::Compute, "noise", Some("noise")),
    (Doing::Elementwise, Row::Compute, "elementwise", Some("elementwise")),
    (Doing::Output, Row::Compute, "output and loss", Some("output")),
    (Doing::UpdateForward, Row::Update, "update", Some("update_forward")),
    (Doing::UpdateInverse, Row::Update, "update", Some("update_inverse")),
    (Doing::Barrier, Row::Exchange, "barrier", None),
    (Doing::AllGather, Row::Exchange, "all-gather", None),
    (Doing::Gather, Row::Exchange, "gather", None),
    (Doing::ReduceScatter, Row::Exchange, "reduce-scatter", None),
    (Doing::Broadcast, Row::Exchange, "broadcast", None),
    (Doing::SharedMemory, Row::Exchange, "allocation of shared memory", None),
    (Doing::Device, Row::Exchange, "exchange on the device", Some("exchange")),
    (Doing::Evaluation, Row::Between, "evaluation", None),
    (Doing::Checkpoint, Row::Between, "checkpoint", None),
    (Doing::Ending, Row::Between, "ending", None),
    (Doing::FactorsTransfer, Row::Background, "factors", None),
    (Doing::GradientTransfer, Row::Background, "gradient", None),
    (Doing::ParametersTransfer, Row::Background, "new parameters", None),
];

impl Doing {
    pub const COUNT: usize = KINDS.len();

    pub fn all() -> impl Iterator<Item = Doing> {
        KINDS.iter().map(|(doing, ..)| *doing)
    }

    /// What a profile calls it.
    pub fn phase(self) -> Option<&'static str> {
        KINDS[self as usize].3
    }

    /// What the number stands for; `BetweenSteps` where it stands for nothing.
    pub fn of(number: u8) -> Doing {
        KINDS.get(usize::from(number)).map_or(Doing::BetweenSteps, |(doing, ..)| *doing)
    }

    pub fn name(self) -> &'static str {
        KINDS[self as usize].2
    }

    pub fn row(self) -> Row {
        KINDS[self as usize].1
    }

    /// Whether the other ranks must do the same for this one to go on.
    pub fn is_collective(self) -> bool {
        self.row() == Row::Exchange
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_in_order() {
        for (number, (doing, ..)) in KINDS.iter().enumerate() {
            assert_eq!((*doing as usize, Doing::of(number as u8)), (number, *doing));
        }
        assert!(Doing::Barrier.is_collective() && !Doing::UpdateForward.is_collective());
    }
}
