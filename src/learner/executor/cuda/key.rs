//! What a part of a step is, which is captured as a graph, or as several.

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// A rule's step, by the models that it trains, and how often the inverses have learned from the batch before: a graph has the noise of
    /// one.
    Learning(bool, bool, usize),
    Updates(bool, bool),
    /// A forward pass on so many samples.
    Forward(usize),
}

impl Key {
    pub fn name(self) -> String {
        let of = |forward, inverse| match (forward, inverse) {
            (true, true) => "both models",
            (true, false) => "the forward model",
            _ => "the inverse model",
        };
        match self {
            Key::Learning(forward, inverse, _) => format!("a step of {}", of(forward, inverse)),
            Key::Updates(forward, inverse) => format!("the updates of {}", of(forward, inverse)),
            Key::Forward(samples) => format!("a forward pass on {samples} samples"),
        }
    }
}
