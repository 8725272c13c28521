//! `learning.rule`: a name in a configuration, a [`Definition`] to the program.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::OnceLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::rules::{Definition, Inverses, definitions};

/// A learning rule, chosen by its name.
#[derive(Clone, Copy)]
pub struct Rule(&'static Definition);

impl Rule {
    pub const BP: Rule = Rule(&crate::rules::BP);
    pub const FA: Rule = Rule(&crate::rules::FA);
    pub const DFA: Rule = Rule(&crate::rules::DFA);
    pub const TP: Rule = Rule(&crate::rules::TP);
    pub const DTP: Rule = Rule(&crate::rules::DTP);
    pub const SDTP: Rule = Rule(&crate::rules::SDTP);
    pub const AO_SDTP: Rule = Rule(&crate::rules::AO_SDTP);

    /// The name that configurations use.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Whether the rule makes its targets with trained inverses: the target propagation family.
    pub fn trains_inverses(self) -> bool {
        self.0.inverses != Inverses::None
    }

    /// The names there are, for errors.
    pub(super) fn names() -> &'static [&'static str] {
        static NAMES: OnceLock<Vec<&'static str>> = OnceLock::new();
        NAMES.get_or_init(|| definitions().map(|definition| definition.name).collect())
    }
}

impl Deref for Rule {
    type Target = Definition;

    fn deref(&self) -> &Definition {
        self.0
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Rule) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Rule {}

impl Hash for Rule {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name)
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Rule, D::Error> {
        let name = <std::borrow::Cow<str>>::deserialize(deserializer)?;
        definitions().find(|definition| definition.name == name).map(Rule).ok_or_else(|| D::Error::unknown_variant(&name, Rule::names()))
    }
}
