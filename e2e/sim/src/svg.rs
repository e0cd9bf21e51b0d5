//! SVG plot of cold starts against waste.

use crate::{
    compare::{Summary, front},
    report::Report,
};

const WIDTH: f64 = 1180.0;
const HEIGHT: f64 = 560.0;
const TOP: f64 = 90.0;
const BOTTOM: f64 = 480.0;
const HEADROOM: f64 = 24.0;

/// One of the two plots: its left and right edge, and its measure of cold starts.
#[derive(Clone, Copy)]
struct Field {
    left: f64,
    right: f64,
    name: &'static str,
    cold: fn(&Summary) -> f64,
}

const FIELDS: [Field; 2] = [
    Field { left: 85.0, right: 585.0, name: "median function", cold: |s| s.cold_ratio_p50 },
    Field { left: 665.0, right: 1155.0, name: "75th percentile of functions", cold: |s| s.cold_ratio_p75 },
];

const OURS: &str = "#0b6e4f";
const THEIRS: &str = "#b3541e";
const BOUND: &str = "#666666";

/// Appends an element on a separate line.
macro_rules! element {
    ($svg:expr, $($what:tt)*) => {{
        $svg.push_str(&format!($($what)*));
        $svg.push('\n');
    }};
}

/// Returns the plot: waste to the right on a logarithmic scale, cold starts upwards. The lower left corner is best.
pub(crate) fn plot(report: &Report) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"#222222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let setting = &report.setting;
    text(&mut svg, (FIELDS[0].left, 28.0), "start", "bold 17", "Cold starts against wasted pod time");
    let subtitle = format!(
        "{} functions, {} hours, {} trace, seed {}; lower and further left is better",
        setting.functions, setting.hours, setting.trace, setting.seed
    );
    text(&mut svg, (FIELDS[0].left, 48.0), "start", "", &subtitle);
    for field in FIELDS {
        panel(&mut svg, &report.summaries, field);
    }
    legend(&mut svg);
    svg += "</svg>\n";
    svg
}

fn panel(svg: &mut String, points: &[Summary], field: Field) {
    let scale = Scale::of(points, field);
    axes(svg, &scale);
    text(svg, (f64::midpoint(field.left, field.right), TOP - 14.0), "middle", "bold", field.name);
    // The Pareto front dominates everything above and to the right of these steps.
    let mut path = String::new();
    for point in front(points, field.cold) {
        let (x, y) = scale.place(point);
        path += &if path.is_empty() { format!("M{x:.1} {TOP} V{y:.1}") } else { format!(" H{x:.1} V{y:.1}") };
    }
    if !path.is_empty() {
        element!(
            svg,
            "<path d=\"{path} H{:.1}\" fill=\"none\" stroke=\"#8a8a8a\" stroke-width=\"1.5\" stroke-dasharray=\"6 4\"/>",
            field.right
        );
    }
    for (point, (label, anchor)) in points.iter().zip(labels(points, &scale)) {
        let (x, y) = scale.place(point);
        let colour = colour(point);
        let fill = if point.is_bound() { "#ffffff" } else { colour };
        element!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"6\" fill=\"{fill}\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
        // A name without space beside its point is connected to it by a line.
        if (label.1 - y).abs() > 30.0 {
            let end = label.1 + if label.1 > y { -12.0 } else { 4.0 };
            element!(
                svg,
                "<line x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{end:.1}\" stroke=\"{colour}\" stroke-width=\"0.8\"/>",
                label.0
            );
        }
        element!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\" font-weight=\"bold\" stroke=\"#ffffff\" \
             stroke-width=\"4\" paint-order=\"stroke\">{}</text>",
            label.0,
            label.1,
            escape(&point.policy)
        );
    }
}

fn colour(point: &Summary) -> &'static str {
    if point.ours {
        OURS
    } else if point.is_bound() {
        BOUND
    } else {
        THEIRS
    }
}

/// Maps figures to coordinates.
struct Scale {
    /// Logarithms of the minimum and maximum waste, rounded to ticks.
    waste: (f64, f64),
    most_cold: f64,
    field: Field,
}

impl Scale {
    fn of(points: &[Summary], field: Field) -> Self {
        let waste = || points.iter().map(|p| p.wasted_relative).filter(|w| *w > 0.0);
        let least = waste().fold(1.0, f64::min) * 0.8;
        let most = waste().fold(1.0, f64::max) * 1.4;
        let cold = points.iter().map(field.cold).fold(0.0, f64::max);
        Self { waste: (least.ln(), most.ln()), most_cold: ((cold * 10.0).floor() + 1.0).clamp(1.0, 10.0) / 10.0, field }
    }

    fn x(&self, waste: f64) -> f64 {
        let part = (waste.ln() - self.waste.0) / (self.waste.1 - self.waste.0);
        self.field.left + (self.field.right - self.field.left) * part.clamp(0.0, 1.0)
    }

    fn y(&self, cold: f64) -> f64 {
        // Space above the highest tick, for the names of points on it.
        BOTTOM - (BOTTOM - TOP - HEADROOM) * (cold / self.most_cold).clamp(0.0, 1.0)
    }

    fn place(&self, point: &Summary) -> (f64, f64) {
        (self.x(point.wasted_relative), self.y((self.field.cold)(point)))
    }
}

