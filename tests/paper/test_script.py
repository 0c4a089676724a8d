import json
import math

import pytest
import script

SCALES = {
    "small": {"seeds": 5, "rate": 0.5, "dropout": 0.0},
    "smoke": {"seeds": 2, "rate": 0.25, "dropout": 0.0},
    "paper": {"seeds": 9, "rate": 0.1, "dropout": 0.1},
}


def parse(*arguments):
    return script.parse(script.parser("doc", SCALES, "out/x"), SCALES, arguments)


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
    ],
)
def test_a_bad_number_is_named(arguments, message, capsys):
    with pytest.raises(SystemExit):
        parse(*arguments)
    assert message in capsys.readouterr().err


def test_a_part_is_computed_once_and_outlives_an_interruption(tmp_path):
    calls = []

    def compute(x, fail=False):
        calls.append(x)
        if fail:
            raise KeyboardInterrupt
        return {"x": x, "spread": math.nan}

    parts = script.Parts(tmp_path, {"seeds": 2})
    assert parts("a", compute, 1)["x"] == 1
    with pytest.raises(KeyboardInterrupt):
        parts("b", compute, 2, fail=True)
    again = script.Parts(tmp_path, {"seeds": 2})
    found = [again(name, compute, x) for name, x in (("a", 1), ("b", 2))]
    assert [part["x"] for part in found] == [1, 2]
    assert calls == [1, 2, 2]
    assert math.isnan(found[0]["spread"])
    with pytest.raises(ValueError, match=r"other settings \(seeds: 2 → 3\)"):
        script.Parts(tmp_path, {"seeds": 3})

    again.finish({"parts": found}, ("numpy",))
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["settings"] == {"seeds": 2}
    assert set(results["versions"]) == {"numpy"}
    assert results["parts"] == [{"x": 1, "spread": None}, {"x": 2, "spread": None}]
