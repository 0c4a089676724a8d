import argparse

import pytest
from lab import options as shared
from lab import plans, script

SCALES = {
    "small": {"seeds": 5, "rate": 0.5, "dropout": 0.0},
    "smoke": {"seeds": 2, "rate": 0.25, "dropout": 0.0},
    "paper": {"seeds": 9, "rate": 0.1, "dropout": 0.1},
}
RATES = {"acclip": 2e-3, "adam": 1e-3, "sgd": 0.5}
GRID = (1 / 4, 1 / 2, 1, 2, 4)


def parse(*arguments):
    parser = script.parser("doc", SCALES, "out/x")
    plans.add_arguments(parser, RATES, ["acclip", "adam"], GRID)
    return script.parse(parser, SCALES, arguments)


# --- Scales ---


def test_numbers_are_the_scales_unless_given():
    for arguments, seeds, rate in (
        ((), 5, 0.5),
        (("--scale", "smoke"), 2, 0.25),
        (("--scale", "smoke", "--seeds", "7"), 7, 0.25),
        (("--rate", "1e-3"), 5, 1e-3),
    ):
        options = parse(*arguments)
        assert (options.seeds, options.rate) == (seeds, rate)
    assert str(parse().output) == "out/x"
    options = parse("--rate", "1e-3")
    assert script.settings_of(options, SCALES, without=("seeds",)) == {"rate": 1e-3, "dropout": 0.0}


