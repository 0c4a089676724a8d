"""Trains a network and measures its noise on the way."""

import functools

import keras

from keras_acclip.noise import NoiseSample
from keras_acclip.noise.data import open_batches
from keras_acclip.noise.measure import NoiseMeter

from .. import masked_lm
from ..training import fit_in_stages
from .names import RESNET, STAGES, slug
from .networks import build_network


def name_of(network, seed):
    """The name of a network's run among the work."""
    return f"{slug(network)}-{seed}"


def follow(network, seed, data, work, verbose):
    """Trains a network and measures its noise at each of `STAGES`, or goes on with that.

    Args:
        network: Of `NETWORKS`.
        seed: Of the initial weights and the training batches.
        data: `networks.Data`.
        work: The `resuming.Work`; a run's samples lie in its folder.
        verbose: As in `model.fit`.

    Returns:
        List of dicts, one a stage: `step`, and the mean training `loss` since the last stage (at
        the start, of the batches measured).
    """
    name, settings = name_of(network, seed), data.settings
    kind = "image_" if network == RESNET else ""
    steps, batch_size = settings[f"{kind}steps"], settings[f"{kind}batch_size"]
    stages = [steps * ninths // STAGES[-1] for ninths in STAGES]
    if len(work.rows(name)) == len(stages):
        return work.finish(name)
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = build_network(network, data, settings)
    count, size = settings["noise_batches"], settings["noise_batch_size"]
    measured = open_batches(data.batches(network, size, masked_lm.NOISE_SEED, 0, count))
    meter = NoiseMeter(model)

    def measure(step):
        print(f"{network}, seed {seed}, step {step:,}", flush=True)
        sample = meter.measure(measured, count, verbose=verbose)
        if sample.interrupted:
            raise KeyboardInterrupt
        path = sample_path(work, name, step)
        path.parent.mkdir(parents=True, exist_ok=True)
        sample.save(path)
        return {"loss": float(sample.losses.mean())}

    batches = functools.partial(data.batches, network, batch_size, seed)
    return fit_in_stages(model, stages, batches, measure, work, name, verbose)


def samples(work, network, seed):
    """The samples of a run, stage by stage."""
    name = name_of(network, seed)
    return [NoiseSample.load(sample_path(work, name, row["step"])) for row in work.rows(name)]


def sample_path(work, name, step):
    """The file of the norms measured at a step of a run."""
    return work.folder(name) / f"noise-{step:08d}.npz"
