//! The report as one page that needs no other file: style, charts and pictures are within it.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::chart::{Chart, DARK, Entry, Rgb, on_dark};
use super::document::{Block, Content, Document, Facts, Figure, Row, Table};

const STYLE: &str = include_str!("style.css");

pub fn write(document: &Document) -> String {
    let title = escaped(&document.title);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{STYLE}{}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n<p class=\"lead\">{}</p>\n",
        dark(document),
        escaped(&document.lead)
    );
    if document.sections.len() > 1 {
        let link = |(index, title): (usize, &str)| format!("<li><a href=\"#s{index}\">{}</a></li>", escaped(title));
        let links: Vec<String> = document.sections.iter().map(|section| section.title.as_str()).enumerate().map(link).collect();
        out += &format!("<nav><ul>{}</ul></nav>\n", links.concat());
    }
    for (index, section) in document.sections.iter().enumerate() {
        out += &format!("<section id=\"s{index}\">\n<h2>{}</h2>\n", escaped(&section.title));
        for block in &section.blocks {
            out += &match block {
                Block::Text(text) => format!("<p>{}</p>\n", escaped(text)),
                Block::Table(table) => table_text(table),
                Block::Figure(figure) => figure_text(figure),
                Block::Facts(facts) => facts_text(facts),
            };
        }
        out += "</section>\n";
    }
    out + "</main>\n</body>\n</html>\n"
}

/// What the colours of charts become on a dark screen: attributes, which these rules overrule.
fn dark(document: &Document) -> String {
    let figures = document.sections.iter().flat_map(|section| &section.blocks).filter_map(|block| match block {
        Block::Figure(Figure { content: Content::Chart(chart), .. }) => Some(chart),
        _ => None,
    });
    let colours: BTreeSet<Rgb> = figures.flat_map(Chart::colours).collect();
    let rule = |colour: Rgb| {
        let dark = on_dark(colour);
        format!(".chart [fill=\"{colour}\"] {{ fill: {dark}; }} .chart [stroke=\"{colour}\"] {{ stroke: {dark}; }}\n")
    };
    let rules: String = colours.into_iter().map(rule).collect();
    format!("@media screen and (prefers-color-scheme: dark) {{\n:root {{ --paper: {DARK}; }}\n{rules}}}\n")
}

fn figure_text(figure: &Figure) -> String {
    let (title, caption) = (escaped(&figure.title), escaped(&figure.caption));
    let content = match &figure.content {
        Content::Chart(chart) => {
            let panel = |(panel, svg): (&super::chart::Panel, String)| {
                let title = if panel.title.is_empty() { String::new() } else { format!("<h4>{}</h4>\n", escaped(&panel.title)) };
                format!("<div>\n{title}{svg}\n{}</div>\n", legend(&panel.legend))
            };
            let class = if chart.panels.len() > 2 { "panels many" } else { "panels" };
            let panels: String = chart.panels_svg(&figure.title).map(panel).collect();
            format!("<div class=\"{class}\">\n{panels}</div>\n{}", legend(&chart.legend))
        }
        Content::Png(bytes, width) => {
            let image = STANDARD.encode(bytes);
            format!("<div class=\"scroll\"><img src=\"data:image/png;base64,{image}\" alt=\"{title}\" width=\"{width}\"></div>\n")
        }
    };
    format!("<figure>\n<h3>{title}</h3>\n{content}<figcaption>{caption}</figcaption>\n</figure>\n")
}

fn legend(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let entry = |entry: &Entry| format!("<li>{}<span>{}</span></li>", entry.swatch_svg(), escaped(&entry.name));
    format!("<ul class=\"legend\">{}</ul>\n", entries.iter().map(entry).collect::<String>())
}

fn facts_text(Facts { title, facts, text }: &Facts) -> String {
    let rows: String = facts.iter().map(|(name, fact)| format!("<dt>{}</dt><dd>{}</dd>\n", escaped(name), escaped(fact))).collect();
    let text = if text.is_empty() { String::new() } else { format!("<pre>{}</pre>\n", escaped(text)) };
    format!("<details><summary>{}</summary>\n<dl>\n{rows}</dl>\n{text}</details>\n", escaped(title))
}

fn table_text(table: &Table) -> String {
    let width: usize = table.columns.iter().map(|(_, columns)| columns.len()).sum();
    let mut out = String::new();
    if !table.title.is_empty() {
        // Not a caption, which a narrow screen would cut with the table.
        out += &format!("<h3>{}</h3>\n", escaped(&table.title));
    }
    out += "<div class=\"scroll\" tabindex=\"0\"><table class=\"";
    out += &format!("{}\">\n<thead>\n", table.name);
    let grouped = table.columns.iter().any(|(heading, _)| !heading.is_empty());
    if grouped {
        out += "<tr>";
        for (heading, columns) in &table.columns {
            let class = if heading.is_empty() { "" } else { " class=\"over\"" };
            out += &format!("<th scope=\"colgroup\" colspan=\"{}\"{class}>{}</th>", columns.len(), escaped(heading));
        }
        out += "</tr>\n";
    }
    // A line on the left of each group of columns makes their headings readable.
    let mut classes = Vec::new();
    for (heading, columns) in &table.columns {
        for index in 0..columns.len() {
            let kind = if classes.len() < table.text_columns { "text" } else { "number" };
            classes.push(if index == 0 && !heading.is_empty() { format!("{kind} first") } else { kind.to_owned() });
        }
    }
    let cell =
        |tag: &str, scope: &str, (text, class): (&String, &String)| format!("<{tag}{scope} class=\"{class}\">{}</{tag}>", escaped(text));
    let headings = table.columns.iter().flat_map(|(_, columns)| columns).zip(&classes);
    out += &format!("<tr>{}</tr>\n", headings.map(|heading| cell("th", " scope=\"col\"", heading)).collect::<String>());
    out += "</thead>\n<tbody>\n";
    for row in &table.rows {
        out += &match row {
            Row::Heading(heading) => {
                format!("<tr class=\"heading\"><th scope=\"rowgroup\" colspan=\"{width}\">{}</th></tr>\n", escaped(heading))
            }
            Row::Cells(row) => {
                let cells = row.iter().zip(&classes).enumerate();
                let cells = cells.map(|(at, text)| if at == 0 { cell("th", " scope=\"row\"", text) } else { cell("td", "", text) });
                format!("<tr>{}</tr>\n", cells.collect::<String>())
            }
        };
    }
    out += "</tbody>\n</table></div>\n";
    for note in &table.notes {
        out += &format!("<p class=\"note\">{}</p>\n", escaped(note));
    }
    out
}

/// Text for between tags and in quoted attributes.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            c => out.push(c),
        }
    }
    out
}
