"""The training steps of experiments as programs for a GPU and a TPU, which this CPU machine lowers.

Nothing runs on these devices here. What is read is the StableHLO module that their compilers get.
"""

import re
from functools import partial

import jax
import pytest

from experiments import few_shot, mnist, sequences
from jaxdl import parallel
from jaxdl.data.sets import images
from jaxdl.runs.config import RunFlags, unflat
from tests.test_sequences_experiment import made_up


class FoundError(Exception):
    """Carries out of an experiment: the function that it would compile, and its arguments."""


@pytest.fixture
def modules(monkeypatch, tmp_path):
    """`(experiment, **fields) -> texts`, of a GPU and a TPU: the loop over steps, with one step.

    They hold for an accelerator: no convolution is grouped, nothing calls the host, and the new
    state overwrites the old one.
    """

    def compile_on(run, devices, args, *, donate=None, check=None):
        raise FoundError(run, args, donate)

    def lower(experiment, **fields):
        # What chooses by backend, such as how many tasks at once, chooses as on an accelerator.
        monkeypatch.setattr(jax, "default_backend", lambda: "cuda")
        monkeypatch.setattr(parallel, "compile_on", compile_on)
        run = RunFlags(runs_dir=tmp_path, devices=1, log_every=2)
        config = unflat(experiment.Config, {"steps": 4, "eval_every": 2, "run": run, **fields})
        with pytest.raises(FoundError) as found:
            experiment.main(config)
        program, args, donate = found.value.args
        traced = jax.jit(partial(program, parallel.WHOLE), donate_argnums=donate).trace(*args)
        texts = [traced.lower(lowering_platforms=(each,)).as_text() for each in ("cuda", "tpu")]
        for text in texts:
            assert set(re.findall(r"(?:feature|batch)_group_count = (\d+)", text)) <= {"1"}
            assert "callback" not in text
            assert text.count("tf.aliasing_output") == len(jax.tree.leaves(args[donate]))
        return texts

    return lower


def test_a_step_of_maml_has_ungrouped_convolutions_and_none_twice(modules):
    """Second order, through conv-4. The first layer needs no gradient by the images."""
    for text in modules(few_shot, pretraining_steps=0):
        assert text.count("stablehlo.convolution") == 20
        assert text.count("feature_group_count = 1 ") == 20
        assert text.count("stablehlo.dot_general") == 34


@pytest.mark.parametrize("experiment", [mnist, sequences])
def test_a_supervised_step_stays_on_the_device(experiment, modules, monkeypatch):
    monkeypatch.setattr(images, "image_arrays", made_up)
    for text in modules(experiment, batch=8, validation=20):
        assert "stablehlo.dot_general" in text
