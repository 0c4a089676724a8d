"""The figures of one sample and of several."""

import functools
from types import SimpleNamespace
from xml.etree import ElementTree

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from keras_acclip.noise import plots, tails
from tests.tiers import some

pytestmark = pytest.mark.filterwarnings("error")

SINGLE = {
    "histogram": plots.histogram,
    "variance_growth": plots.variance_growth,
    "tail": plots.tail,
    "hill_plot": plots.hill_plot,
    "panel": plots.panel,
}
SEVERAL = {
    "evolution": plots.evolution,
    "grid": plots.grid,
    "side_by_side": plots.side_by_side,
}


def draw(name, sample, title="Toy"):
    if name in SINGLE:
        return SINGLE[name](sample, title)
    return SEVERAL[name]([sample, sample], ["a", "b"], title)


def concentrated(n=120):
    return np.sqrt(np.random.default_rng(0).chisquare(200, size=n))


def heavy(n=120):
    return 1 + np.random.default_rng(0).pareto(1.2, size=n)


@functools.cache
def drawn(name, make):
    """One figure for all tests that only look at it."""
    figure = draw(name, make())
    figure.canvas.draw()
    return figure


def texts_of(figure):
    found = figure.findobj(matplotlib.text.Text)
    return [text.get_text() for text in found if text.get_visible() and text.get_text()]


AWKWARD = {
    "constant": np.ones(200),
    "one": np.array([3.0]),
    "few": np.arange(1.0, 16.0),
    "with zero": np.arange(120.0),
    "narrow": 1 + 1e-6 * np.random.default_rng(0).normal(size=120),
    "clipped": np.minimum(heavy(), 2.0),
    "small unit": 1e-20 * heavy(),
}


@pytest.mark.parametrize("name", [*SINGLE, *SEVERAL])
class TestEveryFigure:
    def test_leaves_matplotlib_alone(self, name):
        settings = dict(matplotlib.rcParams)
        open_figures = plt.get_fignums()
        # As few norms as can't be fitted.
        figure = draw(name, concentrated(15))
        assert isinstance(figure, matplotlib.figure.Figure)
        assert dict(matplotlib.rcParams) == settings
        assert plt.get_fignums() == open_figures

    @pytest.mark.parametrize("make", some([concentrated, heavy], [heavy]))
    def test_says_the_verdict_and_the_title(self, name, make):
        label = tails.classify(make()).label
        texts = texts_of(drawn(name, make))
        assert any("Toy" in text for text in texts)
        assert any(label in text for text in texts)

    def test_labels_its_axes_with_units(self, name):
        for axes in drawn(name, heavy).axes:
            assert any(unit in axes.get_xlabel() for unit in ("gradient", "batches"))
            if name != "evolution":
                assert any(unit in axes.get_ylabel() for unit in ("count", "units", "batches", "α"))

    def test_takes_anything_with_norms(self, name):
        few = heavy(15)
        texts = texts_of(draw(name, few))
        assert texts_of(draw(name, SimpleNamespace(norms=few))) == texts

    @pytest.mark.parametrize("sample", [[], [1.0, np.nan], [-1.0, 2.0], np.ones((2, 2))])
    def test_rejects_what_is_no_sample(self, name, sample):
        with pytest.raises(ValueError):
            draw(name, sample)


class TestAwkwardSamples:
    @pytest.mark.parametrize("sample", AWKWARD.values(), ids=AWKWARD)
    def test_are_drawn(self, sample):
        plots.panel(sample).canvas.draw()
        plots.evolution([sample, sample], ["a", "b"]).canvas.draw()

    @pytest.mark.slow
    @pytest.mark.parametrize("draw", SEVERAL.values(), ids=SEVERAL)
    def test_are_drawn_together(self, draw):
        draw(AWKWARD.values(), AWKWARD).canvas.draw()

    @pytest.mark.slow
    @pytest.mark.parametrize("name", [*SINGLE, *SEVERAL])
    @pytest.mark.parametrize("sample", AWKWARD.values(), ids=AWKWARD)
    def test_are_drawn_alone_by_every_figure(self, name, sample):
        draw(name, sample).canvas.draw()


