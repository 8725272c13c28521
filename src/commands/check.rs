//! `biodist check`: what a configuration means, before anything is trained.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use super::image::{ImageShape, parse_classes};
use super::overrides::Overrides;
use super::{memory, train};
use crate::config::{Config, ExchangeChoice, LeftBehind, Loaded, Purpose};
use crate::exchange::Sharing;
use crate::job::say;
use crate::network::Group;
use crate::plan::{DataFacts, Memory, Plan, StepCost};
use crate::rules::Phase;
use crate::text::{grouped, plural, scaled, table};
use crate::training::{self, Initial};

/// Show the plan of a configuration: shapes, parameters, memory, work and exchange of a step, keys without effect, schedules that do not fit
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Configuration: a file, the name of one that comes with the program, or the folder of a run
    config: PathBuf,
    #[command(flatten)]
    overrides: Overrides,
    /// Number of processes, or of GPUs, to plan for: memory and exchange are told of each
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    ranks: u32,
    /// Image as the network sees it; no data is read then
    #[arg(long, value_name = "HxWxC")]
    input: Option<ImageShape>,
    /// Number of classes, with --input
    #[arg(long, value_name = "K", requires = "input", value_parser = parse_classes)]
    classes: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints the plan, or fails where there is none.
pub fn run(args: CheckArgs) -> Result<()> {
    say(describe(&args)?.trim_end());
    Ok(())
}

/// The plan as [`run`] prints it.
pub fn describe(args: &CheckArgs) -> Result<String> {
    let purpose = if args.input.is_some() { Purpose::Shapes } else { Purpose::Training };
    let loaded = Loaded::read(&args.config, &args.overrides.all(), purpose)?;
    let loaded = if args.input.is_some() { loaded } else { loaded.with_absolute_paths()? };
    let config = &loaded.config;
    let facts = match args.input {
        Some(shape) => shape.facts(config, args.classes)?,
        None => train::facts(&train::open(config)?),
    };
    let plan = Plan::new(config, &facts, args.ranks as usize)?;
    Initial::open(config, &plan.maps)?;
    Ok(if args.json { format!("{}\n", to_json(&loaded, &facts, &plan)) } else { to_text(&loaded, &facts, &plan) })
}

/// Parameters of the maps of one layer, or of all, by what becomes of them.
#[derive(Default)]
struct LayerParameters {
    forward: u64,
    inverse: u64,
    /// That learns.
    feedback: u64,
    fixed: u64,
}

fn of_layer(plan: &Plan, index: usize) -> LayerParameters {
    let sum = |group: Group| {
        plan.maps.all.iter().filter(|map| map.layer == index && map.group() == group).map(|map| map.parameters() as u64).sum()
    };
    LayerParameters {
        forward: sum(Group::Forward),
        inverse: sum(Group::Inverse),
        feedback: sum(Group::Feedback),
        fixed: sum(Group::NotTrained),
    }
}

fn totals(plan: &Plan) -> LayerParameters {
    (0..plan.network.depth()).map(|index| of_layer(plan, index)).fold(LayerParameters::default(), |sum, layer| LayerParameters {
        forward: sum.forward + layer.forward,
        inverse: sum.inverse + layer.inverse,
        feedback: sum.feedback + layer.feedback,
        fixed: sum.fixed + layer.fixed,
    })
}

fn name(way: Sharing) -> &'static str {
    match way {
        Sharing::None => "none",
        Sharing::Activities => "activities",
        Sharing::Gradients => "gradients",
    }
}

fn phase(cost: &StepCost) -> &'static str {
    match cost.phase {
        Phase::Both => "all",
        Phase::Inverse => "inverse",
        Phase::Forward => "forward",
    }
}

/// What may not be meant.
fn doubts(loaded: &Loaded, plan: &Plan) -> Vec<String> {
    let of_length = plan.epoch.as_ref().map_or(Vec::new(), |epoch| training::doubts(&loaded.config, epoch.steps, &loaded.typed));
    loaded.left_behind.iter().map(LeftBehind::to_string).chain(of_length).collect()
}

