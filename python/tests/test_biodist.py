"""The package on runs that these tests train: `python3 -m unittest discover python/tests`, with biodist's programs on PATH."""

import contextlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import biodist  # noqa: E402

CONFIG = """
[data]
train = "train"
test = "test"
batch_size = 20
scaling = "standardize"
[network]
layers = [{ kind = "dense", units = 24 }, { kind = "dense", units = 16 }]
[learning]
rule = "bp"
[optimizer.forward]
learning_rate = 0.002
[training]
epochs = 2
"""
LOCAL = [{"kind": "local", "kernel": 3, "channels": 4, "stride": 2}, {"kind": "local", "kernel": 2, "channels": 3, "stride": 1}]
CONV = [{"kind": "conv", "kernel": 3, "channels": 4, "stride": 2}, {"kind": "conv", "kernel": 4, "channels": 3, "stride": 1}]
POOLS = [CONV[0] | {"stride": 1}, {"kind": "max_pool", "kernel": 3, "stride": 2}, {"kind": "average_pool", "kernel": 2, "stride": 2}]
SHORTCUTS = [
    {"kind": "conv", "kernel": 3, "channels": 4},
    {"kind": "conv", "kernel": 1, "channels": 5, "stride": 2, "nonlinearity": "identity", "normalization": "batch"},
    {"kind": "conv", "kernel": 3, "channels": 5, "stride": 2, "from": 0, "shortcut": 1, "normalization": "batch"},
    {"kind": "dense", "units": 12, "normalization": "batch"},
]


def quietly(function, *arguments, **sets):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        result = function(*arguments, **sets)
    return result, said.getvalue()


def train(*arguments, **sets):
    return quietly(biodist.train, "short.toml", *arguments, **sets)[0]


