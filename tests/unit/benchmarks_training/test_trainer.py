"""Trainings together are the trainings one by one, each with its own optimizer."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from training import contestants

ROOT = Path(__file__).parents[3]
PROGRAM = """
import dataclasses, json, sys
import jax, jax.numpy as jnp, keras, numpy as np
from training import plan, trainer, workloads
from training.contestants import CONTESTANTS
from training.schedules import WarmUp

sizes = {"classes": 8, "features": 4, "spread": 0.5, "held_out": 64, "full": False}
workload = dataclasses.replace(workloads.WORKLOADS["zipf-64"], steps=32, batch=16, sizes=sizes)

def mean(weights, inputs, labels, problem):
    outputs, _ = problem.model.stateless_call(weights, [], inputs)
    return jnp.mean(problem.losses(outputs, labels))

def alone(name, settings, seed, steps):
    made, rest = CONTESTANTS[name], dict(settings)
    problem = workload.make(workload, seed, steps)
    schedule = WarmUp(rest.pop("rate"), rest.pop("warmup"), steps, made.decays)
    optimizer = made.make(schedule, **rest)
    variables = problem.model.trainable_variables
    optimizer.build(variables)
    for step in range(steps):
        inputs, labels = problem.batch(problem.shared, problem.own, step)
        loss = lambda t: mean(t, inputs, labels, problem)
        optimizer.apply([*jax.grad(loss)([v.value for v in variables])], variables)
    weights = [v.value for v in variables]
    if hasattr(optimizer, "evaluated"):
        weights = optimizer.evaluated(weights)
    inputs, labels = jax.tree.map(lambda x: x[0], problem.held_out(problem.shared, problem.own))
    return float(mean(weights, inputs, labels, problem))

found = {}
for name in sys.argv[1:]:
    members = [(s, 3 + i) for i, s in enumerate(plan.trials(name, 4))]
    if not CONTESTANTS[name].traced:
        members = [(members[1][0], seed) for _, seed in members]
    together = trainer.train(workload, name, members, 32)
    found[name] = [[r["loss"], alone(name, s, seed, 32)] for r, (s, seed) in zip(together, members)]
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize("names", [["acclip"], sorted(set(contestants.CONTESTANTS) - {"acclip"})])
def test_together_as_alone(names):
    """Each contestant's optimizer, its weight decay and its schedule, traced or made as usual."""
    paths = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "examples")]
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names],
        env={"PYTHONPATH": ":".join(paths), "KERAS_BACKEND": "jax", "PATH": "", "HOME": "/tmp"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert set(found) == set(names)
    for name, pairs in found.items():
        together, alone = np.transpose(pairs)
        np.testing.assert_allclose(together, alone, rtol=2e-5, err_msg=name)
        assert len(set(together)) == len(together), name