fn to_text(loaded: &Loaded, facts: &DataFacts, plan: &Plan) -> String {
    let config = &loaded.config;
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    let learning = &config.learning;
    let schedule = if config.trains_inverses() { format!(", {}", lower(&config.schedule())) } else { String::new() };
    let [height, width, channels] = facts.input;
    line(format!(
        "{}: {}{schedule}, on images of {height}x{width}x{channels}, {} rank{} of {} samples a step",
        config.experiment.name,
        learning.rule.name(),
        plan.ranks,
        plural(plan.ranks),
        plan.local_batch
    ));
    line(String::new());
    line(layers(plan));

    let memory = &plan.memory;
    let bytes = |number: u64| format!("{}B", scaled(number as f64));
    let parts = |memory: &Memory| {
        let stored = if memory.gradients > 0 { format!(", gradients {}", bytes(memory.gradients)) } else { String::new() };
        format!(
            "parameters {}, optimiser's moments {}, activities {}{stored}",
            bytes(memory.parameters),
            bytes(memory.moments),
            bytes(memory.activities)
        )
    };
    line(format!("memory     {} a rank: {}", bytes(memory.whole()), parts(memory)));
    if plan.ranks > 1 {
        let shared = if plan.exchange == Sharing::Activities { "; parameters and moments are there once" } else { "" };
        line(format!("           {} for {} ranks on one host{shared}", bytes(plan.host_memory()), plan.ranks));
    }
    line(format!("           {} a GPU: {}", bytes(plan.gpu_memory.whole()), parts(&plan.gpu_memory)));
    if let Some(there) = memory::limit().filter(|there| *there < plan.host_memory()) {
        line(format!("           more than the {} of this machine, on which training with all ranks is refused", bytes(there)));
    }
    let checkpoint = plan.disk.checkpoint();
    line(format!(
        "disk       {} a checkpoint: model {}, optimiser {}; at most {} at a time, {}",
        bytes(checkpoint),
        bytes(plan.disk.model),
        bytes(plan.disk.optimizer),
        plan.disk.checkpoints,
        bytes(checkpoint.saturating_mul(plan.disk.checkpoints as u64))
    ));
    for cost in &plan.steps {
        let which = if cost.phase == Phase::Both {
            String::new()
        } else {
            format!(" of a pass over the data that trains the {} model", phase(cost))
        };
        let ranks = plan.ranks as f64;
        line(format!(
            "work       {}FLOP a step{which}, all ranks: passes {}FLOP, gradients {}FLOP",
            scaled(ranks * (cost.passes + cost.gradients)),
            scaled(ranks * cost.passes),
            scaled(ranks * cost.gradients)
        ));
        if plan.ranks > 1 {
            line(exchange(config, plan, cost));
        }
    }
    if let Some(epoch) = plan.epoch {
        let left_out = if epoch.left_out > 0 {
            format!("; the incomplete last batch leaves {} sample{} out of it", epoch.left_out, plural(epoch.left_out))
        } else {
            String::new()
        };
        line(format!(
            "epoch      {} step{} of {} on {} samples{left_out}",
            grouped(epoch.steps as u64),
            plural(epoch.steps),
            config.data.batch_size,
            grouped(epoch.samples as u64)
        ));
        let test = epoch.test.map_or("no test set".to_owned(), |test| format!("test on {} samples", grouped(test as u64)));
        let validation = if epoch.validation > 0 { format!(", validation on {}", grouped(epoch.validation as u64)) } else { String::new() };
        let length = epoch.total_steps.map_or(String::new(), |steps| format!("{} step{} in all, ", grouped(steps), plural(steps as usize)));
        line(format!("run        {length}{test}{validation}"));
    }
    for unused in &loaded.unused {
        line(format!("not used   {}: {}", unused.key, unused.reason));
    }
    for doubt in doubts(loaded, plan) {
        line(format!("doubt      {doubt}"));
    }
    out
}