class Tests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.before, cls.folder = os.getcwd(), tempfile.TemporaryDirectory()
        os.chdir(cls.folder.name)
        pathlib.Path("short.toml").write_text(CONFIG)
        numbers = numpy.random.default_rng(1)
        patterns = numbers.integers(0, 160, (10, 7, 9))
        cls.images = {}
        for split, samples in [("train", 400), ("test", 151)]:
            labels = numbers.integers(0, 10, samples).astype("u1")
            images = (patterns[labels] + numbers.integers(0, 96, (samples, 7, 9))).astype("u1")
            numpy.array([0x803, samples, 7, 9], ">u4").tofile("images")
            numpy.array([0x801, samples], ">u4").tofile("labels")
            for name, content in [("images", images), ("labels", labels)]:
                with open(name, "ab") as file:
                    content.tofile(file)
            prepare = ["data-prep", "idx", "--images", "images", "--labels", "labels", "--out", split]
            subprocess.run(prepare, check=True, capture_output=True)
            cls.images[split] = images[..., None], labels

    @classmethod
    def tearDownClass(cls):
        os.chdir(cls.before)
        cls.folder.cleanup()

    def error_of_eval(self, run):
        said = subprocess.run(["biodist", "eval", str(run.path)], check=True, capture_output=True, text=True).stdout
        return int(re.search(r"\((\d+) wrong\)", said)[1]), float(re.search(r"loss +([0-9.]+)", said)[1])

    def test_outputs_are_those_of_eval(self):
        hidden = {"local": LOCAL, "conv": CONV, "pools": POOLS, "shortcuts": SHORTCUTS}
        layers = {"dense": {}} | {name: {"network.layers": layers} for name, layers in hidden.items()}
        nonlinear = {name: {"network.nonlinearity": name} for name in ["relu", "leaky_relu", "gelu", "identity"]}
        for name, sets in (layers | nonlinear).items():
            for scaling in ["standardize", "unit"] if name in layers else ["unit"]:
                run = train(f"outputs/{name}_{scaling}", **{"data.scaling": scaling}, **sets)
                images, labels = self.images["test"]
                outputs = run.network()(images).astype("f8")
                loss = numpy.log(numpy.exp(outputs).sum(1)) - outputs[range(len(labels)), labels]
                wrong, expected = self.error_of_eval(run)
                self.assertEqual((outputs.argmax(1) != labels).sum(), wrong, name)
                self.assertAlmostEqual(loss.mean(), expected, 5)
                self.equals_in_torch(run, images, outputs)
        with self.assertRaisesRegex(ValueError, r"the network takes \[samples, 7, 9, 1\]"):
            run.network()(images[..., 0])

    def equals_in_torch(self, run, images, outputs):
        try:
            import torch
        except ImportError:
            return
        module = run.to_torch()
        self.assertEqual(set(dict(module.named_parameters())), set(run.parameters()))
        found = module(images)
        numpy.testing.assert_allclose(found.detach().numpy(), outputs, atol=1e-5)
        torch.nn.functional.cross_entropy(found, torch.as_tensor(self.images["test"][1]).long()).backward()
        self.assertTrue(all(weight.grad is not None for weight in module.parameters()))

    def test_tables_hold_settings_results_and_curves(self):
        train("tables/a", training__epochs=3)
        train("tables/deeper/b", ranks=2, learning__rule="sdtp", learning__sigma=numpy.float32(0.25))
        pathlib.Path("tables/notes.txt").write_text("no run")
        table = biodist.runs("tables").set_index("run")
        self.assertEqual(list(table.index), ["tables/a", "tables/deeper/b"])
        row = table.loc["tables/deeper/b"]
        self.assertEqual((row["learning.rule"], row["learning.sigma"], row["optimizer.forward.learning_rate"]), ("sdtp", 0.25, 0.002))
        self.assertEqual(table["training.epochs"].to_list(), [3, 2])
        wrong, _ = self.error_of_eval(biodist.Run("tables/a"))
        self.assertEqual(round(table.loc["tables/a", "test_top1_error"] * 151), wrong)

        curves = biodist.curves("tables/a", "tables/deeper")
        lines = [json.loads(line) for run in table.index for line in pathlib.Path(run, "metrics.jsonl").read_text().splitlines()]
        self.assertEqual(curves["loss"].to_list(), [line["loss"] for line in lines])
        test = curves[curves.split == "test"]
        self.assertEqual(test[test.run == "tables/a"].epoch.to_list(), [1, 2, 3])
        # Half a line, as of a run that goes on, is none yet.
        with open("tables/a/metrics.jsonl", "a") as file:
            file.write('{"split":"te')
        self.assertEqual(len(biodist.curves("tables")), len(lines))
        with self.assertRaisesRegex(FileNotFoundError, "nowhere: there is no such folder"):
            biodist.runs("nowhere")

    def test_parameters_are_those_of_a_step(self):
        run = train("steps", training__keep_checkpoints=9)
        self.assertEqual(run.steps, [0, 20, 40])
        at = {step: run.parameters(step) for step in [None, *run.steps]}
        shapes = {name: values.shape for name, values in at[0].items()}
        self.assertEqual((shapes["layers.0.weight"], shapes["layers.2.bias"]), ((24, 63), (10,)))
        self.assertTrue((at[None]["layers.0.weight"] == at[40]["layers.0.weight"]).all())
        self.assertFalse((at[20]["layers.0.weight"] == at[40]["layers.0.weight"]).any())
        at[40]["layers.0.weight"][:] = 0
        self.assertTrue(run.parameters()["layers.0.weight"].any(), "the file stays as it is")
        with self.assertRaisesRegex(FileNotFoundError, r"no checkpoint of step 7; there are: \[0, 20, 40\]"):
            run.parameters(7)
        run = train("best", data__validation=40)
        best = json.loads(pathlib.Path("best/best.json").read_text())["step"]
        self.assertTrue((run.parameters("best")["layers.0.bias"] == run.parameters(best)["layers.0.bias"]).all())

    def test_training_says_what_is_wrong(self):
        with self.assertRaisesRegex(RuntimeError, r"train short.toml .*did you mean `alpha`"):
            train("wrong", learning__alpah=0.1)
        with self.assertRaisesRegex(RuntimeError, r"batch_size"):
            train("wrong", ranks=3)
        _, said = quietly(biodist.train, "short.toml", "said", training__max_steps=3)
        self.assertIn("done: said", said)
        self.assertEqual(train("said", resume=True, training__max_steps=5).steps[-1], 5)

    def test_a_run_begins_with_saved_parameters(self):
        drawn = train("initial/drawn", training__max_steps=1).parameters(0)
        weight = numpy.full((16, 24), 0.125, "f8")
        biodist.save_initial("initial.safetensors", {"layers.1.weight": weight})
        begun = train("initial/given", training__max_steps=1, learning__initial=pathlib.Path("initial.safetensors")).parameters(0)
        self.assertTrue((begun.pop("layers.1.weight") == weight).all())
        self.assertTrue(all((values == drawn[name]).all() for name, values in begun.items()))
        biodist.save_initial("initial.safetensors", {"layers.1.weight": weight.T})
        with self.assertRaisesRegex(RuntimeError, r"layers.1.weight is F32 \[24, 16\] there"):
            train("initial/wrong", learning__initial="initial.safetensors")

    def test_tensors_are_read_as_they_were_written(self):
        tensors = {"a": numpy.arange(6, dtype="f4").reshape(2, 3), "empty": numpy.zeros((0, 4), "f4"), "scalar": numpy.array(2, "f4")}
        biodist.save_initial("file.safetensors", tensors)
        loaded = biodist.load("file.safetensors")
        for name, values in tensors.items():
            self.assertEqual(loaded[name].shape, values.shape)
            numpy.testing.assert_array_equal(loaded[name], values)


if __name__ == "__main__":
    unittest.main()
