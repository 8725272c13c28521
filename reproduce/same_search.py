#!/usr/bin/env python3
"""The same search for every rule on one network of the paper, and the table of what came of it.

    reproduce/same_search.py run NETWORK [--rules bp,fa] [KEY=VALUE ...]    # to runs/same_search; goes on after a stop
    reproduce/same_search.py keep NETWORK                                   # what is done, in reproduce/sweeps and reproduce/runs_beyond
    reproduce/same_search.py time NETWORK                                   # how long its epochs take, to reproduce/seconds.json; on a quiet machine
    reproduce/same_search.py table NETWORK                                  # what is kept there

Each rule has the same twelve draws of the wide space, chosen by training images that are set apart; the best draw is then trained on all of them,
with other seeds too, and tested. Where the data are, and with how many threads to train, is told by KEY=VALUE.
"""
import argparse
import json
import pathlib
import subprocess
import sys

import collect

RULES = "bp fa dfa kp dkp usf frsf brsf wm drtp dtp sdtp ao_sdtp l_drl pepita".split()

# For each network: the rungs (epochs:trials), the images set apart, the epochs of the best draw, its seeds, and what differs from the configuration.
CROPS = ['data.augment=["horizontal_flip","random_crop"]', "data.crop=[28,28]"]
BUDGETS = {
    "mnist_fc": ("3:12,10:4,20:1", 10000, 20, [0, 1, 2], []),
    "mnist_lc": ("1:12,3:3", 10000, 5, [0, 1, 2], []),
    "cifar_fc": ("1:12,4:3", 5000, 12, [0], CROPS),
    "cifar_lc": ("0.2:12,1:2", 5000, 3, [0], CROPS),
    "imagenet": ("0.25:12,1:2", 400, 4, [0], ["data.batch_size=32"]),
}

# Images of the network, and how many make an epoch.
IMAGES = {"mnist_fc": ("28x28x1", 60000), "mnist_lc": ("28x28x1", 60000), "cifar_fc": ("28x28x3", 50000), "cifar_lc": ("28x28x3", 50000), "imagenet": ("224x224x3", 4000)}

KEPT = pathlib.Path(__file__).parent
SECONDS = KEPT / "seconds.json"


def configuration(network, rule):
    """Where the rule's configuration is, and what to change in it."""
    if rule in ("bp", "fa", "dfa"):
        return [f"beyond/{network}_usf", f"learning.rule={rule}"]
    if rule in ("dtp", "sdtp", "ao_sdtp"):
        return [f"{network}_{rule}" + ("" if network == "imagenet" else "_parallel")]
    return [f"beyond/{network}_{rule}"]


def names(network, rule, seeds):
    """The folder of the search, and of each seed's run, as they are kept."""
    runs = [f"{network}_{rule}_searched" + (f"_seed_{seed}" if seed else "") for seed in seeds]
    return f"beyond_{network}_{rule}", runs


def run(network, rules, trained, overrides):
    rungs, validation, epochs, seeds, differing = BUDGETS[network]
    shared = [*differing, *overrides]
    for rule in rules:
        search, runs = names(network, rule, seeds)
        sweep = ["biodist", "sweep", *configuration(network, rule), "--out", trained / search]
        sweep += ["--space", "wide", "--rungs", rungs, "--validation", str(validation), *shared]
        subprocess.run(sweep, check=True)
        for seed, out in zip(seeds, runs):
            # The angles of one run tell enough, and cost as much as a few epochs.
            own = ["data.validation=0", f"training.epochs={epochs}", f"experiment.seed={seed}", f"training.diagnostics={str(seed == 0).lower()}"]
            begun = ["--resume"] if (trained / out).exists() else []
            train = ["biodist", "train", trained / search / "best.toml", "--out", trained / out]
            subprocess.run([*train, *begun, *shared, *own], check=True)


