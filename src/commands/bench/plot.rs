//! The drawing of `bench scaling`: speeds over ranks, both logarithmic, so that the ideal is a straight line.

use std::fmt::Write;

/// A number of ranks and its samples a second.
pub struct Mark {
    pub ranks: usize,
    pub speed: f64,
    /// Ranks had to share what each should have had.
    pub shared: bool,
}

/// Points that a line joins.
pub struct Series {
    pub name: String,
    pub points: Vec<Mark>,
}

const WIDTH: f64 = 840.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 530.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 360.0;
/// Blue and orange, which colour-blind readers tell apart; markers differ too.
const COLORS: [&str; 2] = ["#0072b2", "#d55e00"];

struct Scale {
    ranks: (f64, f64),
    speed: (f64, f64),
}

impl Scale {
    fn of(series: &[Series]) -> Scale {
        let points = || series.iter().flat_map(|series| &series.points);
        let ranks = || points().map(|point| point.ranks as f64);
        let (least, most) = (ranks().fold(f64::INFINITY, f64::min), ranks().fold(0.0, f64::max));
        let ideal = series.iter().filter_map(|series| series.points.first()).map(|first| first.speed * most / first.ranks as f64);
        let speeds = || points().map(|point| point.speed);
        let (slowest, fastest) = (speeds().fold(f64::INFINITY, f64::min), speeds().chain(ideal).fold(0.0, f64::max));
        Scale { ranks: (least / 1.15, most * 1.15), speed: (slowest / 1.3, fastest * 1.2) }
    }

    fn x(&self, ranks: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (ranks / self.ranks.0).ln() / (self.ranks.1 / self.ranks.0).ln()
    }

    fn y(&self, speed: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * (speed / self.speed.0).ln() / (self.speed.1 / self.speed.0).ln()
    }

    /// 1, 2 and 5 times powers of ten, as far as they are in sight.
    fn speeds(&self) -> Vec<f64> {
        let lowest = self.speed.0.log10().floor() as i32;
        let highest = self.speed.1.log10().ceil() as i32;
        let all = (lowest..=highest).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)));
        all.filter(|speed| (self.speed.0..=self.speed.1).contains(speed)).collect()
    }
}

