//! What groups are called: their method, and the settings that tell them apart.

use super::group::Group;
use super::run::Run;
use super::variant::{AUXILIARY, Setting, shown, variant};
use crate::config::find::shipped;
use crate::config::{Config, Difference};
use crate::key::Touches;

/// The method's name, with as many settings as tell the group apart from others of that name. One that is the paper's cell as it comes
/// with the project needs none to be told from those that depart from it.
pub fn of_group(group: &Group, all: &[Group]) -> String {
    let is_the_cell = |group: &Group| group.departures.as_ref().is_some_and(Vec::is_empty);
    let names_itself =
        |group: &Group| !variant(group.config()).is_empty() || group.departures.as_ref().is_some_and(|departures| !departures.is_empty());
    let others = all.iter().filter(|other| !std::ptr::eq(*other, group) && other.panel == group.panel && other.method == group.method);
    let contrasts: Vec<Vec<Setting>> =
        others.filter(|other| !(is_the_cell(group) && names_itself(other))).map(|other| contrasts(group, other)).collect();
    named(group.method.name(), told_apart(variant(group.config()), &contrasts))
}

/// `name`, with as many settings as tell the study of the number of auxiliary outputs that `group` is of from those that `others` are of.
pub fn of_study(name: String, group: &Group, others: &[&Group]) -> String {
    let contrast = |other: &&Group| -> Vec<Setting> {
        let settings = contrasts(group, other);
        settings.into_iter().filter(|(key, _)| key != AUXILIARY).collect()
    };
    let contrasts: Vec<Vec<Setting>> = others.iter().map(contrast).collect();
    named(name, told_apart(Vec::new(), &contrasts))
}

/// `named`, and as many more settings as it takes until each of `contrasts`, which is what sets another one apart, has one of them.
fn told_apart(mut named: Vec<Setting>, contrasts: &[Vec<Setting>]) -> Vec<Setting> {
    loop {
        let open = || contrasts.iter().filter(|settings| !settings.iter().any(|setting| named.contains(setting))).flatten();
        // The setting that tells most of them apart; of equal ones a learning rate, else the first.
        let tells = |setting: &Setting| (open().filter(|other| *other == setting).count(), setting.0.ends_with("learning_rate"));
        let mut best: Option<&Setting> = None;
        for setting in open() {
            if best.is_none_or(|best| tells(setting) > tells(best)) {
                best = Some(setting);
            }
        }
        let Some(best) = best.cloned() else { break };
        named.push(best);
    }
    named
}

fn named(name: String, settings: Vec<Setting>) -> String {
    if settings.is_empty() {
        return name;
    }
    let list: Vec<String> = settings.iter().map(|(key, value)| format!("{key}\u{a0}=\u{a0}{value}")).collect();
    format!("{name} ({})", list.join(", "))
}

/// Where `group` differs from `other`, with its own values.
fn contrasts(group: &Group, other: &Group) -> Vec<Setting> {
    let (ours, theirs) = (group.config(), other.config());
    let differences = differences(Touches::tells_runs_apart, ours, theirs);
    let mut settings: Vec<Setting> = differences.iter().map(|difference| (short(&difference.key), shown(&difference.ours))).collect();
    let mut add = |key: &str, value: String| settings.push((key.to_owned(), value));
    let (ours, theirs) = (group.runs[0], other.runs[0]);
    if ours.data.identity != theirs.data.identity {
        add("data", ours.data.samples.map_or(ours.data.identity.clone(), |samples| format!("{samples} images")));
    } else if ours.steps_per_epoch != theirs.steps_per_epoch {
        add("steps_per_epoch", ours.steps_per_epoch.map_or("unknown".to_owned(), |steps| steps.to_string()));
    }
    settings
}

/// Differences that matter to a result, in keys that touch what is `compared`.
fn differences(compared: fn(Touches) -> bool, ours: &Config, theirs: &Config) -> Vec<Difference> {
    let matters = |key: &str| !key.starts_with("experiment.") && (ours.unused(key).is_none() || theirs.unused(key).is_none());
    ours.differences_in(compared, &theirs.settings()).into_iter().filter(|difference| matters(&difference.key)).collect()
}

/// What of the run's configuration is not as in the one that comes with the project for the same cell of the paper; None where there is
/// no such cell or file.
pub fn departures(run: &Run) -> Option<Vec<Difference>> {
    let shipped = Config::load(&shipped(&run.cell()?.configuration())?, &[]).ok()?;
    // A run's length is told elsewhere.
    Some(differences(|touches| touches == Touches::Result, &run.config, &shipped))
}

/// A departure as a note tells it: "sigma = 0.5 (0.3)".
pub fn departure(Difference { key, ours, theirs }: &Difference) -> String {
    format!("{} = {} ({})", short(key), shown(ours), shown(theirs))
}

fn short(key: &str) -> String {
    ["learning.", "optimizer.", "data.", "training.", "parallel."]
        .iter()
        .fold(key, |key, section| key.strip_prefix(section).unwrap_or(key))
        .to_owned()
}
