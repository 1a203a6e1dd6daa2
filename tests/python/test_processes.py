"""Training in several processes: what two of them do together is what one would have done, and is charged once."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import hushgrad
from hushgrad.errors import Unsupported

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed: several processes are not tested")

WORKER = Path(__file__).with_name("processes_worker.py")


def run(folder: Path, *scenarios: str, size: int = 2, expect: int = 0) -> list[dict[str, Any]]:
    """What each rank found, by scenario. Processes and process group are started once for all of them."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(folder), str(rank), str(size), *scenarios], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]  # fmt: skip
    said = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [expect] * size, "\n".join(said)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(size)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    scenarios = (
        "clipped", "clipped_per_layer", "noise", "law", "users", "budget", "one_fails", "another_bound", "another_plan", "adaptive", "virtual", "shuffled",
        "plain", "checkpoint", "migrated", "another_sampler", "nobody", "certified",
    )  # fmt: skip
    return run(tmp_path_factory.mktemp("ranks"), *scenarios)


def both(found: list[dict[str, Any]], scenario: str) -> tuple[Any, Any]:
    return found[0][scenario], found[1][scenario]


@pytest.mark.parametrize("scenario", ["clipped", "clipped_per_layer"])
def test_the_gradient_is_the_sum_over_both_processes_of_clipped_gradients(found: list[dict[str, Any]], scenario: str) -> None:
    first, second = both(found, scenario)
    for step in range(len(first["gradients"])):
        mine, other = set(first["records"][step]), set(second["records"][step])
        assert not mine & other, "a record in two processes would count twice"
        expected = torch.zeros(len(first["gradients"][step]), dtype=torch.float64)
        for gradient in (*first["clipped"][step], *second["clipped"][step]):  # of single samples, by a float64 loop
            expected += torch.tensor(gradient, dtype=torch.float64)
        expected /= first["expected_batch_size"]
        measured = torch.tensor(first["gradients"][step], dtype=torch.float64)
        assert first["gradients"][step] == second["gradients"][step]
        assert (measured - expected).norm() <= 1e-5 * expected.norm()


def test_batches_over_both_processes_follow_the_law(found: list[dict[str, Any]]) -> None:
    """False alarms: 2e-8 for the size and for each of 200 records (6 deviations), all in all below 1e-5."""
    first, second = both(found, "law")
    steps, records, rate = len(first["records"]), 200, 0.1
    counts = torch.zeros(records)
    for mine, other in zip(first["records"], second["records"]):
        assert not set(mine) & set(other) and abs(len(mine) - len(other)) <= 1
        counts[mine] += 1
        counts[other] += 1
    deviation = math.sqrt(steps * rate * (1 - rate))
    assert abs(counts.sum().item() - steps * records * rate) < 6 * deviation * math.sqrt(records)
    assert (counts - steps * rate).abs().max().item() < 6 * deviation
    # The records of one process are no fixed part of the data.
    seen = [{record for step in rank["records"] for record in step} for rank in (first, second)]
    assert len(seen[0] & seen[1]) > 0.9 * records


def test_noise_is_added_once_and_is_the_same_in_both(found: list[dict[str, Any]]) -> None:
    """False alarms: 6 deviations of the standard deviation of 20,000 normal values, 2e-9."""
    first, second = both(found, "noise")
    assert first["gradients"] == second["gradients"]
    one, two = (torch.tensor(g, dtype=torch.float64) for g in first["gradients"])
    expected = first["noise_multiplier"] * first["max_grad_norm"] / first["expected_batch_size"]
    for noise in (one, two):
        assert abs(noise.std().item() / expected - 1) < 6 / math.sqrt(2 * noise.numel())
    correlation = (one @ two / (one.norm() * two.norm())).item()
    assert abs(correlation) < 6 / math.sqrt(one.numel())


def test_one_charge_a_step_and_the_same_epsilon_and_weights_everywhere(found: list[dict[str, Any]]) -> None:
    first, second = both(found, "noise")
    assert first["runs"] == 1 and first["charges"] == 2
    assert first["epsilon"] == second["epsilon"] == pytest.approx(first["epsilon_of_one_process"])
    assert first["weights"] == second["weights"] and first["run_id"] == second["run_id"]


def test_the_budget_stops_both_at_the_same_step(found: list[dict[str, Any]]) -> None:
    first, second = both(found, "budget")
    assert first["error"] == second["error"] == "BudgetExceeded"
    assert first["steps"] == second["steps"] >= 1
    assert first["unchanged"] and second["unchanged"]
    assert first["spent"] <= 20.0


def test_an_error_in_one_process_releases_nothing_in_any(found: list[dict[str, Any]]) -> None:
    first, second = both(found, "one_fails")
    assert second["error"].startswith("InvalidState: [step] Expected at least one physical batch")
    assert "received an error in rank 1" in first["error"] and "Nothing was charged" in first["error"]
    assert first["charges"] == 0 and first["later"] == second["later"] == "stepped"


