//! A value that several seeds gave: mean and sample standard deviation.

/// Mean of some values, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub mean: f64,
    /// Sample standard deviation (with n - 1); none of a single value.
    pub deviation: Option<f64>,
}

impl Spread {
    /// None of no values.
    pub fn of(values: &[f64]) -> Option<Spread> {
        if values.is_empty() {
            return None;
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Some(Spread { mean, deviation: (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()) })
    }

    /// A fraction as per cent: "2.42", "2.42 ± 0.05".
    pub fn percent(self) -> String {
        self.text(|value| format!("{:.2}", 100.0 * value))
    }

    /// A loss, with four figures.
    pub fn loss(self) -> String {
        self.text(figures)
    }

    fn text(self, format: impl Fn(f64) -> String) -> String {
        match self.deviation {
            Some(deviation) => format!("{} ± {}", format(self.mean), format(deviation)),
            None => format(self.mean),
        }
    }
}

/// A number with four figures where it has decimals at all.
pub fn figures(value: f64) -> String {
    let whole_digits = if value.abs() >= 1.0 { value.abs().log10() as usize + 1 } else { 0 };
    format!("{value:.*}", 4usize.saturating_sub(whole_digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviation_is_the_samples() {
        // 2, 4, 4, 4, 5, 5, 7, 9: mean 5, sum of squares 32.
        let spread = Spread::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert_eq!(spread.mean, 5.0);
        assert!((spread.deviation.unwrap() - (32.0f64 / 7.0).sqrt()).abs() < 1e-12);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn text_has_as_many_figures_as_are_worth_reading() {
        assert_eq!(Spread::of(&[0.0242]).unwrap().percent(), "2.42");
        assert_eq!(Spread::of(&[0.02, 0.04]).unwrap().percent(), "3.00 ± 1.41");
        for (value, text) in
            [(0.012345, "0.0123"), (1.2345, "1.234"), (12.345, "12.35"), (123.45, "123.5"), (12345.6, "12346"), (0.0, "0.0000")]
        {
            assert_eq!(figures(value), text);
        }
    }
}
