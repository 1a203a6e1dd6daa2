"""`hushgrad epsilon`, `calibrate` and `plan` against `hushgrad.accounting`: what is shown is what was asked, rounded against us."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from cli_run import assert_one_error_line, read, run

from hushgrad import accounting
from hushgrad.accounting import risk
from hushgrad.cli.search import nearest, nearest_whole

GAUSSIAN = accounting.GaussianDpEvent(1.1)
SIZES = ["--dataset-size", "60000", "--batch-size", "256", "--steps", "500", "--delta", "1e-6"]
EPSILON = ["epsilon", "--noise-multiplier", "1.1", *SIZES]


def repeated(event: accounting.DpEvent, count: int = 500) -> accounting.DpEvent:
    return accounting.SelfComposedDpEvent(event, count)


CASES: list[tuple[list[str], accounting.DpEvent, str]] = [
    ([], repeated(accounting.PoissonSampledDpEvent(256 / 60000, GAUSSIAN)), "add_or_remove_one"),
    (["--adjacency", "replace_one"], repeated(accounting.PoissonSampledDpEvent(256 / 60000, GAUSSIAN)), "replace_one"),
    (
        ["--sampling", "truncated-poisson", "--max-batch-size", "300"],
        repeated(accounting.TruncatedSubsampledGaussianDpEvent(60000, 256 / 60000, 300, 1.1)),
        "add_or_remove_one",
    ),
    (["--sampling", "fixed-size"], repeated(accounting.SampledWithoutReplacementDpEvent(60000, 256, GAUSSIAN)), "replace_one"),
    (["--sampling", "shuffled"], repeated(accounting.ShuffledEpochDpEvent(GAUSSIAN), 3), "add_or_remove_one"),
    (["--sampling", "random-allocation"], repeated(accounting.BallsInBinsDpEvent(235, GAUSSIAN), 3), "add_or_remove_one"),
    (["--sampling", "none"], repeated(GAUSSIAN), "add_or_remove_one"),
    (["--mechanism", "laplace"], repeated(accounting.PoissonSampledDpEvent(256 / 60000, accounting.LaplaceDpEvent(1.1))), "add_or_remove_one"),
    (
        ["--mechanism", "discrete-gaussian", "--sampling", "none", "--sensitivity", "10"],
        repeated(accounting.DiscreteGaussianDpEvent(11.0, 10)),
        "add_or_remove_one",
    ),
    (
        ["--mechanism", "adaptive-clipping", "--count-noise", "12.8"],
        repeated(accounting.PoissonSampledDpEvent(256 / 60000, accounting.AdaptiveClippingDpEvent(1.1, 12.8))),
        "add_or_remove_one",
    ),
    (
        ["--mechanism", "matrix", "--bands", "3"],
        accounting.MatrixFactorizationDpEvent(1.1, (1.0, 0.5, 0.375), 500, 235, 3),
        "add_or_remove_one",
    ),
    (["--group-size", "3"], accounting.GroupDpEvent(3, repeated(accounting.PoissonSampledDpEvent(256 / 60000, GAUSSIAN))), "add_or_remove_one"),
    (
        ["--tuning-runs", "10"],
        accounting.RepeatAndSelectDpEvent(repeated(accounting.PoissonSampledDpEvent(256 / 60000, GAUSSIAN)), 10.0, 1.0),
        "add_or_remove_one",
    ),
]


@pytest.mark.parametrize(("options", "event", "adjacency"), CASES, ids=lambda value: "_".join(value) if isinstance(value, list) else "")
def test_epsilon_of_every_mechanism_and_sampling(options: list[str], event: accounting.DpEvent, adjacency: str) -> None:
    document = read(*EPSILON, *options)
    assert document["adjacency"] == adjacency
    assert (document["epsilon_lower"], document["epsilon_upper"]) == accounting.epsilon(event, 1e-6, adjacency=adjacency)


def test_tree_aggregation_is_for_one_epoch() -> None:
    arguments = ["epsilon", "--noise-multiplier", "2", "--mechanism", "tree", "--dataset-size", "60000", "--batch-size", "256", "--delta", "1e-6"]
    document = read(*arguments, "--epochs", "1")
    event = accounting.SingleEpochTreeAggregationDpEvent(2.0, (235,))
    assert document["epsilon_upper"] == accounting.epsilon(event, 1e-6, adjacency="zero_out")[1]
    assert_one_error_line(run(*arguments, "--epochs", "2"), 2, "single pass")


def test_an_event_of_a_file(tmp_path: Path) -> None:
    event = accounting.ComposedDpEvent([accounting.GaussianDpEvent(3.0), accounting.LaplaceDpEvent(5.0)])
    (tmp_path / "event.json").write_text(event.to_json())
    document = read("epsilon", "--event", str(tmp_path / "event.json"), "--delta", "1e-6")
    assert document["epsilon_upper"] == accounting.epsilon(event, 1e-6)[1]
    (tmp_path / "event.json").write_text('{"GaussianDpEvent":')
    assert_one_error_line(run("epsilon", "--event", str(tmp_path / "event.json"), "--delta", "1e-6"), 2)
    assert_one_error_line(run("epsilon", "--event", str(tmp_path / "none"), "--delta", "1e-6"), 1, "none")
    assert_one_error_line(run("epsilon", "--event", "/dev/zero", "--delta", "1e-6"), 2, "16 MiB")


def test_numbers_may_be_typed_as_people_type_them() -> None:
    plain = read("epsilon", "--noise-multiplier", "1.1", "--sampling-rate", str(256 / 60000), "--steps", "10000", "--delta", "1e-6")
    typed = read("epsilon", "--noise-multiplier", "1.1", "--sampling-rate", "256/60000", "--steps", "1e4", "--delta", "1/1_000_000")
    assert typed == plain


def test_comparison_of_samplings_and_risks() -> None:
    document = read(*EPSILON, "--compare-sampling", "--risk")
    by_name = {row["sampling"]: row for row in document["samplings"]}
    assert set(by_name) == {"poisson", "truncated-poisson", "fixed-size", "random-allocation", "shuffled", "none"}
    assert by_name["fixed-size"]["adjacency"] == "replace_one"
    assert by_name["shuffled"]["epsilon_upper"] > 10 * by_name["poisson"]["epsilon_upper"]
    event = CASES[0][1]
    assert document["risks"]["membership_advantage"] == risk.advantage(event)
    shown = run(*EPSILON, "--compare-sampling", "--risk", "--compare").stdout
    for word in ("rdp", "shuffled", "times in 100", "gdp"):
        assert word in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--noise-multiplier", "nan", *SIZES], ["nan"]),
        (["--noise-multiplier", "inf", *SIZES], ["inf"]),
        (["--noise-multiplier", "-1", *SIZES], ["-1"]),
        (["--noise-multiplier", "1e999", *SIZES], ["1e999"]),
        (["--noise-multiplier", "1.1", "--sampling-rate", "1.5", "--steps", "5", "--delta", "1e-6"], ["0 to 1"]),
        (["--noise-multiplier", "1.1", "--sampling-rate", "1/0", "--steps", "5", "--delta", "1e-6"], ["1/0"]),
        (["--noise-multiplier", "1.1", "--sampling-rate", "0.1", "--steps", "0", "--delta", "1e-6"], ["whole number"]),
        (["--noise-multiplier", "1.1", "--sampling-rate", "0.1", "--steps", "1.5", "--delta", "1e-6"], ["whole number"]),
        (["--noise-multiplier", "1.1", "--sampling-rate", "0.1", "--steps", "1e300", "--delta", "1e-6"], ["2^53"]),
        (["--noise-multiplier", "1.1", "--sampling-rate", "0.1", "--steps", "5", "--delta", "1"], ["delta"]),
        (["--noise-multiplier", "1.1", "--dataset-size", "10", "--batch-size", "11", "--steps", "5", "--delta", "1e-6"], ["at most the data set"]),
        (["--noise-multiplier", "1.1", "--batch-size", "11", "--steps", "5", "--delta", "1e-6"], ["--dataset-size"]),
        (["--noise-multiplier", "1.1", *SIZES, "--sampling-rate", "0.5"], ["Leave it out"]),
        (["--noise-multiplier", "1.1", *SIZES, "--epochs", "3"], ["both"]),
        (["--noise-multiplier", "1.1", "--sampling-rate", "0.1", "--delta", "1e-6"], ["--epochs"]),
        (["--sampling-rate", "0.1", "--steps", "5", "--delta", "1e-6"], ["hushgrad calibrate"]),
        (["--noise-multiplier", "1.1", "--sampling-rate", "0.1", "--steps", "5", "--delta", "1e-6", "--sampling", "fixed-size"], ["--dataset-size"]),
        (["--noise-multiplier", "1.1", *SIZES, "--sampling", "hypergeometric"], ["fixed-size"]),
        (["--noise-multiplier", "1.1", *SIZES, "--mechanism", "adaptive-clipping"], ["--count-noise"]),
    ],
)
def test_bad_input_says_what_was_expected(arguments: list[str], words: list[str]) -> None:
    assert_one_error_line(run("epsilon", *arguments), 2, *words)


def test_a_large_delta_and_a_large_epsilon_are_warned_of() -> None:
    done = run("epsilon", "--noise-multiplier", "0.1", "--dataset-size", "100", "--batch-size", "10", "--steps", "50", "--delta", "0.1")
    assert done.returncode == 0
    assert "[delta]" in done.stderr and "[epsilon]" in done.stderr
    assert done.stderr.count("\n") == 2


def achieved(document: dict[str, Any], rate: float, steps: int) -> float:
    step = accounting.PoissonSampledDpEvent(rate, accounting.GaussianDpEvent(document["noise_multiplier"]))
    return accounting.epsilon(accounting.SelfComposedDpEvent(step, steps), 1e-6)[1]


TARGET = ["calibrate", "--target-epsilon", "3", "--target-delta", "1e-6"]


def test_calibration_of_steps_rate_and_batch_is_safe_and_close() -> None:
    steps = read(*TARGET, "--noise-multiplier", "1", "--sampling-rate", "0.01")["steps"]
    assert achieved({"noise_multiplier": 1.0}, 0.01, steps) <= 3 < achieved({"noise_multiplier": 1.0}, 0.01, steps + 1)
    rate = read(*TARGET, "--noise-multiplier", "1", "--steps", "1000")["sampling_rate"]
    assert achieved({"noise_multiplier": 1.0}, rate, 1000) <= 3 < achieved({"noise_multiplier": 1.0}, 1.002 * rate, 1000)
    document = read(*TARGET, "--noise-multiplier", "1", "--steps", "1000", "--dataset-size", "60000")
    size = document["batch_size"]
    assert achieved(document, size / 60000, 1000) == document["epsilon_upper"] <= 3 < achieved(document, (size + 1) / 60000, 1000)


@pytest.mark.parametrize("options", [["--sampling", "shuffled"], ["--sampling", "fixed-size"], ["--mechanism", "laplace"], ["--group-size", "2"]])
def test_calibration_of_noise_for_other_mechanisms(options: list[str]) -> None:
    sizes = ["--dataset-size", "60000", "--batch-size", "256", "--steps", "500"]
    document = read(*TARGET, *sizes, *options)
    question = ["epsilon", *sizes, *options, "--delta", "1e-6", "--adjacency", document["adjacency"]]
    assert read(*question, "--noise-multiplier", repr(document["noise_multiplier"]))["epsilon_upper"] == document["epsilon_upper"]
    assert 2.9 < document["epsilon_upper"] <= 3


def test_calibration_to_attack_risks() -> None:
    plan = ["--sampling-rate", "0.01", "--steps", "100"]
    for option, value, of in (
        ("--target-advantage", 0.1, risk.advantage),
        ("--target-tpr", 0.02, lambda event: risk.tpr_at_fpr(event, 0.001)),
        ("--target-reconstruction", 0.02, lambda event: risk.reconstruction_risk(event, 1e-3, adjacency="zero_out")),
    ):
        noise = read("calibrate", option, str(value), "--prior", "1e-3", "--adjacency", "zero_out", *plan)["noise_multiplier"]
        event = repeated(accounting.PoissonSampledDpEvent(0.01, accounting.GaussianDpEvent(noise)), 100)
        assert 0.97 * value < of(event) <= value


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target-epsilon", "3", "--sampling-rate", "0.1", "--steps", "5"], ["--target-delta"]),
        (["--sampling-rate", "0.1", "--steps", "5"], ["one target"]),
        (["--target-epsilon", "3", "--target-delta", "1e-6", "--target-tpr", "0.1", "--sampling-rate", "0.1", "--steps", "5"], ["received 2"]),
        (["--target-tpr", "0.0005", "--sampling-rate", "0.1", "--steps", "5"], ["guessing"]),
        (["--target-epsilon", "0", "--target-delta", "1e-6", "--sampling-rate", "0.1", "--steps", "5"], ["above 0"]),
        (["--target-epsilon", "3", "--target-delta", "1e-6", "--noise-multiplier", "1", "--sampling-rate", "0.1", "--steps", "5"], ["Leave out"]),
        (["--target-epsilon", "0.01", "--target-delta", "1e-6", "--noise-multiplier", "0.3", "--sampling-rate", "0.5"], ["Raise the target"]),
    ],
)
def test_calibration_refuses_what_makes_no_sense(arguments: list[str], words: list[str]) -> None:
    assert_one_error_line(run("calibrate", *arguments), 2, *words)


def test_plan() -> None:
    document = read("plan", "--dataset-size", "60000", "--epochs", "5", "--batch-size", "1024", "--target-epsilon", "3")
    chosen = document["plan"]
    assert document["target_delta"] == 1e-6
    assert (chosen["batch_size"], chosen["steps"]) == (1024, 295)
    assert achieved(chosen, 1024 / 60000, 295) == chosen["epsilon_upper"] <= 3
    assert [row["batch_size"] for row in document["alternatives"]] == [128, 256, 512, 1024, 2048, 4096, 8192]
    noise = [row["noise_in_mean"] for row in document["alternatives"]]
    assert noise == sorted(noise, reverse=True)
    compile(document["code"], "plan", "exec")
    shown = run("plan", "--dataset-size", "60000", "--epochs", "5", "--batch-size", "1024", "--target-epsilon", "3").stdout
    assert document["code"] in shown and "> 1024" in shown


@pytest.mark.parametrize("arguments", [["--dataset-size", "10", "--batch-size", "20", "--target-epsilon", "1"], ["--dataset-size", "0", "--target-epsilon", "1"], ["--target-epsilon", "1"]])
def test_plan_refuses_what_makes_no_sense(arguments: list[str]) -> None:
    assert_one_error_line(run("plan", *arguments), 2)


def test_plan_of_one_record() -> None:
    assert read("plan", "--dataset-size", "1", "--target-epsilon", "1")["plan"]["batch_size"] == 1


def test_the_search_never_returns_what_missed_the_target() -> None:
    asked: dict[float, float] = {}

    def measure(value: float) -> float:
        asked[value] = 1 / value**2
        return asked[value]

    found = nearest(measure, 0.25, lowest=1e-3, highest=1e3, start=900.0, rising=True)
    assert asked[found] <= 0.25 and found == pytest.approx(2, rel=1e-3)
    assert len(asked) < 40
    for limit in (1, 2, 3, 100, 12345):
        assert nearest_whole(lambda number, limit=limit: float(number), limit + 0.5, highest=10**6, start=50) == limit  # type: ignore[misc]
    assert nearest_whole(lambda number: 0.0, 1.0, highest=77, start=5) == 77
    assert nearest(lambda value: math.inf if value < 5 else 1 / value, 0.2, lowest=1e-3, highest=1e3, start=1.0, rising=True) == pytest.approx(5, rel=2e-3)
