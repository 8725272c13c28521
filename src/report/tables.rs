//! Tables and curves as other programs read them: CSV, and LaTeX with the rules of the package booktabs.

use super::document::{Row, Table};

/// Rows as RFC 4180 has them.
pub fn csv(rows: &[Vec<String>]) -> String {
    let cell = |text: &String| match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.clone(),
    };
    rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join(",") + "\n").collect()
}

/// A table's rows below its columns' names; a heading is a first cell of each row under it.
pub fn rows(table: &Table) -> Vec<Vec<String>> {
    let titles = table.columns.iter().flat_map(|(heading, columns)| {
        columns.iter().map(move |column| if heading.is_empty() { column.clone() } else { format!("{heading}: {column}") })
    });
    let has_headings = table.rows.iter().any(|row| matches!(row, Row::Heading(_)));
    let first = |text: &str| if has_headings { vec![text.to_owned()] } else { vec![] };
    let mut out = vec![first("group").into_iter().chain(titles).collect()];
    let mut heading = "";
    for row in &table.rows {
        match row {
            Row::Heading(text) => heading = text,
            Row::Cells(cells) => out.push(first(heading).into_iter().chain(cells.iter().cloned()).collect()),
        }
    }
    out
}

/// A `tabular` with what is said below it, for `\input` within a table; needs `\usepackage{booktabs}`.
pub fn latex(table: &Table) -> String {
    let width: usize = table.columns.iter().map(|(_, columns)| columns.len()).sum();
    let kinds: String = (0..width).map(|column| if column < table.text_columns { 'l' } else { 'r' }).collect();
    let line = |cells: Vec<String>| cells.join(" & ") + " \\\\\n";
    let mut out = format!("% {}\n\\begin{{tabular}}{{{kinds}}}\n\\toprule\n", table.title.replace('\n', " "));
    if table.columns.iter().any(|(heading, _)| !heading.is_empty()) {
        let over = |(heading, columns): &(String, Vec<String>)| format!("\\multicolumn{{{}}}{{c}}{{{}}}", columns.len(), escaped(heading));
        out += &line(table.columns.iter().map(over).collect());
        let mut first = 1;
        for (heading, columns) in &table.columns {
            if !heading.is_empty() {
                out += &format!("\\cmidrule(lr){{{first}-{}}}", first + columns.len() - 1);
            }
            first += columns.len();
        }
        out.push('\n');
    }
    out += &line(table.columns.iter().flat_map(|(_, columns)| columns).map(|title| escaped(title)).collect());
    for (index, row) in table.rows.iter().enumerate() {
        if index == 0 || matches!(row, Row::Heading(_)) {
            out += "\\midrule\n";
        }
        out += &match row {
            Row::Heading(heading) => line(vec![format!("\\multicolumn{{{width}}}{{l}}{{\\emph{{{}}}}}", escaped(heading))]),
            Row::Cells(cells) => line(cells.iter().map(|cell| escaped(cell)).collect()),
        };
    }
    out += "\\bottomrule\n\\end{tabular}\n";
    if !table.notes.is_empty() {
        let notes: Vec<String> = table.notes.iter().map(|note| escaped(note)).collect();
        out += &format!("\n\\smallskip\n{{\\footnotesize {}\\par}}\n", notes.join("\n\n"));
    }
    out
}

/// Text whose characters LaTeX prints as they are, with signs for notes raised.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '#' | '$' | '%' | '&' | '_' | '{' | '}' => out.extend(['\\', c]),
            '\\' => out += "\\textbackslash{}",
            '~' => out += "\\textasciitilde{}",
            '^' => out += "\\textasciicircum{}",
            '<' | '>' | '|' => out += &format!("${c}$"),
            '±' => out += "$\\pm$",
            '×' => out += "$\\times$",
            '–' => out += "--",
            '“' => out += "``",
            '”' => out += "''",
            '’' => out.push('\''),
            '\u{a0}' => out.push('~'),
            '\n' | '\r' => out.push(' '),
            c => match superscript(c) {
                Some(digit) => out += &format!("\\textsuperscript{{{digit}}}"),
                None => out.push(c),
            },
        }
    }
    out
}

const SUPERSCRIPTS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];

fn superscript(c: char) -> Option<usize> {
    SUPERSCRIPTS.iter().position(|sign| *sign == c)
}

/// A number that marks a note.
pub fn raised(number: usize) -> String {
    number.to_string().bytes().map(|digit| SUPERSCRIPTS[usize::from(digit - b'0')]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let text = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<Vec<_>>();
        Table {
            name: "t".to_owned(),
            title: "Errors".to_owned(),
            columns: vec![(String::new(), text(&["Method"])), ("Paper".to_owned(), text(&["train", "test"]))],
            rows: vec![Row::Heading("Fully connected".to_owned()), Row::Cells(text(&["A_B, \"c\" ¹²", "1.00 ± 0.50", "–"]))],
            notes: vec!["¹² 5 % of α".to_owned()],
            text_columns: 1,
        }
    }

    #[test]
    fn latex_has_the_rules_of_booktabs_and_prints_every_character() {
        let expected = "% Errors\n\\begin{tabular}{lrr}\n\\toprule\n\\multicolumn{1}{c}{} & \\multicolumn{2}{c}{Paper} \\\\\n\
            \\cmidrule(lr){2-3}\nMethod & train & test \\\\\n\\midrule\n\\multicolumn{3}{l}{\\emph{Fully connected}} \\\\\n\
            A\\_B, \"c\" \\textsuperscript{1}\\textsuperscript{2} & 1.00 $\\pm$ 0.50 & -- \\\\\n\\bottomrule\n\\end{tabular}\n\n\
            \\smallskip\n{\\footnotesize \\textsuperscript{1}\\textsuperscript{2} 5 \\% of α\\par}\n";
        assert_eq!(latex(&table()), expected);
        assert_eq!(raised(120), "¹²⁰");
    }

    #[test]
    fn csv_quotes_what_it_must() {
        let expected = "group,Method,Paper: train,Paper: test\nFully connected,\"A_B, \"\"c\"\" ¹²\",1.00 ± 0.50,–\n";
        assert_eq!(csv(&rows(&table())), expected);
    }
}
