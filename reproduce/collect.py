#!/usr/bin/env python3
"""Keeps what a run's or a search's folder says about its result, without what is large or of one machine.

    reproduce/collect.py FOLDER NAME     # to reproduce/NAME (runs/mnist_fc_bp)

Of a run: config.toml, run.json, reconstructions.png where a report's was put there, and metrics.jsonl, where the training lines before each evaluation become one, their mean by number of
steps. Of a search: results.jsonl and best.toml. Paths of data become relative.
"""
import json
import pathlib
import re
import sys


def mean(lines, began):
    """One line for several, the first of which covers the steps after `began`."""
    steps = [line["step"] - before for line, before in zip(lines, [began] + [line["step"] for line in lines])]
    total = sum(steps)
    merged = dict(lines[-1])
    for key in ["loss", "inverse_loss", "top1_error", "top5_error"]:
        if all(key in line for line in lines):
            merged[key] = sum(line[key] * count for line, count in zip(lines, steps)) / total
    # Samples over the time that they took.
    merged["samples_per_second"] = total / sum(count / line["samples_per_second"] for line, count in zip(lines, steps))
    of_parts = {key: sum(line["seconds"][key] * count for line, count in zip(lines, steps)) / total for key in merged["seconds"]}
    return {**merged, "seconds": of_parts}


def relative(config):
    """A configuration's text, without the folders above its data."""
    return re.sub(r'^(train|test) = ".*/([^/"]+/[^/"]+)"$', r'\1 = "data/\2"', config, flags=re.MULTILINE)


def lines(run):
    """What a run has measured so far; nothing where it has not begun."""
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep_run(run, out):
    kept, waiting, began = [], [], 0
    for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        if line["split"] == "train":
            waiting.append(line)
            continue
        if waiting:
            kept.append(mean(waiting, began))
            began, waiting = waiting[-1]["step"], []
        kept.append(line)
    (out / "metrics.jsonl").write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in kept))
    (out / "config.toml").write_text(relative((run / "config.toml").read_text()))
    facts = json.loads((run / "run.json").read_text())
    if "steps_per_epoch" not in facts:
        facts["steps_per_epoch"] = kept[-1]["step"] // kept[-1]["epoch"]
    told = ["commit", "versions", "world_size", "threads_per_rank", "kernels", "steps_per_epoch", "diverged_at_step"]
    kept_facts = {key: facts[key] for key in told if key in facts}
    note = facts.get("data", {}).get("train", {}).get("note")
    if note:
        kept_facts["data"] = {"train": {"note": note}}
    (out / "run.json").write_text(json.dumps(kept_facts, indent=1) + "\n")
    picture = run / "reconstructions.png"
    if picture.exists():
        (out / picture.name).write_bytes(picture.read_bytes())


def keep_search(search, out):
    (out / "results.jsonl").write_text((search / "results.jsonl").read_text())
    best = re.sub(r"^# Its run is .*/(trials/\d+);", r"# Its run was \1;", (search / "best.toml").read_text(), flags=re.MULTILINE)
    (out / "best.toml").write_text(relative(best))


def keep(folder, out):
    out.mkdir(parents=True, exist_ok=True)
    (keep_search if (folder / "results.jsonl").exists() else keep_run)(folder, out)


if __name__ == "__main__":
    keep(pathlib.Path(sys.argv[1]), pathlib.Path(__file__).parent / sys.argv[2])
