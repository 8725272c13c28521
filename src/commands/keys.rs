//! `biodist keys`: what a configuration may say. All of it comes from the keys' rows, as docs/configuration.md does.

use anyhow::Result;
use biodist_process::quote;
use serde_json::{Value, json};

use crate::config::Config;
use crate::exit::Exit;
use crate::job::say;
use crate::key::{Default, FINITE, Key, Kind, Touches, nearest};
use crate::rules::definitions;
use crate::text::table;

/// Show the keys of a configuration: values, default, meaning
///
/// Those with WORD in their name, values or meaning, or all. Layers and rules have keys of their own, which are told with network.layers
/// and learning.rule.
#[derive(Debug, clap::Args)]
pub struct KeysArgs {
    /// What to look for: part of a key, or a word of its meaning
    word: Option<String>,
    /// As JSON, one object a key
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// As the table of docs/configuration.md
    #[arg(long)]
    markdown: bool,
}

/// What is told of a key.
struct Entry {
    path: String,
    values: String,
    default: String,
    touches: Touches,
    meaning: String,
}

pub fn run(args: &KeysArgs) -> Result<()> {
    let word = args.word.as_deref().unwrap_or_default().to_lowercase();
    let entries: Vec<Entry> = entries().filter(|entry| entry.tells_of(&word)).collect();
    if entries.is_empty() {
        return Err(Exit::Usage.error(nothing_of(&word)));
    }
    let told = if args.json {
        let keys: Vec<Value> = entries.iter().map(Entry::json).collect();
        serde_json::to_string_pretty(&keys).expect("text is JSON")
    } else if args.markdown {
        markdown(&entries)
    } else {
        text(&entries)
    };
    say(told.trim_end());
    Ok(())
}

/// The keys of all configurations, then those of single rules.
fn entries() -> impl Iterator<Item = Entry> {
    let own = definitions().flat_map(|rule| rule.own_keys().map(move |(key, meaning)| (rule.name, key, meaning)));
    Config::keys().map(Entry::of).chain(own.map(|(rule, key, meaning)| Entry {
        path: format!("learning.{key}"),
        values: Kind::Number(FINITE).words(),
        default: format!("required by {rule}"),
        touches: Touches::Result,
        meaning: meaning.to_owned(),
    }))
}

impl Entry {
    fn of(key: &'static Key) -> Entry {
        let rules: Vec<&str> =
            definitions().filter(|rule| rule.required_keys().any(|path| path == key.path)).map(|rule| rule.name).collect();
        let default = match key.default {
            Default::Absent if !rules.is_empty() => format!("required by {}", rules.join(", ")),
            _ => key.default_words(),
        };
        Entry { path: key.path.to_owned(), values: key.kind.words(), default, touches: key.touches, meaning: key.meaning.to_owned() }
    }

    fn tells_of(&self, word: &str) -> bool {
        [&self.path, &self.values, &self.meaning].iter().any(|text| text.to_lowercase().contains(word))
    }

    fn json(&self) -> Value {
        let Entry { path, values, default, touches, meaning } = self;
        let touches = format!("{touches:?}").to_lowercase();
        json!({ "key": path, "values": values, "default": default, "touches": touches, "meaning": meaning })
    }
}

fn text(entries: &[Entry]) -> String {
    let rows: Vec<Vec<String>> = entries
        .iter()
        .flat_map(|entry| {
            let may = if entry.touches.may_change() { "; a run may go on with another" } else { "" };
            [vec![entry.path.clone(), entry.default.clone(), format!("{}{may}", entry.values)], vec![]]
        })
        .collect();
    let rows = table(&rows, 3);
    let meanings = entries.iter().map(|entry| &entry.meaning);
    let heads = rows.lines().step_by(2);
    heads.zip(meanings).map(|(head, meaning)| format!("{head}\n    {}\n", without_links(meaning))).collect()
}

/// As a terminal shows it: `[parameters](reading_runs.md)` is "parameters (docs/reading_runs.md)".
fn without_links(meaning: &str) -> String {
    if meaning.contains("](") { meaning.replace("](", " (docs/").replace('[', "") } else { meaning.to_owned() }
}

fn markdown(entries: &[Entry]) -> String {
    let rows = entries.iter().map(|entry| {
        let may = if entry.touches.may_change() { "yes" } else { "" };
        format!("| `{}` | {} | {} | {may} | {} |\n", entry.path, entry.default, entry.values, entry.meaning)
    });
    let head = "| key | default | values | may change | meaning |\n| --- | --- | --- | --- | --- |\n";
    head.to_owned() + &rows.collect::<String>()
}

fn nothing_of(word: &str) -> String {
    let names: Vec<&str> = Config::keys().flat_map(|key| [key.name(), key.path]).collect();
    let hint = nearest(word, &names).map_or("biodist keys shows all".to_owned(), |near| format!("did you mean {near}?"));
    format!("no key has {:?} in its name, values or meaning; {hint}", quote::part(word, 80))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `biodist keys --markdown` writes the page's table.
    #[test]
    fn the_page_is_made_of_the_rows() {
        let page = include_str!("../../docs/configuration.md");
        let table = markdown(&entries().collect::<Vec<_>>());
        assert!(page.contains(&table), "docs/configuration.md needs this table:\n{table}");
        assert_eq!(page.matches("\n| `").count(), table.matches("\n| `").count(), "and no other key");
    }

    #[test]
    fn a_word_finds_keys_by_name_values_and_meaning() {
        let found = |word: &str| entries().filter(|entry| entry.tells_of(word)).map(|entry| entry.path).collect::<Vec<_>>();
        assert_eq!(found("batch_si"), ["data.batch_size"]);
        assert_eq!(found("tensorflow"), ["optimizer.epsilon_form"]);
        assert_eq!(found("nccl"), ["parallel.backend"]);
        let shown = text(&entries().collect::<Vec<_>>());
        assert!(shown.contains("a safetensors file of parameters (docs/reading_runs.md) to begin") && !shown.contains("]("));
        assert!(nothing_of("alhpa").ends_with("did you mean alpha?"), "{}", nothing_of("alhpa"));
    }
}