fn layers(plan: &Plan) -> String {
    let cell = |number: u64| if number == 0 { "-".to_owned() } else { grouped(number) };
    let row = |number: String, what: String, output: String, parameters: LayerParameters| {
        vec![number, what, output, cell(parameters.forward), cell(parameters.inverse), cell(parameters.feedback), cell(parameters.fixed)]
    };
    let heading = ["layer", "", "output", "forward", "inverse", "feedback", "not trained"];
    let mut rows = vec![
        heading.map(str::to_owned).to_vec(),
        row(String::new(), "input".into(), plan.network.input.to_string(), LayerParameters::default()),
    ];
    for (index, layer) in plan.network.layers.iter().enumerate() {
        rows.push(row(index.to_string(), plan.network.describe(index), layer.output.to_string(), of_layer(plan, index)));
    }
    rows.push(row(String::new(), "parameters".into(), String::new(), totals(plan)));
    table(&rows, 3)
}

fn exchange(config: &Config, plan: &Plan, cost: &StepCost) -> String {
    let bytes = |way: Sharing, one_host: bool| format!("{}B", scaled(plan.exchanged(cost, way, one_host) as f64));
    let other = if plan.exchange == Sharing::Gradients { Sharing::Activities } else { Sharing::Gradients };
    let why = if config.parallel.exchange == ExchangeChoice::Auto {
        let samples = config.data.batch_size;
        format!("\n           (activities where {samples} samples x (inputs + outputs of a layer) are no more numbers than its parameters)")
    } else {
        String::new()
    };
    format!(
        "exchange   {}: {} a rank and step on one host, {} with each rank on a host of its own ({} would be {} and {})\n           \
         {}B between GPUs, of which each updates 1/{} of every layer: {}{why}",
        name(plan.exchange),
        bytes(plan.exchange, true),
        bytes(plan.exchange, false),
        name(other),
        bytes(other, true),
        bytes(other, false),
        scaled(plan.exchanged_between_gpus(cost) as f64),
        plan.ranks,
        plan.ways_between_gpus()
    )
}

