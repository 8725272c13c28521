"""Runs of biodist in Python: their settings, curves and parameters, and training by the program.

Everything is read from the plain files in a run's folder. pandas is needed for tables and PyTorch for `Run.to_torch` alone.
"""

import json
import os
import pathlib
import re
import subprocess
import tomllib

import biodist_programs
import numpy

from . import network
from .safetensors import load, save

__all__ = ["Run", "curves", "load", "runs", "save", "save_initial", "train"]
__version__ = "0.1.0"


class Run:
    """A run's folder."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        with open(self.path / "config.toml", "rb") as file:
            self.config = tomllib.load(file)

    def __repr__(self):
        return f"Run({str(self.path)!r})"

    @property
    def settings(self):
        """Every key of the configuration, as `--set` names them, with its value."""
        sections = {}
        for section, keys in self.config.items():
            for key, value in keys.items():
                inner = value.items() if isinstance(value, dict) else [(None, value)]
                sections |= {".".join(filter(None, (section, key, last))): value for last, value in inner}
        return sections

    @property
    def metrics(self):
        """The objects of metrics.jsonl: a list of dictionaries."""
        try:
            lines = (self.path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        # The last line of a run that goes on, or that a crash cut, may be half a line.
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    @property
    def results(self):
        """The last loss and errors of each split, the step and epoch they are of, and the run's commit."""
        lines = self.metrics
        results = {key: lines[-1][key] for key in ("step", "epoch")} if lines else {}
        for line in lines:
            results |= {f"{line['split']}_{key}": line[key] for key in ("loss", "top1_error", "top5_error") if key in line}
        about = self.path / "run.json"
        return results | ({"commit": json.loads(about.read_text()).get("commit")} if about.exists() else {})

    @property
    def steps(self):
        """Steps that there are checkpoints of, ascending."""
        return sorted(int(path.name) for path in self.path.glob("checkpoints/*") if re.fullmatch(r"\d{8,}", path.name))

    def parameters(self, step=None):
        """Arrays by name, as docs/algorithms.md lists them, at `step`: a number, "best", or the newest."""
        return load(self._checkpoint(step) / "model.safetensors")

    def network(self, step=None):
        """A function from images [sample, height, width, channel], as pixels from 0 to 255, to the output before the softmax."""
        return network.Network(self.config, self._trained(step), self.parameters(step))

    def to_torch(self, step=None):
        """The same as a torch.nn.Module, with trainable parameters of the same names and shapes."""
        return network.to_torch(self.network(step))

    def _checkpoint(self, step):
        if step == "best":
            step = json.loads((self.path / "best.json").read_text())["step"]
        elif step is None:
            step = max(self.steps, default=None)
        if step not in self.steps:
            raise FileNotFoundError(f"{self.path} has no checkpoint of step {step}; there are: {self.steps}")
        return self.path / "checkpoints" / f"{step:08}"

    def _trained(self, step):
        return json.loads((self._checkpoint(step) / "state.json").read_text())["identity"]["trained"]


def find(*folders):
    """The runs in these folders, at any depth."""
    for folder in folders:
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"{folder}: there is no such folder")
    found = {path.parent for folder in folders for path in pathlib.Path(folder).rglob("config.toml") if (path.parent / "run.json").exists()}
    return [Run(path) for path in sorted(found)]


def runs(*folders):
    """A pandas.DataFrame with a row for each run in these folders: its path, settings and results."""
    import pandas

    return pandas.DataFrame([{"run": str(run.path), **run.settings, **run.results} for run in find(*folders)])


def curves(*folders):
    """A pandas.DataFrame with a row for each line of metrics of each run in these folders."""
    import pandas

    lines = [{"run": str(run.path), **line} for run in find(*folders) for line in run.metrics]
    return pandas.json_normalize(lines) if lines else pandas.DataFrame(columns=["run", "split", "step", "epoch", "loss"])


def train(config, out, ranks=1, resume=False, show=True, **sets):
    """Trains a configuration into the folder `out`, and returns the run.

    `sets` overrides keys: `training__epochs=3`, with two underscores for the dot, or `**{"training.epochs": 3}`. More than one rank is
    started by mpirun. What biodist says is printed where `show` is true. An interrupt stops it, with a checkpoint.
    """
    command = [biodist_programs.find("biodist"), "train", str(config), "--out", str(out)] + ["--resume"] * resume
    for key, value in sets.items():
        command += ["--set", f"{key.replace('__', '.')}={toml(value)}"]
    environment = dict(os.environ)
    if ranks > 1:
        command = ["mpirun", "--oversubscribe", "-n", str(ranks), *command]
        # As biodist-launch does: Open MPI starts as root only with both, and crashes now and then where it shares its topology.
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rtc_hwloc_vmhole": "none"}
    said = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as process:
        for line in process.stdout:
            if show:
                print(line, end="", flush=True)
            said.append(line.strip())
    if process.returncode:
        reason = next((line for line in said if line.startswith("biodist: ")), f"it ended with code {process.returncode}")
        raise RuntimeError(f"{' '.join(command)}: {reason}")
    return Run(out)


def save_initial(path, parameters):
    """Writes parameters, a dictionary of arrays by name, for the key `learning.initial` to start a run from."""
    save(path, {name: numpy.asarray(values, dtype="<f4") for name, values in parameters.items()})


def toml(value):
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    # JSON's text, numbers and booleans are TOML's too; numpy's numbers become Python's.
    return json.dumps(value.item() if isinstance(value, numpy.generic) else value, ensure_ascii=False)
