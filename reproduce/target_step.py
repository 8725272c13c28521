#!/usr/bin/env python3
"""How far sdtp's and ao_sdtp's first target goes, by how fast their inverses learn: MNIST, fully connected, both schedules, three seeds.

    reproduce/target_step.py run [--seeds 0,1,2] [KEY=VALUE ...]    # to runs/target_step; goes on after a stop
    reproduce/target_step.py keep                                   # what is done, in reproduce/studies
    reproduce/target_step.py table                                  # what is kept there

A cell is the least test error of 20 epochs, or of 40 alternating ones, half of which train the inverses. Where the data are, and with how many threads to train, is told by KEY=VALUE.
"""
import argparse
import itertools
import pathlib
import subprocess

import collect

KEPT = pathlib.Path(__file__).parent
SEEDS = [0, 1, 2]
STEPS = ["1", "0.3", "0.1", "0.03"]
# The inverses' learning rate in Table 5, and what the paper has at best.
CELLS = {
    ("sdtp", "parallel"): (0.001101, "3.52"),
    ("sdtp", "alternating"): (0.009572, "2.28"),
    ("ao_sdtp", "parallel"): (0.001101, "2.93"),
    ("ao_sdtp", "alternating"): (0.009572, "1.86"),
}
# How a run's name ends, by what is done to the inverses.
RATES = {"": [], "_rate": ["optimizer.inverse.learning_rate=0.0000136"], "_still": ["learning.inverses=fixed", "learning.schedule=parallel"]}


def cells():
    """Rule, schedule, and inverses of each line; then by step the name of the runs."""
    for (rule, schedule), inverses in itertools.product(CELLS, RATES):
        names = [f"mnist_fc_{rule}_{schedule}{'' if step == '1' else f'_step_{step}'}{inverses}" for step in STEPS]
        yield rule, schedule, inverses, names


def epochs(schedule, inverses):
    return 40 if schedule == "alternating" and inverses != "_still" else 20


def places(name, seed):
    """Where the run of a seed may be kept, first where a new one is: those with Table 5's values are longer ones, kept with other results."""
    at = f"_seed_{seed}" if seed else ""
    yield KEPT / "studies" / f"{name}{at}"
    yield KEPT / "studies" / f"{name}_table5{at}"
    yield KEPT / "studies" / name / f"seed_{seed}"
    # The run that is kept there has a tenth of Table 5's rate.
    if name != "mnist_fc_sdtp_alternating":
        yield KEPT / "runs" / name / f"seed_{seed}"
        yield KEPT / "runs" / f"{name}{at}"


def errors(folder, last):
    """Test errors after each epoch, in per cent; nothing of a run that has not come so far."""
    of_test = [line for line in collect.lines(folder) if line["split"] == "test"]
    done = any(line["epoch"] >= last for line in of_test)
    return [100 * line["top1_error"] for line in of_test if line["epoch"] <= last] if done else None


def kept(name, seed, last):
    return next(filter(None, (errors(folder, last) for folder in places(name, seed))), None)


def run(trained, seeds, overrides):
    for seed in seeds:
        for rule, schedule, inverses, names in cells():
            last = epochs(schedule, inverses)
            for step, name in zip(STEPS, names):
                out = trained / f"{name}_seed_{seed}"
                if kept(name, seed, last) or errors(out, last):
                    continue
                own = [f"learning.target_step={step}", f"training.epochs={last}", f"experiment.seed={seed}"]
                rate = [f"optimizer.inverse.learning_rate={CELLS[rule, schedule][0]}"] if inverses == "" else RATES[inverses]
                begun = ["--resume"] if out.exists() else []
                subprocess.run(["biodist", "train", f"mnist_fc_{rule}_{schedule}", *own, *rate, *overrides, "--out", out, *begun], check=True)


def keep(trained):
    for seed in SEEDS:
        for _, schedule, inverses, names in cells():
            for name in names:
                out, last = trained / f"{name}_seed_{seed}", epochs(schedule, inverses)
                if errors(out, last) and not kept(name, seed, last):
                    collect.keep(out, next(places(name, seed)))


def table():
    shown = {"": "{}, of Table 5", "_rate": "0.0000136", "_still": "0: fixed"}
    for rule, schedule, inverses, names in cells():
        last = epochs(schedule, inverses)
        rate, paper = CELLS[rule, schedule]
        found = [[kept(name, seed, last) for seed in SEEDS] for name in names]
        values = [", ".join(f"{min(errors):.2f}" if errors else "-" for errors in seeds).replace(", -", "") for seeds in found]
        head = [f"{rule}, {schedule}", paper] if inverses == "" else ["", ""]
        print(f"| {head[0]} | {shown[inverses].format(rate)} | {' | '.join(values)} | {head[1]} |".replace("|  |", "| |"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "keep", "table"])
    parser.add_argument("--seeds", default="0,1,2", help="some of them [default: %(default)s]")
    parser.add_argument("--runs", default="runs/target_step", type=pathlib.Path, help="where run trains, and keep finds it [default: %(default)s]")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    args = parser.parse_intermixed_args()
    match args.action:
        case "run":
            run(args.runs, [int(seed) for seed in args.seeds.split(",")], args.overrides)
        case "keep":
            keep(args.runs)
        case _:
            table()


if __name__ == "__main__":
    main()