fn lower(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

fn to_json(loaded: &Loaded, facts: &DataFacts, plan: &Plan) -> Value {
    let config = &loaded.config;
    let parameters = |sums: &LayerParameters| json!({ "forward": sums.forward, "inverse": sums.inverse, "feedback": sums.feedback, "fixed": sums.fixed });
    let layers: Vec<Value> = plan
        .network
        .layers
        .iter()
        .enumerate()
        .map(|(index, layer)| {
            let shape = [layer.output.height, layer.output.width, layer.output.channels];
            json!({ "layer": plan.network.describe(index), "output": shape, "parameters": parameters(&of_layer(plan, index)) })
        })
        .collect();
    let exchanged = |cost: &StepCost, way: Sharing| json!({ "one_host": plan.exchanged(cost, way, true), "between_hosts": plan.exchanged(cost, way, false) });
    let ranks = plan.ranks as f64;
    let steps: Vec<Value> = plan
        .steps
        .iter()
        .map(|cost| {
            let mut ways = serde_json::Map::new();
            if plan.ranks > 1 {
                for way in [Sharing::Activities, Sharing::Gradients] {
                    ways.insert(name(way).to_owned(), exchanged(cost, way));
                }
            }
            json!({
                "trains": phase(cost),
                "flop": ranks * (cost.passes + cost.gradients),
                "flop_passes": ranks * cost.passes,
                "flop_gradients": ranks * cost.gradients,
                "exchanged_bytes_per_rank": exchanged(cost, plan.exchange),
                "exchanged_bytes_per_rank_by": ways,
                "exchanged_bytes_per_rank_between_gpus": plan.exchanged_between_gpus(cost),
            })
        })
        .collect();
    let trained = plan.maps.all.iter().zip(&plan.between_gpus).filter(|(map, _)| map.trained());
    let between_gpus: serde_json::Map<String, Value> = trained.map(|(map, way)| (map.weight.name.clone(), json!(name(*way)))).collect();
    let mut value = json!({
        "config": config,
        "input": facts.input,
        "ranks": plan.ranks,
        "samples_per_rank": plan.local_batch,
        "layers": layers,
        "parameters": parameters(&totals(plan)),
        "memory_bytes_per_rank": {
            "parameters": plan.memory.parameters,
            "moments": plan.memory.moments,
            "activities": plan.memory.activities,
            "gradients": plan.memory.gradients,
        },
        "memory_bytes_per_gpu": {
            "parameters": plan.gpu_memory.parameters,
            "moments": plan.gpu_memory.moments,
            "activities": plan.gpu_memory.activities,
            "gradients": plan.gpu_memory.gradients,
        },
        "memory_bytes_one_host": plan.host_memory(),
        "memory_bytes_this_machine": memory::limit(),
        "disk_bytes": {
            "model": plan.disk.model,
            "optimizer": plan.disk.optimizer,
            "most_checkpoints": plan.disk.checkpoints,
        },
        "exchange": name(plan.exchange),
        "exchange_between_gpus": between_gpus,
        "steps": steps,
        "unused_keys": loaded.unused,
        "doubts": doubts(loaded, plan),
    });
    if let Some(epoch) = plan.epoch {
        value["epoch"] = json!({
            "samples": epoch.samples,
            "steps": epoch.steps,
            "left_out": epoch.left_out,
            "validation": epoch.validation,
        });
        for (key, number) in [("test", epoch.test.map(|test| test as u64)), ("total_steps", epoch.total_steps)] {
            if let Some(number) = number {
                value["epoch"][key] = json!(number);
            }
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both forms of the plan of a configuration of the project, with `sets`, on `ranks` ranks.
    fn shown(sets: &[&str], facts: DataFacts, ranks: usize) -> (String, Value) {
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        let loaded = Loaded::read("configs/mnist_fc_dtp_alternating.toml".as_ref(), &sets, Purpose::Shapes).unwrap();
        let plan = Plan::new(&loaded.config, &facts, ranks).unwrap();
        (to_text(&loaded, &facts, &plan), to_json(&loaded, &facts, &plan))
    }

    #[test]
    fn people_and_programs_read_the_same_plan() {
        let facts = DataFacts { train: Some(60_000), test: Some(10_000), ..DataFacts::of_shape([28, 28, 1], 10) };
        let (text, json) = shown(&["learning.auxiliary_units=3", "data.validation=10"], facts, 2);
        for part in [
            "2 ranks of 64 samples a step",
            "200,960",
            "532,490",
            "328,960",
            "468 steps of 128 on 59,990 samples; the incomplete last batch leaves 86 samples out of it",
            "234,000 steps in all, test on 10,000 samples, validation on 10",
            "trains the inverse model",
            "not used   learning.auxiliary_units: rule \"dtp\" does not use it",
        ] {
            assert!(text.contains(part), "{part:?} is missing:\n{text}");
        }
        assert_eq!(json["parameters"], json!({ "forward": 532_490, "inverse": 328_960, "feedback": 0, "fixed": 0 }));
        assert_eq!(json["disk_bytes"]["model"], 4 * (532_490 + 328_960));
        assert_eq!(json["layers"][1]["parameters"]["inverse"], 65_792);
        assert_eq!(json["epoch"]["left_out"], 86);
        assert_eq!(json["epoch"]["total_steps"], 234_000);
        assert_eq!(json["unused_keys"][0]["key"], "learning.auxiliary_units");
        assert_eq!(
            (&json["exchange"], &json["steps"][0]["trains"], &json["steps"][1]["trains"]),
            (&json!("activities"), &json!("inverse"), &json!("forward"))
        );

        let (text, json) = shown(&["learning.rule=bp", "learning.schedule=parallel"], DataFacts::of_shape([28, 28, 1], 10), 1);
        assert!(!text.contains("epoch") && !text.contains("exchange"), "one rank without data: {text}");
        assert!(json.get("epoch").is_none());
        let unused: Vec<&str> = json["unused_keys"].as_array().unwrap().iter().map(|unused| unused["key"].as_str().unwrap()).collect();
        assert!(unused.contains(&"learning.alpha") && unused.contains(&"optimizer.inverse.epsilon"), "{unused:?}");
    }
}