/// An SVG document.
pub fn speeds(title: &str, series: &[Series]) -> String {
    let scale = Scale::of(series);
    let mut out = String::new();
    let mut put = |text: std::fmt::Arguments| writeln!(out, "{text}").expect("text can be written to a string");
    put(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
    ));
    put(format_args!("<text x=\"{LEFT}\" y=\"28\" font-size=\"15\" font-weight=\"bold\">{}</text>", escaped(title)));
    for speed in scale.speeds() {
        let y = scale.y(speed);
        put(format_args!("<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>"));
        put(format_args!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", LEFT - 8.0, y + 4.5, short(speed)));
    }
    let mut ranks: Vec<usize> = series.iter().flat_map(|series| series.points.iter().map(|point| point.ranks)).collect();
    ranks.sort_unstable();
    ranks.dedup();
    for ranks in ranks {
        let x = scale.x(ranks as f64);
        put(format_args!("<line x1=\"{x:.1}\" y1=\"{BOTTOM}\" x2=\"{x:.1}\" y2=\"{}\" stroke=\"#222\"/>", BOTTOM + 5.0));
        put(format_args!("<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{ranks}</text>", BOTTOM + 20.0));
    }
    put(format_args!("<path d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\" fill=\"none\" stroke=\"#222\"/>"));
    let middle = (LEFT + RIGHT) / 2.0;
    put(format_args!("<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">ranks</text>", BOTTOM + 42.0));
    let middle = (TOP + BOTTOM) / 2.0;
    put(format_args!("<text transform=\"translate(20 {middle}) rotate(-90)\" text-anchor=\"middle\">samples per second</text>"));

    // Series that begin alike have one ideal.
    for series in series {
        let (Some(first), Some(last)) = (series.points.first(), series.points.last()) else { continue };
        let ideal = |ranks: usize| (scale.x(ranks as f64), scale.y(first.speed * ranks as f64 / first.ranks as f64));
        let ((x1, y1), (x2, y2)) = (ideal(first.ranks), ideal(last.ranks));
        put(format_args!("<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"#888\" stroke-dasharray=\"6 4\" fill=\"none\"/>"));
    }
    for (number, series) in series.iter().enumerate() {
        let color = COLORS[number % COLORS.len()];
        let path: Vec<String> =
            series.points.iter().map(|point| format!("{:.1} {:.1}", scale.x(point.ranks as f64), scale.y(point.speed))).collect();
        put(format_args!("<path d=\"M{}\" stroke=\"{color}\" stroke-width=\"2\" fill=\"none\"/>", path.join("L")));
        for point in &series.points {
            put(format_args!("{}", mark(number, scale.x(point.ranks as f64), scale.y(point.speed), point.shared)));
        }
    }

    let legend = RIGHT + 28.0;
    let mut y = TOP + 12.0;
    let mut entry = |symbol: String, text: &str| {
        put(format_args!("{symbol}<text x=\"{}\" y=\"{:.1}\">{}</text>", legend + 38.0, y + 4.5, escaped(text)));
        y += 24.0;
        y
    };
    let mut at = TOP + 12.0;
    let line = |color: &str, dashes: &str, y: f64| {
        format!("<path d=\"M{legend} {y:.1}h28\" stroke=\"{color}\" stroke-width=\"2\"{dashes} fill=\"none\"/>")
    };
    for (number, series) in series.iter().enumerate() {
        let symbol = line(COLORS[number % COLORS.len()], "", at) + &mark(number, legend + 14.0, at, false);
        at = entry(symbol, &series.name);
    }
    at = entry(line("#888", " stroke-dasharray=\"6 4\"", at), "ideal");
    if series.iter().any(|series| series.points.iter().any(|point| point.shared)) {
        entry(mark(0, legend + 14.0, at, true), "hollow: ranks share CPUs or GPUs");
    }
    out.push_str("</svg>\n");
    out
}

/// A circle or a square; hollow where ranks shared.
fn mark(series: usize, x: f64, y: f64, hollow: bool) -> String {
    let color = COLORS[series % COLORS.len()];
    let fill = if hollow { "white" } else { color };
    let style = format!("fill=\"{fill}\" stroke=\"{color}\" stroke-width=\"2\"");
    match series % 2 {
        0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" {style}/>"),
        _ => format!("<rect x=\"{:.1}\" y=\"{:.1}\" width=\"9\" height=\"9\" {style}/>", x - 4.5, y - 4.5),
    }
}

fn short(speed: f64) -> String {
    match speed {
        1e6.. => format!("{}M", speed / 1e6),
        1e3.. => format!("{}k", speed / 1e3),
        _ => format!("{speed}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_legend_is_beside_the_data_and_nothing_leaves_the_drawing() {
        let point = |ranks, speed, shared| Mark { ranks, speed, shared };
        let series = [
            Series { name: "weak".into(), points: vec![point(1, 1000.0, false), point(2, 1900.0, false), point(4, 2000.0, true)] },
            Series { name: "a < b".into(), points: vec![point(1, 1000.0, false), point(2, 1500.0, false)] },
        ];
        let svg = speeds("title & more", &series);
        assert!(svg.contains("title &amp; more") && svg.contains("a &lt; b") && svg.contains("hollow"));
        for attribute in [" cx=\"", " x1=\"", " x=\""] {
            for piece in svg.split(attribute).skip(1) {
                let x: f64 = piece.split('"').next().unwrap().parse().unwrap();
                assert!((0.0..=WIDTH).contains(&x), "{attribute}{x}");
            }
        }
        let scale = Scale::of(&series);
        assert!(scale.x(4.0) < RIGHT && scale.y(4000.0) > TOP && scale.y(1000.0) < BOTTOM);
        // An ideal line is straight: equal factors are equal distances.
        let step = scale.x(2.0) - scale.x(1.0);
        assert!((scale.x(4.0) - scale.x(2.0) - step).abs() < 1e-9);
        assert_eq!(scale.speeds(), [1000.0, 2000.0]);
        assert_eq!([short(500.0), short(2e3), short(5e6)], ["500", "2k", "5M"]);
    }
}
