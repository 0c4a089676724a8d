"""The results file of the comparison of optimizers."""

import multiprocessing

import pytest
from training import rows

ROW = {"workload": "w", "contestant": "c", "hyperparameters": {"rate": 0.1}, "seed": 0, "steps": 16}


def test_rows_come_back_in_order(tmp_path):
    path = tmp_path / "folder" / "rows.jsonl"
    assert rows.read(path) == []
    for seed in range(3):
        rows.append(path, ROW | {"seed": seed})
    assert [row["seed"] for row in rows.read(path)] == [0, 1, 2]


def test_half_a_line_is_left_out_and_then_replaced(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows.append(path, ROW)
    with path.open("a") as file:
        file.write('{"workload": "w", "conte')
    assert rows.read(path) == [ROW]
    rows.append(path, ROW | {"seed": 1})
    assert rows.read(path) == [ROW, ROW | {"seed": 1}]


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows.append(path, ROW)
    with path.open("a") as file:
        file.write('{"workload": "w"}\n')
    with pytest.raises(rows.RowsError, match=r"rows\.jsonl, line 2"):
        rows.read(path)


def test_no_number_that_json_lacks(tmp_path):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(ValueError, match="JSON"):
        rows.append(path, ROW | {"loss": float("nan")})
    assert rows.read(path) == []


def _append_many(path, seed):
    for i in range(50):
        rows.append(path, ROW | {"seed": 100 * seed + i})


def test_several_processes_may_append(tmp_path):
    path = tmp_path / "rows.jsonl"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_append_many, args=(path, n)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    expected = {100 * n + i for n in range(3) for i in range(50)}
    assert {row["seed"] for row in rows.read(path)} == expected


def test_hyperparameters_in_another_order_are_the_same_training():
    one = ROW | {"hyperparameters": {"rate": 0.1, "beta_1": 0.9}}
    other = ROW | {"hyperparameters": {"beta_1": 0.9, "rate": 0.1}}
    assert rows.identity(one) == rows.identity(other)


def test_rows_of_another_text_are_refused():
    found = [ROW | {"text": "one"}, ROW | {"workload": "v", "text": "another"}]
    rows.check_text(found, "w", "one")
    rows.check_text(found, "new", "any")
    with pytest.raises(rows.RowsError, match=r"^w: the rows are of another text, one; this machin"):
        rows.check_text(found, "w", "two")
    with pytest.raises(rows.RowsError, match=r"another text, None"):
        rows.check_text([ROW], "w", "one")
