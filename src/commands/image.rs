//! Describing images on the command line, for commands that run without data.

use std::str::FromStr;

use anyhow::Result;

use crate::config::{Config, Output};
use crate::exit::Exit;
use crate::plan::DataFacts;
use crate::text::shell_word;

/// `--input HxWxC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageShape(pub [usize; 3]);

impl FromStr for ImageShape {
    type Err = String;

    fn from_str(text: &str) -> Result<ImageShape, String> {
        let sides: Vec<usize> = text.split('x').map_while(|side| side.parse().ok().filter(|side| (1..=65_535).contains(side))).collect();
        match (sides.as_slice(), text.matches('x').count()) {
            (&[height, width, channels], 2) => Ok(ImageShape([height, width, channels])),
            _ => Err("expected height x width x channels, each from 1 to 65535, such as 28x28x1".to_owned()),
        }
    }
}

impl ImageShape {
    /// Facts about made-up data of this shape, which is what the network sees: what `data.crop` says, where it is set.
    /// A softmax output needs `classes`.
    pub fn facts(self, config: &Config, classes: Option<usize>) -> Result<DataFacts> {
        let [height, width, channels] = self.0;
        if let Some([cut_height, cut_width]) = config.data.crop.filter(|crop| *crop != [height, width]) {
            return Err(Exit::Usage.error(format!(
                "--input {height}x{width}x{channels}: the network sees what data.crop = [{cut_height}, {cut_width}] cuts; \
                 use --input {cut_height}x{cut_width}x{channels}, or --set {}",
                shell_word(&format!("data.crop=[{height},{width}]"))
            )));
        }
        let classes = match (config.network.output, classes) {
            (Output::Softmax, None) => return Err(Exit::Usage.error("--classes is needed with --input: the network classifies")),
            (_, classes) => classes.unwrap_or(1),
        };
        Ok(DataFacts::of_shape(self.0, classes))
    }
}

/// Parses `--classes`.
pub fn parse_classes(text: &str) -> Result<usize, String> {
    let classes = text.parse().ok().filter(|classes| (1..=1_000_000).contains(classes));
    classes.ok_or_else(|| "expected a whole number from 1 to 1000000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_strictly() {
        assert_eq!("28x30x1".parse(), Ok(ImageShape([28, 30, 1])));
        for text in ["", "28", "28x28", "28x28x0", "28x28x1x1", "28x28x", "ax28x1", "28x-1x1", "70000x1x1", "28X28X1"] {
            assert!(text.parse::<ImageShape>().is_err(), "{text}");
        }
    }
}