fn axes(svg: &mut String, scale: &Scale) {
    let Field { left, right, .. } = scale.field;
    let (top, bottom) = (TOP, BOTTOM);
    let line = |svg: &mut String, x1: f64, y1: f64, x2: f64, y2: f64, colour: &str| {
        element!(svg, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>");
    };
    let shown = |tick: &f64| (scale.waste.0..=scale.waste.1).contains(&tick.ln());
    let ticks: Vec<_> =
        (-4..3).flat_map(|e| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(e))).filter(shown).collect();
    let tenths = (scale.most_cold * 10.0).round() as u32;
    for tick in &ticks {
        line(svg, scale.x(*tick), top, scale.x(*tick), bottom, "#e4e4e4");
    }
    for tenth in 0..=tenths {
        let y = scale.y(f64::from(tenth) / 10.0);
        line(svg, left, y, right, y, "#e4e4e4");
    }
    line(svg, left, bottom, right, bottom, "#222222");
    line(svg, left, top, left, bottom, "#222222");
    for tick in &ticks {
        text(svg, (scale.x(*tick), bottom + 20.0), "middle", "", &format!("{tick}"));
    }
    for tenth in 0..=tenths {
        let y = scale.y(f64::from(tenth) / 10.0);
        text(svg, (left - 8.0, y + 4.5), "end", "", &format!("{} %", tenth * 10));
    }
    let middle = f64::midpoint(left, right);
    text(svg, (middle, bottom + 42.0), "middle", "", "wasted pod-seconds, over those of a keep-alive of ten minutes");
    let middle = f64::midpoint(top, bottom);
    element!(
        svg,
        "<text transform=\"translate({:.1} {middle:.1}) rotate(-90)\" text-anchor=\"middle\">\
         ratio of cold requests of a function</text>",
        left - 58.0
    );
}

fn legend(svg: &mut String) {
    let mut x = FIELDS[0].left;
    for (colour, name) in [(OURS, "Rouse"), (THEIRS, "others"), (BOUND, "lower bound: knows the future")] {
        let y = HEIGHT - 14.0;
        let fill = if colour == BOUND { "#ffffff" } else { colour };
        element!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"5\" fill=\"{fill}\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            x + 6.0,
            y - 4.5
        );
        text(svg, (x + 17.0, y), "start", "", name);
        x += 50.0 + 8.0 * name.len() as f64;
    }
    let y = HEIGHT - 18.5;
    element!(
        svg,
        "<line x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"#8a8a8a\" stroke-width=\"1.5\" \
         stroke-dasharray=\"6 4\"/>",
        x + 30.0
    );
    text(svg, (x + 37.0, HEIGHT - 14.0), "start", "", "front: none is better in both");
}

/// Returns the positions of names: to the right of each point if that is free, otherwise to the left, above or below.
fn labels(points: &[Summary], scale: &Scale) -> Vec<((f64, f64), &'static str)> {
    // Occupied rectangles: left, right, top, bottom.
    let mut taken: Vec<(f64, f64, f64, f64)> =
        points.iter().map(|p| scale.place(p)).map(|(x, y)| (x - 7.0, x + 7.0, y - 7.0, y + 7.0)).collect();
    let mut labels = Vec::new();
    for point in points {
        let (x, y) = scale.place(point);
        let wide = 8.6 * point.policy.len() as f64;
        let mut tries = vec![
            (x + 11.0, y + 4.5, "start"),
            (x - 11.0, y + 4.5, "end"),
            (x, y - 12.0, "middle"),
            (x, y + 21.0, "middle"),
        ];
        for step in 0..8 {
            let below = y + 37.0 + 18.0 * f64::from(step);
            tries.extend([(x, below, "middle"), (x + 14.0, below, "start"), (x - 14.0, below, "end")]);
        }
        let bounds = |(x, y, anchor): &(f64, f64, &str)| {
            let left = match *anchor {
                "start" => *x,
                "end" => x - wide,
                _ => x - wide / 2.0,
            };
            (left, left + wide, y - 11.0, y + 3.0)
        };
        let free = |place: &&(f64, f64, &'static str)| {
            let (left, right, top, bottom) = bounds(place);
            let inside = left > scale.field.left && right < scale.field.right + 8.0 && top > TOP && bottom < BOTTOM;
            inside && taken.iter().all(|t| right < t.0 || left > t.1 || bottom < t.2 || top > t.3)
        };
        let place = *tries.iter().find(free).unwrap_or(&tries[0]);
        taken.push(bounds(&place));
        labels.push(((place.0, place.1), place.2));
    }
    labels
}

/// `font`: CSS font weight and size, either of which may be missing.
fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, font: &str, what: &str) {
    let mut style = String::new();
    for word in font.split_whitespace() {
        style += &match word.parse::<f64>() {
            Ok(size) => format!(" font-size=\"{size}\""),
            Err(_) => format!(" font-weight=\"{word}\""),
        };
    }
    let what = escape(what);
    element!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{style}>{what}</text>");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn every_policy_has_a_point_and_a_name() {
        let report = report();
        let svg = plot(&report);
        for summary in &report.summaries {
            assert!(svg.contains(&format!(">{}</text>", summary.policy)), "{svg}");
        }
        assert_eq!(svg.matches(" r=\"6\"").count(), FIELDS.len() * report.summaries.len());
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn names_do_not_overlap() {
        let mut report = report();
        report.summaries = (0..4).map(|_| report.summaries[0].clone()).collect();
        let places = labels(&report.summaries, &Scale::of(&report.summaries, FIELDS[0]));
        for (nth, (place, _)) in places.iter().enumerate() {
            let near = |other: &(f64, f64)| (other.0 - place.0).abs() < 20.0 && (other.1 - place.1).abs() < 10.0;
            assert!(!places[..nth].iter().any(|(other, _)| near(other)), "{places:?}");
        }
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(escape("<a&b>"), "&lt;a&amp;b&gt;");
    }
}
