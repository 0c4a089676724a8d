"""Measures the gradient noise of five networks along their training: the paper's Figures 1, 2, 4.

    python examples/paper/noise_histograms.py
    python examples/paper/noise_histograms.py --text 'books/*.txt.gz' --images cifar10
    python examples/paper/noise_histograms.py --scale paper --text 'wiki/*.gz' --tfds imagenet2012

The claim (Section 2, Section 5.3): the norms ‖g − ∇f(x)‖ of the gradient noise are heavy-tailed
for attention models on text and concentrated for ResNets on images, from the start and throughout
training; both the architecture and the data have a part in it.

Four networks differ in two things alone, the two by two of Figure 4: whether their blocks have
self-attention or, in its place, a residual feed-forward block with as many parameters; and whether
they see the text, or Gaussian vectors where the text's token embeddings would be. All four predict
the same masked words of the same rows (on Gaussian input only their frequencies can be learned).
The fifth is the ResNet of Figure 1, on images. The four are trained with Adam, the ResNet with SGD
with momentum. Their noise is measured at initialization and at five stages of training, always on
the same batches, of `--noise-batch-size` examples in every network.

Under `--output`: `figure1.png` (the ResNet above the BERT with attention on text, both at the end:
histogram with the Gaussian and the α-stable reference, variance against sample size, tail),
`figure2-….png` (a network's histograms over training), `figure4-….png` (the two by two at a
stage), `results.json` and all norms (`runs/`). A difference between two networks has a paired
bootstrap interval over the batches that both saw: it covers the choice of batches, not of seeds.
Stopped and started again, it goes on after the last stage measured.

What came out stands in docs/results/noise_histograms.md.
"""

import functools
import sys

from lab import options as shared
from lab import script
from lab.histograms.names import NETWORKS, PAIRS, RESNET, STAGES

SCALES = {
    "small": {
        "steps": 360,
        "warmup": 180,
        "batch_size": 16,
        "rate": 2e-3,
        "sequence_length": 64,
        "layers": 2,
        "hidden": 128,
        "vocabulary_size": 4096,
        "image_steps": 360,
        "image_batch_size": 32,
        "image_rate": 0.1,
        "noise_batches": 200,
        "noise_batch_size": 8,
        "seeds": 1,
    },
    "smoke": {
        "steps": 9,
        "warmup": 4,
        "batch_size": 8,
        "rate": 2e-3,
        "sequence_length": 32,
        "layers": 1,
        "hidden": 64,
        "vocabulary_size": 512,
        "image_steps": 9,
        "image_batch_size": 32,
        "image_rate": 0.1,
        "noise_batches": 20,
        "noise_batch_size": 4,
        "seeds": 1,
    },
    # The paper states 36,000 steps (Figure 2), Adam's rate and ResNet-50; the rest is what BERT
    # (base; Devlin et al., 2019) and ResNet (He et al., 2016) were trained with.
    "paper": {
        "steps": 36_000,
        "warmup": 10_000,
        "batch_size": 256,
        "rate": 1e-4,
        "sequence_length": 128,
        "layers": 12,
        "hidden": 768,
        "vocabulary_size": 30_522,
        "image_steps": 36_000,
        "image_batch_size": 256,
        "image_rate": 0.1,
        "noise_batches": 2000,
        "noise_batch_size": 256,
        "seeds": 1,
    },
}
LEAST_BATCHES = 20


def parse_arguments(arguments=None):
    """The command line, checked."""
    parser = script.parser(__doc__, SCALES, "out/noise_histograms")
    shared.add_text(parser)
    shared.add_images(parser)
    shared.add_jobs(parser)
    options = script.parse(parser, SCALES, arguments)
    for name in ("steps", "image_steps"):
        if getattr(options, name) < STAGES[-1]:
            flag = name.replace("_", "-")
            parser.error(f"--{flag} {getattr(options, name)} must be at least {STAGES[-1]}")
    shared.check_text(parser, options)
    shared.check_images(parser, options)
    shared.check_warmup(parser, options)
    shared.check_width(parser, options)
    if options.noise_batches < LEAST_BATCHES:
        parser.error(f"--noise-batches {options.noise_batches} must be at least {LEAST_BATCHES}")
    return options


