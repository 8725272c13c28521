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
    Update,
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

const KINDS: [(Doing, Row, &str); 26] = [
    (Doing::Starting, Row::Between, "starting"),
    (Doing::BetweenSteps, Row::Between, "between steps"),
    (Doing::Step, Row::Step, "step"),
    (Doing::Load, Row::Load, "waiting for data"),
    (Doing::Input, Row::Compute, "input"),
    (Doing::Forward, Row::Compute, "forward"),
    (Doing::Inverse, Row::Compute, "inverse"),
    (Doing::Transpose, Row::Compute, "transpose"),
    (Doing::Feedback, Row::Compute, "feedback"),
    (Doing::Noise, Row::Compute, "noise"),
    (Doing::Elementwise, Row::Compute, "elementwise"),
    (Doing::Output, Row::Compute, "output and loss"),
    (Doing::Update, Row::Update, "update"),
    (Doing::Barrier, Row::Exchange, "barrier"),
    (Doing::AllGather, Row::Exchange, "all-gather"),
    (Doing::Gather, Row::Exchange, "gather"),
    (Doing::ReduceScatter, Row::Exchange, "reduce-scatter"),
    (Doing::Broadcast, Row::Exchange, "broadcast"),
    (Doing::SharedMemory, Row::Exchange, "allocation of shared memory"),
    (Doing::Device, Row::Exchange, "exchange on the device"),
    (Doing::Evaluation, Row::Between, "evaluation"),
    (Doing::Checkpoint, Row::Between, "checkpoint"),
    (Doing::Ending, Row::Between, "ending"),
    (Doing::FactorsTransfer, Row::Background, "factors"),
    (Doing::GradientTransfer, Row::Background, "gradient"),
    (Doing::ParametersTransfer, Row::Background, "new parameters"),
];

impl Doing {
    /// What the number stands for; `BetweenSteps` where it stands for nothing.
    pub fn of(number: u8) -> Doing {
        KINDS.get(usize::from(number)).map_or(Doing::BetweenSteps, |(doing, _, _)| *doing)
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
        for (number, (doing, _, _)) in KINDS.iter().enumerate() {
            assert_eq!((*doing as usize, Doing::of(number as u8)), (number, *doing));
        }
        assert!(Doing::Barrier.is_collective() && !Doing::Update.is_collective());
    }
}