class TestContents:
    def test_histogram_counts_every_norm(self):
        for sample in (concentrated(), heavy()):
            axes = plots.histogram(sample).axes[0]
            values, edges, _ = axes.patches[0].get_data()
            assert values.sum() == len(sample)
            assert edges[0] <= sample.min()
            assert edges[-1] >= sample.max()

    def test_histogram_shows_both_references(self):
        sample = concentrated()
        axes = plots.histogram(sample).axes[0]
        gaussian, stable = (line.get_ydata() for line in axes.lines)
        # Both are the same law here, and expect as many batches as there are.
        assert gaussian.sum() == pytest.approx(len(sample), rel=0.02)
        np.testing.assert_allclose(stable, gaussian, atol=1.0)
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        reference = tails.gaussian_reference(sample)
        assert f"Gaussian vectors (fit: p = {reference.p_value:.2g})" in labels

    def test_histogram_says_what_is_missing(self):
        labels = texts_of(plots.histogram(1 + 1e-6 * concentrated()))
        assert "α-stable vectors: can't be fitted" in labels

    def test_wide_norms_are_drawn_on_a_logarithmic_axis(self):
        assert plots.histogram(heavy()).axes[0].get_xscale() == "log"
        assert plots.histogram(concentrated()).axes[0].get_xscale() == "linear"

    def test_variance_curves_are_those_of_the_statistics(self):
        axes = plots.variance_growth(heavy(), orders=3, seed=7).axes[0]
        growth = tails.variance_growth(heavy(), orders=3, seed=7)
        for line, row in zip(axes.lines, growth.variances, strict=False):
            np.testing.assert_array_equal(line.get_ydata(), row[growth.sizes >= 10])
        assert axes.lines[3].get_ydata()[0] == growth.variances[0, -1]

    def test_tail_shows_the_sample_and_hill_s_line(self):
        sample = heavy()
        fit = tails.hill(sample)
        points, line, two = plots.tail(sample).axes[0].lines
        np.testing.assert_array_equal(points.get_xdata(), np.sort(sample))
        for drawn, slope in ((line, fit.alpha), (two, 2.0)):
            x, y = np.log(drawn.get_xdata()), np.log(drawn.get_ydata())
            np.testing.assert_allclose(np.diff(y) / np.diff(x), -slope)
            assert y[0] == pytest.approx(np.log(fit.k / len(sample)))

    def test_hill_plot_marks_the_chosen_k(self):
        sample = heavy()
        fit, curve = tails.hill(sample), tails.hill_plot(sample)
        axes = plots.hill_plot(sample).axes[0]
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), curve.alpha)
        marker = next(line for line in axes.lines if line.get_marker() == "o")
        assert (marker.get_xdata()[0], marker.get_ydata()[0]) == (fit.k, fit.alpha)

    def test_panel_gives_the_reason(self):
        figure = plots.panel(heavy())
        assert len(figure.axes) == 4
        reason = tails.classify(heavy()).reason
        assert any(text.replace("\n", " ") == reason for text in texts_of(figure))

    def test_evolution_names_each_stage(self):
        samples = [concentrated(), heavy(), heavy()]
        texts = texts_of(plots.evolution(samples, ["step 0", "step 10", "step 20"], title="Toy"))
        assert {"step 0", "step 10", "step 20"} <= set(texts)
        assert "Toy: concentrated → heavy-tailed" in texts
        index = tails.classify(heavy()).tail_index[0]
        assert texts.count(f"heavy-tailed, index {index:.3g}") == 2

    def test_evolution_of_many_stages_keeps_its_labels_apart(self):
        figure = plots.evolution([concentrated()] * 60, [f"step {i}" for i in range(60)])
        assert figure.get_size_inches()[1] < 16
        assert sum(text.startswith("step ") for text in texts_of(figure)) <= 25

    def test_grid_is_two_by_two(self):
        figure = plots.grid([heavy(), concentrated()] * 2, ["a", "b", "c", "d"], title="Toy")
        titles = [axes.get_title(loc="left") for axes in figure.axes]
        assert titles == [
            "a: heavy-tailed",
            "b: concentrated",
            "c: heavy-tailed",
            "d: concentrated",
        ]
        assert figure.axes[0].get_subplotspec().get_gridspec().get_geometry() == (2, 2)

    def test_side_by_side_is_a_row_of_three_for_each(self):
        samples = [heavy(200), concentrated(300)]
        figure = plots.side_by_side(samples, ["a", "b"], title="Toy")
        assert [row.get_suptitle() for row in figure.subfigs] == [
            "a: heavy-tailed",
            "b: concentrated",
        ]
        for row, sample in zip(figure.subfigs, samples, strict=True):
            histogram, growth, tail = row.axes
            (counts,) = (patch.get_data().values for patch in histogram.patches)
            assert counts.sum() == len(sample)
            np.testing.assert_allclose(growth.lines[-1].get_ydata(), np.var(sample, ddof=1))
            assert tail.get_legend_handles_labels()[1][0] == f"{len(sample)} batches"

    @pytest.mark.parametrize("draw", [plots.evolution, plots.grid, plots.side_by_side])
    def test_several_need_a_label_each(self, draw):
        for samples, labels in (([], []), ([heavy()], ["a", "b"])):
            with pytest.raises(ValueError, match="one label for each"):
                draw(samples, labels)


class TestStyle:
    def test_holds_inside_alone(self):
        before = dict(matplotlib.rcParams)
        with plots.style():
            assert matplotlib.rcParams["axes.spines.top"] is False
        assert dict(matplotlib.rcParams) == before

    def test_lines_differ_in_grey(self):
        with plots.style():
            cycle = list(matplotlib.rcParams["axes.prop_cycle"])
        assert len({str(entry["linestyle"]) for entry in cycle}) == len(cycle)
        grey = sorted(np.dot(to_rgb(entry["color"]), (0.299, 0.587, 0.114)) for entry in cycle)
        assert max(grey) < 0.75

    def test_suits_pyplot_figures(self):
        with plots.style():
            figure, axes = plt.subplots()
        assert not axes.spines["right"].get_visible()
        plt.close(figure)


class TestSave:
    def test_png_and_svg(self, tmp_path):
        figure = plots.tail(heavy())
        png = plots.save(figure, tmp_path / "tail.png")
        assert imread(png).std() > 0
        svg = plots.save(figure, str(tmp_path / "tail.SVG"))
        assert ElementTree.parse(svg).getroot().tag.endswith("svg")
        assert "noise norm" in svg.read_text(encoding="utf-8")

    def test_same_figure_same_file(self, tmp_path):
        for suffix in ("png", "svg"):
            first, again = (
                plots.save(plots.hill_plot(heavy()), tmp_path / f"{i}.{suffix}").read_bytes()
                for i in range(2)
            )
            assert first == again

    def test_other_formats_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match=r"\.png or \.svg"):
            plots.save(plots.tail(heavy()), tmp_path / "tail.pdf")