def test_bounds_that_differ_are_refused_in_both(found: list[dict[str, Any]]) -> None:
    for rank in both(found, "another_bound"):
        assert rank["error"].startswith("PrivacyViolation") and "in rank 1" in rank["error"]
        assert rank["steps"] == 0
    for rank in both(found, "another_plan"):
        assert rank["error"].startswith("InvalidArgument") and "in rank 1" in rank["error"]


def test_users_are_whole_in_one_process(found: list[dict[str, Any]]) -> None:
    first, second = both(found, "users")
    taken = 0
    for mine, other in zip(first["users"], second["users"]):
        assert not set(mine) & set(other)
        taken += len(set(mine)) + len(set(other))
    assert taken > 0 and first["gradients"] == second["gradients"]


def test_adaptive_clipping_follows_the_share_over_both(found: list[dict[str, Any]]) -> None:
    """False alarms: 6 deviations of the noise on each of three counts, 6e-9."""
    first, second = both(found, "adaptive")
    assert first["bounds"] == second["bounds"]
    for step, sizes in enumerate(zip(first["sizes"], second["sizes"], strict=True)):
        moved = math.log(first["bounds"][step + 1] / first["bounds"][step])
        assert abs(moved + 0.2 * sum(sizes) / 2 / 160) < 0.2 * 6 * 0.6 / 160


def test_virtual_batches_with_workers_end_and_charge_once_a_logical_batch(found: list[dict[str, Any]]) -> None:
    first, second = both(found, "virtual")
    assert first["charges"] == first["steps"] == second["steps"] == 2 * first["steps_per_epoch"]
    assert first["physical"] != second["physical"] or first["physical"] > first["steps"]


def test_shuffled_epochs_take_each_record_once(found: list[dict[str, Any]]) -> None:
    first, second = both(found, "shuffled")
    for epoch in range(2):
        assert sorted(first["records"][epoch] + second["records"][epoch]) == list(range(30))
    assert first["charges"] == 2  # one an epoch


def test_a_module_that_is_not_wrapped_is_refused_with_advice(found: list[dict[str, Any]]) -> None:
    for rank in both(found, "plain"):
        assert rank["error"].startswith("Unsupported") and "DistributedDataParallel" in rank["error"]


def test_the_first_process_saves_and_both_load(found: list[dict[str, Any]]) -> None:
    first, second = both(found, "checkpoint")
    assert first["files"] == second["files"] == ["run.sealed"]
    assert first["weights"] == second["weights"]
    assert first["later"] == second["later"] == "stepped"


def test_an_opacus_script_trains_in_two_processes(found: list[dict[str, Any]]) -> None:
    first, second = both(found, "migrated")
    assert first["weights"] == second["weights"] and first["epsilon"] == second["epsilon"] > 0
    assert first["expected_batch_size"] == 8  # with a DistributedSampler, batch_size is that of one process
    assert first["charges"] == 3


def test_a_sampler_over_other_processes_is_refused(found: list[dict[str, Any]]) -> None:
    for rank in both(found, "another_sampler"):
        assert rank["error"].startswith("Unsupported") and "received one over 3" in rank["error"]


def test_batches_of_nobody_are_steps(found: list[dict[str, Any]]) -> None:
    first, second = both(found, "nobody")
    assert first["sizes"] != second["sizes"] or 0 in first["sizes"]
    assert first["charges"] == len(first["sizes"]) == len(second["sizes"])
    assert first["weights"] == second["weights"]


def test_certified_sensitivity_is_refused(found: list[dict[str, Any]]) -> None:
    for rank in both(found, "certified"):
        assert rank["error"].startswith("Unsupported") and "certified" in rank["error"]


def test_a_killed_process_stops_the_others_and_gives_nothing_back(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(WORKER), str(tmp_path)]
    ranks = [subprocess.Popen([*command, str(rank), "2", "killed"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for rank in (0, 1)]
    said = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert ranks[1].returncode == -9 and ranks[0].returncode == 0, said[0]
    first = json.loads((tmp_path / "0.json").read_text())["killed"]
    assert first["error"].startswith("InvalidState") and "received an answer from not all of them" in first["error"]
    ledger = hushgrad.ledger.Ledger(tmp_path / "killed.db")
    assert len(ledger.steps("killed")) >= first["steps"] == 3
    ledger.verify()


def test_one_process_takes_a_wrapped_module_and_its_sampler(tmp_path: Path) -> None:
    (only,) = run(tmp_path, "clipped", size=1)
    assert only["clipped"]["gradients"]
    data = TensorDataset(torch.zeros(8, 1))
    sampler: DistributedSampler[Any] = DistributedSampler(data, num_replicas=2, rank=0)
    module = torch.nn.Linear(1, 1)
    with pytest.raises(Unsupported, match="over the 1 processes"):
        hushgrad.PrivacyEngine(ledger=":memory:").make_private(
            module=module, optimizer=torch.optim.SGD(module.parameters(), 0.1), data_loader=DataLoader(data, batch_size=2, sampler=sampler),
            noise_multiplier=1.0, max_grad_norm=1.0,
        )  # fmt: skip
