//! A key of the configuration is one row: its path, what values it takes, its default, what it touches, and one sentence of meaning.
//!
//! Whoever uses a group of settings declares it with [`settings!`], which makes the struct and the rows of one text. Everything else that is
//! to be known of a key comes from its row: refusals and suggestions, defaults, what a resumed run may change, which runs a report takes
//! for the same experiment, what a search may vary, `biodist keys`, and the table of docs/configuration.md.

mod kind;

pub use kind::{Bound, DECAY, FINITE, FRACTION, Kind, NOT_NEGATIVE, POSITIVE, POSITIVE_SPAN, SPAN, describe, names_of, nearest, one_of};

/// A key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// `section.name`.
    pub path: &'static str,
    pub kind: Kind,
    pub default: Default,
    pub touches: Touches,
    /// One sentence, in Markdown.
    pub meaning: &'static str,
}

/// What a key is where nothing is written.
#[derive(Clone, Copy, Debug)]
pub enum Default {
    Required,
    Absent,
    /// A value, as TOML.
    Is(&'static str),
    /// The value of another key, which comes before it.
    Of {
        path: &'static str,
        words: &'static str,
    },
    /// The configuration file's name, without its ending.
    FileName,
    /// `training.epochs`, where the key is used: another length leaves what does not use it as it is.
    Epochs,
}

/// What another value of a key makes different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touches {
    /// What is computed. A run keeps its value to its end.
    Result,
    /// What is computed, but a run may go on with another value: how far it goes, how it rounds, and a file that it began with, which is
    /// known by what it holds.
    Course,
    /// What is looked at and kept while a run trains.
    Watching,
    /// Where things lie, and what they are called. Data are compared by what they hold.
    Place,
    /// How fast it goes.
    Speed,
}

impl Touches {
    /// Whether a run that has begun may go on with another value.
    pub fn may_change(self) -> bool {
        self != Touches::Result
    }

    /// Whether runs that differ in it may come to other results.
    pub fn tells_runs_apart(self) -> bool {
        matches!(self, Touches::Result | Touches::Course)
    }
}

impl Key {
    /// "data" of `data.train`.
    pub fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// "train" of `data.train`.
    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }

    /// The default, where it is a value of its own.
    pub fn default_value(&self) -> Option<toml::Value> {
        match self.default {
            Default::Is(value) => Some(value.parse().expect("a default is TOML")),
            _ => None,
        }
    }

    /// The default as a person reads it.
    pub fn default_words(&self) -> String {
        match self.default {
            Default::Required => "required",
            Default::Absent => "none",
            Default::Is(value) => value,
            Default::Of { words, .. } => words,
            Default::FileName => "the file's name",
            Default::Epochs => "training.epochs",
        }
        .to_owned()
    }
}

/// A group of settings: a struct whose fields are the keys of a section of the configuration, and their rows as its `KEYS`.
///
/// A line is `name: type, kind, default, what it touches, "meaning";`. A field of type `Option` is absent by default.
macro_rules! settings {
    (
        $(#[$about:meta])*
        pub struct $group:ident in $section:literal {
            $( $name:ident: $type:ty, $kind:expr, $default:expr, $touches:ident, $meaning:literal; )*
        }
        $( plus { $( $(#[$extra_about:meta])* $extra:ident: $extra_type:ty ),* } )?
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $group {
            $( #[doc = $meaning] pub $name: $type, )*
            $( $( $(#[$extra_about])* pub $extra: $extra_type, )* )?
        }

        impl $group {
            /// A row for each key of the section.
            pub const KEYS: &'static [$crate::key::Key] = &[
                $( $crate::key::Key {
                    path: concat!($section, ".", stringify!($name)),
                    kind: $kind,
                    default: $default,
                    touches: $crate::key::Touches::$touches,
                    meaning: $meaning,
                }, )*
            ];
        }
    };
}
pub(crate) use settings;