# --- The networks ----------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)  # A process studies several networks.
def load(arguments):
    """The command line's options, and the `Data` that it asks for.

    Args:
        arguments: The command line's, as a tuple.

    Raises:
        ValueError: If text or images can't be used.
    """
    options = parse_arguments(arguments)
    from lab import images, token_rows
    from lab.histograms.networks import Data

    settings = {"scale": options.scale}
    settings |= script.settings_of(options, SCALES, without=("seeds",))
    rows, pictures = token_rows.load(options), images.load(options)
    settings |= {"text": rows.source, "images": pictures.name}
    data = Data(rows, pictures, settings)
    data.batches(RESNET, max(options.image_batch_size, options.noise_batch_size), 0, 0, 1)
    return options, data


def study(run, arguments, work, verbose):
    """Follows a network, or goes on with that, and describes its noise.

    Args:
        run: The network's name, of `NETWORKS`, and the seed.
        arguments: The command line's.
        work: The `resuming.Work`.
        verbose: As in `model.fit`.

    Returns:
        List of dicts, one a stage: `network`, `seed`, `step`, `loss`, and `describe`'s.
    """
    from lab.histograms.description import describe
    from lab.histograms.stages import follow, samples

    (network, seed), (_, data) = run, load(arguments)
    rows = follow(network, seed, data, work, verbose)
    found = zip(rows, samples(work, network, seed), strict=True)
    return [{"network": network, "seed": seed} | row | describe(sample) for row, sample in found]


def report(stages, work, options):
    """Prints and saves what came out of the finished runs."""
    from lab.histograms.description import difference
    from lab.histograms.reading import draw, sentences, table
    from lab.histograms.stages import samples

    differences, drawn = [], {}
    for seed in range(options.seeds):
        found = {network: samples(work, network, seed) for network in NETWORKS}
        for first, second in PAIRS:
            for stage in (0, -1):
                a, b = found[first][stage], found[second][stage]
                pair = {"first": first, "second": second, "seed": seed, "step": a.step}
                differences.append(pair | difference(a, b))
        drawn = drawn or found
    print(f"\n{table(stages)}\n\n{sentences(differences)}")
    names = draw(drawn, options.noise_batch_size, options.output)
    results = {"stages": stages, "differences": differences}
    work.write_results(results, ("keras", "keras-hub", "tensorflow", "scikit-learn"))
    print(f"\nWritten under {options.output}: results.json, {', '.join(names)}")


# --- The command -----------------------------------------------------------------------------


def main(arguments=None):
    """Reads the command line, trains and measures what it asks for. Returns the exit status."""
    arguments = tuple(sys.argv[1:] if arguments is None else arguments)
    parse_arguments(arguments)
    from lab import resuming, runs

    try:
        options, data = load(arguments)
        work = resuming.Work(options.output, data.settings)
    except ValueError as error:
        return script.failed(error)
    print(f"Text: {data.rows.name}\nImages: {data.images.name}", flush=True)
    specs = [(network, seed) for seed in range(options.seeds) for network in NETWORKS]
    jobs, one_line = runs.jobs(options), 1 if sys.stdout.isatty() else 2
    verbose = one_line if jobs == 1 else 0  # Several at a time would mix their lines.
    one = functools.partial(study, arguments=arguments, work=work, verbose=verbose)
    try:
        with runs.pool(jobs) as pool:
            studied = runs.start(one, {spec: spec for spec in specs}, pool)
            stages = [stage for spec in specs for stage in studied(spec)]
    except KeyboardInterrupt:
        return script.stopped(options.output)
    except runs.RunError as error:
        return script.failed(error, status=1)
    report(stages, work, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
