//! What a plan must know of the data: the image that the network sees, the classes, and how many samples there are.

/// Facts about the data of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataFacts {
    /// [height, width, channels] of the image as the network sees it, after cropping.
    pub input: [usize; 3],
    pub classes: usize,
    /// Training samples, those set apart for validation included; none where no data was looked at.
    pub train: Option<usize>,
    /// Test samples, where the configuration names a test set.
    pub test: Option<usize>,
}

impl DataFacts {
    /// Data of which only the shape is known.
    pub fn of_shape(input: [usize; 3], classes: usize) -> DataFacts {
        DataFacts { input, classes, train: None, test: None }
    }
}
