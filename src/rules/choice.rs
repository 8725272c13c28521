//! `learning.rule`: a name in a configuration, a [`Definition`] to the program.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::OnceLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{Definition, definitions};
use crate::network::Inverses;

/// A learning rule, chosen by its name.
#[derive(Clone, Copy)]
pub struct RuleChoice(&'static Definition);

impl RuleChoice {
    pub const BP: RuleChoice = RuleChoice(&super::BP);
    pub const FA: RuleChoice = RuleChoice(&super::FA);
    pub const DFA: RuleChoice = RuleChoice(&super::DFA);
    pub const TP: RuleChoice = RuleChoice(&super::TP);
    pub const DTP: RuleChoice = RuleChoice(&super::DTP);
    pub const SDTP: RuleChoice = RuleChoice(&super::SDTP);
    pub const AO_SDTP: RuleChoice = RuleChoice(&super::AO_SDTP);

    /// The name that configurations use.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Whether the rule makes its targets with inverses, trained or fixed: the target propagation family.
    pub fn has_inverses(self) -> bool {
        self.0.inverses != Inverses::None
    }

    /// The names there are, for errors.
    pub fn names() -> &'static [&'static str] {
        static NAMES: OnceLock<Vec<&'static str>> = OnceLock::new();
        NAMES.get_or_init(|| definitions().map(|definition| definition.name).collect())
    }
}

impl Deref for RuleChoice {
    type Target = Definition;

    fn deref(&self) -> &Definition {
        self.0
    }
}

impl PartialEq for RuleChoice {
    fn eq(&self, other: &RuleChoice) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for RuleChoice {}

impl Hash for RuleChoice {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl fmt::Debug for RuleChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl Serialize for RuleChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name)
    }
}

impl<'de> Deserialize<'de> for RuleChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RuleChoice, D::Error> {
        let name = <std::borrow::Cow<str>>::deserialize(deserializer)?;
        definitions()
            .find(|definition| definition.name == name)
            .map(RuleChoice)
            .ok_or_else(|| D::Error::unknown_variant(&name, RuleChoice::names()))
    }
}
