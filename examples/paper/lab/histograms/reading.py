"""The samples of all networks as a table, in words, and as Figures 1, 2 and 4."""

from keras_acclip.noise import plots

from ..tables import markdown
from .names import FIGURE_4, RESNET, slug


def table(stages):
    """The stages of all networks as a Markdown table.

    Args:
        stages: List of dicts: `network`, `seed`, `step`, `loss`, and `describe`'s.
    """
    header = "network, seed, step, loss, mean norm, sd ÷ mean, largest ÷ median"
    header += ", variance at n/4 ÷ at n, kurtosis, Hill's index (95%), verdict"
    rows = [header.split(", ")]
    for stage in stages:
        hill = "{:.3g} ({:.3g} to {:.3g})".format(*stage["hill"]) if "hill" in stage else "–"
        row = (
            stage["network"],
            f"{stage['seed']}",
            f"{stage['step']:,}",
            f"{stage['loss']:.3f}",
            f"{stage['norm']:.3g}",
            f"{stage['spread']:.3f}",
            f"{stage['largest']:.2f}",
            "{:.2f} to {:.2f}".format(*stage["variance_at_quarter"]),
            f"{stage['kurtosis']:.2g}" if stage["kurtosis"] is not None else "–",
            hill,
            stage["verdict"],
        )
        rows.append(row)
    return markdown(rows)


def sentences(differences):
    """The differences in words, one line each."""
    words = {"spread": "sd ÷ mean", "tail_weight": "1 ÷ Hill's index of the largest tenth"}
    return "\n".join(
        f"step {row['step']:,}, seed {row['seed']}, ({row['first']}) − ({row['second']}): "
        + "; ".join(
            "{} {:+.3g} (95% {:+.3g} to {:+.3g})".format(word, *row[name])
            for name, word in words.items()
        )
        for row in differences
    )


def draw(samples, size, output):
    """Draws Figures 1, 2 and 4 into `output`; returns the names of the files.

    Args:
        samples: dict from network to its `NoiseSample`s, stage by stage.
        size: Examples in a batch.
        output: Folder.
    """
    batches = f"batches of {size}"
    bert_name = next(iter(FIGURE_4))
    figures = {
        "figure1.png": plots.side_by_side(
            [samples[name][-1] for name in (RESNET, bert_name)],
            [f"{name}, step {samples[name][-1].step:,}" for name in (RESNET, bert_name)],
            f"Figure 1: gradient noise at the end of training, {batches}",
        )
    }
    for name, stages in samples.items():
        labels = [f"step {sample.step:,}" for sample in stages]
        title = f"Figure 2: {name}, {batches}"
        figures[f"figure2-{slug(name)}.png"] = plots.evolution(stages, labels, title)
    for stage in (0, -1):
        two_by_two = [samples[name][stage] for name in FIGURE_4]
        step = two_by_two[0].step
        title = f"Figure 4: gradient noise at step {step:,}, {batches}"
        figures[f"figure4-step-{step}.png"] = plots.grid(two_by_two, list(FIGURE_4), title)
    for name, figure in figures.items():
        plots.save(figure, output / name)
    return list(figures)