def finished(folder, epochs):
    """A run's lines by split; nothing before it has been tested after its last epoch."""
    lines = collect.lines(folder)
    by_split = {split: [line for line in lines if line["split"] == split] for split in ("train", "test")}
    return by_split if any(line["epoch"] == epochs for line in by_split["test"]) else None


def keep(network, trained):
    _, _, epochs, seeds, _ = BUDGETS[network]
    for rule in RULES:
        search, runs = names(network, rule, seeds)
        done = [out for out in runs if finished(trained / out, epochs)]
        if done:
            collect.keep(trained / search, KEPT / "sweeps" / search)
        for out in done:
            collect.keep(trained / out, KEPT / "runs_beyond" / out)


def seconds():
    return json.loads(SECONDS.read_text()) if SECONDS.exists() else {}


def time(network, rules, overrides):
    image, samples = IMAGES[network]
    for rule in rules * 3:
        best = KEPT / "sweeps" / names(network, rule, [])[0] / "best.toml"
        if best.exists():
            bench = ["biodist", "bench", "step", best, "--input", image, "--classes", "10", "--json", "parallel.threads_per_rank=1", *overrides]
            line = subprocess.run(bench, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            taken, key = seconds(), f"{network}_{rule}"
            taken[key] = min(samples / json.loads(line)["samples_per_second"], taken.get(key, float("inf")))
            SECONDS.write_text(json.dumps(taken, indent=1, sort_keys=True) + "\n")


def row(network, rule):
    """The mean test error, and the line of the table; nothing where no run is kept."""
    _, _, epochs, seeds, _ = BUDGETS[network]
    search, runs = names(network, rule, seeds)
    kept = [lines for out in runs if (lines := finished(KEPT / "runs_beyond" / out, epochs))]
    if not kept:
        return None
    best = (KEPT / "sweeps" / search / "best.toml").read_text()
    head, searched = best.splitlines()[:2]
    validation = head.split("validation error ")[1].split(" %")[0]
    rate = float(searched.split("optimizer.forward.learning_rate=")[1].split(",")[0].rstrip("."))
    test, train = ([100 * lines[split][-1]["top1_error"] for lines in kept] for split in ("test", "train"))
    layers = next((lines["test"][-1]["diagnostics"] for lines in kept if "diagnostics" in lines["test"][-1]), {})
    # The top layer has back-propagation's own error.
    angles = [layer.get("angle_degrees") for layer in layers.values()][:-1]
    cells = [
        rule,
        f"{rate:.2g}",
        validation,
        ", ".join(f"{error:.2f}" for error in test),
        " to ".join(dict.fromkeys(f"{error:.2f}" for error in (min(train), max(train)))),
        " ".join("-" if angle is None else f"{angle:.0f}" for angle in angles),
        f"{taken:.1f}" if (taken := seconds().get(f"{network}_{rule}")) else "-",
    ]
    return sum(test) / len(test), f"| {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "keep", "time", "table"])
    parser.add_argument("network", choices=BUDGETS)
    parser.add_argument("--rules", default=",".join(RULES), help="some of them [default: all]")
    parser.add_argument("--runs", default="runs/same_search", type=pathlib.Path, help="where run trains, and keep finds it [default: %(default)s]")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    asked = parser.parse_intermixed_args()
    unknown = [rule for rule in asked.rules.split(",") if rule not in RULES]
    if unknown:
        parser.error(f"--rules: {unknown[0]} is none of {', '.join(RULES)}")
    if asked.action == "run":
        run(asked.network, asked.rules.split(","), asked.runs, asked.overrides)
    elif asked.action == "keep":
        keep(asked.network, asked.runs)
    elif asked.action == "time":
        time(asked.network, asked.rules.split(","), asked.overrides)
    else:
        print("\n".join(line for _, line in sorted(filter(None, (row(asked.network, rule) for rule in asked.rules.split(","))))))


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        # It has said why.
        sys.exit(error.returncode)