def test_what_a_scale_has_at_zero_can_be_set_to_zero():
    options = parse("--scale", "paper", "--dropout", "0")
    assert (options.dropout, options.rate) == (0.0, 0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "'0' is not a whole number above 0"),
        (["--seeds", "1.5"], "not a whole number above 0"),
        (["--rate", "-1"], "'-1' is not a number above 0"),
        (["--rate", "nan"], "not a number above 0"),
        (["--rate", "0"], "not a number above 0"),
        (["--rate", "fast"], "not a number above 0"),
        (["--dropout", "-0.1"], "'-0.1' is not a number from 0 on"),
        (["--dropout", "nan"], "not a number from 0 on"),
        (["--optimizers", "acclip,adma"], "'adma' is none of acclip, adam, sgd"),
        (["--rates", "adam"], "want NAME=RATE"),
        (["--rates", "adma=1"], "'adma' is none of"),
        (["--rates", "adam=-1"], "above 0"),
        (["--rates", "adam=inf"], "above 0"),
        (["--rates", "adam=nan"], "above 0"),
        (["--beta-1", "adam"], "want NAME=BETA"),
        (["--beta-1", "adma=0.7"], "'adma' is none of"),
        (["--beta-1", "adam=1"], "from 0 to below 1"),
        (["--beta-1", "adam=-0.1"], "from 0 to below 1"),
        (["--beta-2", "adam=nan"], "from 0 to below 1"),
        (["--beta-2", "adam=0.9,sgd=0.9"], "argument --beta-2: sgd does not take it"),
        (["--sedes", "1"], "unrecognized arguments: --sedes"),
    ],
)
def test_a_bad_value_is_named(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(*arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


# --- Plans ---


def test_betas_are_those_asked_for_or_the_tables():
    options = parse("--beta-1", "acclip=0,sgd=0.8", "--beta-2", "acclip=0.9", "--seeds", "1")
    assert plans.plan(options, RATES, GRID, {"adam": (0.7, 0.95), "acclip": (0.8, 0.95)}) == [
        plans.Spec("acclip", 2e-3, 0, 0.0, 0.9),
        plans.Spec("adam", 1e-3, 0, 0.7, 0.95),
    ]
    assert plans.start("sgd", 3, options, RATES) == plans.Spec("sgd", 0.5, 3, 0.8)


def test_a_run_is_named_as_ever_unless_it_is_given_betas():
    named = {
        plans.Spec("acclip", 2e-3, 0): "acclip-0.002-0",
        plans.Spec("adam", 1 / 3, 12): "adam-0.333333-12",
        plans.Spec("adam", 2e-3, 1, 0.7): "adam-0.002-beta1-0.7-1",
        plans.Spec("adam", 2e-3, 1, None, 0.999): "adam-0.002-beta2-0.999-1",
        plans.Spec("adam", 2e-3, 1, 0.0, 0.95): "adam-0.002-beta1-0-beta2-0.95-1",
    }
    for spec, name in named.items():
        assert plans.name_of(spec) == name
        run = plans.run_of(spec, [])
        assert plans.spec_of(run) == spec
        assert ("beta_1" in run, "beta_2" in run) == ("beta1" in name, "beta2" in name)


def test_plan_takes_every_seed_of_every_optimizer():
    options = parse("--seeds", "2")
    assert plans.plan(options, RATES, GRID) == [
        plans.Spec(name, rate, seed)
        for name, rate in (("acclip", 2e-3), ("adam", 1e-3))
        for seed in (0, 1)
    ]
    assert plans.first_untuned(options, RATES) == plans.Spec("acclip", 2e-3, 0)
    given = parse("--seeds", "2", "--optimizers", "sgd,adam,sgd", "--rates", "sgd=0.123,adam=3e-4")
    first = [plans.Spec("sgd", 0.123, 0), plans.Spec("adam", 3e-4, 0)]
    assert plans.plan(given, RATES, GRID)[::2] == first
    assert plans.first_untuned(given, RATES) == first[0]


def test_tuning_tries_as_many_rates_for_each_around_its_own():
    plan = plans.plan(parse("--seeds", "2", "--tune", "--rates", "adam=0.123"), RATES, GRID)
    for name, middle in (("acclip", 2e-3), ("adam", 0.123)):
        rates = [spec.rate for spec in plan if (spec.optimizer, spec.seed) == (name, 1)]
        assert rates[2] == middle
        assert rates == pytest.approx([middle * factor for factor in GRID], rel=0.05)
    assert len(plan) == len({plans.name_of(spec) for spec in plan}) == 2 * len(GRID) * 2


# --- What must go together ---


def check(add, checks, **values):
    parser = argparse.ArgumentParser()
    add(parser)
    options = parser.parse_args([])
    vars(options).update({"scale": "small"} | values)
    for each in checks:
        each(parser, options)
    return options


@pytest.mark.parametrize(
    ("checked", "values", "message"),
    [
        (shared.check_schedule, {"steps": 15, "epochs": 6}, "15 must be a multiple of --epochs 6"),
        (shared.check_schedule, {"steps": 6, "warmup": 6}, "--warmup 6 must be below --steps 6"),
        (shared.check_width, {"hidden": 100}, "--hidden 100 must be a multiple of 64"),
        (shared.check_text, {"validation_text": ["a"]}, "--validation-text needs --text"),
        (shared.check_images, {"images": "a", "tfds": "b"}, "one of the two"),
        (shared.check_images, {"tfds_dir": "a"}, "--tfds-dir needs --tfds"),
        (shared.check_images, {"images": "a", "tfds_dir": "a"}, "--tfds-dir needs --tfds"),
        (shared.check_images, {"image_size": 64}, "--image-size needs --tfds or --images"),
        (shared.check_images, {"images": "a", "image_size": 8}, "8 must be at least 32"),
        (shared.check_images, {"scale": "paper"}, "--scale paper needs --images or --tfds"),
    ],
)
def test_options_that_do_not_go_together_are_named(checked, values, message, capsys):
    def add(parser):
        shared.add_text(parser)
        shared.add_images(parser)

    numbers = {"steps": 6, "warmup": 2, "epochs": 3, "hidden": 64}
    check(add, [checked], **numbers)
    with pytest.raises(SystemExit) as ended:
        check(add, [checked], **numbers | values)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_the_papers_images_are_larger():
    for scale, size in (("small", 32), ("paper", 224)):
        options = check(shared.add_images, [shared.check_images], images="a", scale=scale)
        assert options.image_size == size
