"""hushgrad doctor: what it says of models and of the machine."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("hushgrad._torch")

from torch import nn  # noqa: E402

from hushgrad import doctor, environment  # noqa: E402
from hushgrad.cli import _run  # noqa: E402
from hushgrad.errors import InvalidArgument  # noqa: E402
from hushgrad.ledger import Ledger  # noqa: E402

MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width: int = 48):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))

class Centred(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return self.inner(x - x.mean(0))

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 4)

    def forward(self, ids):
        return self.table(ids).mean(1)

class NeedsWidth(nn.Module):
    def __init__(self, width):
        super().__init__()

def make_centred():
    return Centred(), torch.randn(8, 4)

number = 3
"""


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    return path


class Centre(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0)


class Roll(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * (x + x.roll(1, 0))


class BatchSoftmax(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).softmax(0))


class LastState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[1][0][-1])


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


def test_without_inputs_known_modules_are_named() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), Scaled(), nn.Linear(4, 2))
    model[3].requires_grad_(False)
    diagnosis = doctor.examine(model)
    assert [(f.module, f.kind, f.status) for f in diagnosis.findings] == [
        ("0", "Linear", "supported"),
        ("1", "BatchNorm1d", "refused"),
        ("2", "Scaled", "unproven"),
        ("3", "Linear", "frozen"),
    ]
    (refused,) = diagnosis.refused
    assert not diagnosis.ok and not diagnosis.ran
    assert "GroupNorm" in refused.instead and refused.replacement.startswith("torch.nn.GroupNorm(4, 4")


@pytest.mark.parametrize(
    ("model", "culprit"),
    [
        (nn.Sequential(nn.Linear(4, 4), Centre(), nn.Linear(4, 2)), "1"),
        (nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Tanh(), Roll())), "1.1"),
        (BatchSoftmax(), ""),
        (nn.Sequential(nn.Linear(4, 4), nn.ModuleDict({"x": BatchSoftmax()})["x"]), "1"),
    ],
)
def test_with_inputs_the_module_that_mixes_samples_is_found(model: nn.Module, culprit: str) -> None:
    (refused,) = doctor.examine(model, torch.randn(5, 4)).refused
    assert refused.module == culprit and "another sample" in refused.reason and "Remove" in refused.instead


def test_a_detached_statistic_is_found() -> None:
    class Detached(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / x.detach().std()

    diagnosis = doctor.examine(nn.Sequential(nn.Linear(4, 4), Detached()), torch.randn(5, 4))
    assert [f.module for f in diagnosis.refused] == ["1"]


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (nn.Sequential(nn.Linear(4, 4), Scaled(), nn.LayerNorm(4)), torch.randn(5, 4)),
        (LastState(), (torch.randn(5, 7, 4),)),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), {"src": torch.randn(5, 3, 8)}),
        (nn.Embedding(9, 4), torch.randint(9, (5, 3))),
    ],
)
def test_what_trains_is_found_sound_and_left_alone(model: nn.Module, inputs: Any) -> None:
    before = copy.deepcopy(model.state_dict())
    diagnosis = doctor.examine(model, inputs)
    assert diagnosis.ok and diagnosis.ran
    assert {f.status for f in diagnosis.findings} == {"supported"}
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and len(model._forward_hooks) == 0


def test_batch_in_dimension_one() -> None:
    assert doctor.examine(nn.GRU(4, 3), torch.randn(7, 5, 4), batch_first=False).ok


def test_what_cannot_start_is_said() -> None:
    assert "train()" in doctor.examine(nn.Linear(2, 2).eval()).refused[0].instead
    frozen = nn.Linear(2, 2).requires_grad_(False)
    assert "trainable" in doctor.examine(frozen, torch.randn(3, 2)).refused[0].reason
    with pytest.raises(InvalidArgument, match="two samples"):
        doctor.examine(nn.Linear(2, 2), torch.randn(1, 2))


def test_fix_makes_a_copy_that_is_sound() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6 * 36, 2))
    fixed = doctor.fix(model)
    assert isinstance(model[1], nn.BatchNorm2d) and isinstance(fixed[1], nn.GroupNorm) and fixed[1].num_groups == 2
    assert doctor.examine(fixed, torch.randn(4, 3, 8, 8)).ok
    assert doctor.replacement_for(nn.Linear(2, 2)) is None


def test_frozen_batch_norm_in_evaluation_mode_is_fine() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    model[1].eval()
    assert doctor.examine(model, torch.randn(5, 4)).ok


def test_cli_without_a_name_examines_what_it_can_build(model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["doctor", str(model_file), "--json"]) == 1
    models = json.loads(capsys.readouterr().out)["models"]
    assert {name: found["ok"] for name, found in models.items()} == {"Net": False, "Centred": True, "Words": True}
    (refused,) = (f for f in models["Net"]["findings"] if f["status"] == "refused")
    assert refused["module"] == "features.1"


def test_cli_prints_the_replacement(model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["doctor", f"{model_file}:Net", "--fix"]) == 1
    shown = capsys.readouterr().out
    assert "model = hushgrad.doctor.fix(model)" in shown
    assert "model.features[1] = torch.nn.GroupNorm(16, 48" in shown


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([":make_centred"], 1),
        ([":Centred", "--input", "4"], 1),
        ([":Centred"], 0),
        ([":Words", "--input", "7:50"], 0),
    ],
)
def test_cli_runs_the_model_on_inputs(model_file: Path, arguments: list[str], code: int, capsys: Any) -> None:
    assert _run(["doctor", str(model_file) + arguments[0], *arguments[1:], "--json"]) == code
    (found,) = json.loads(capsys.readouterr().out)["models"].values()
    assert found["ran"] == (len(arguments) > 1 or arguments[0] == ":make_centred")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([":Missing"], 2, "no such name"),
        ([":number"], 2, "callable"),
        ([":NeedsWidth"], 2, "without arguments"),
        ([":Net", "--input", "3xQ"], 2, "3x32x32"),
    ],
)
def test_cli_says_what_it_cannot_use(model_file: Path, arguments: list[str], code: int, said: str, capsys: Any) -> None:
    assert _run(["doctor", str(model_file) + arguments[0], *arguments[1:]]) == code
    assert said in capsys.readouterr().err


def test_cli_needs_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["doctor", str(tmp_path / "none.py")]) == 1
    assert "model.py:make_model" in capsys.readouterr().err


def test_the_machine_is_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run(["doctor", "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert set(checks) == {
        "hushgrad", "core", "OpenSSL", "SQLite", "PostgreSQL", "PyTorch", "training", "processor", "OpenMP", "forks", "temporary files", "storage", "ledger"
    }  # fmt: skip
    assert "OpenSSL 3" in checks["OpenSSL"]["detail"] and "does not exist yet" in checks["ledger"]["detail"]
    assert list(tmp_path.iterdir()) == []


def test_an_existing_ledger_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "budget.db"
    Ledger(path).begin_run(dataset="ward-7")
    by_name = {check.name: check for check in environment.check_environment(path)}
    assert by_name["ledger"].status == "ok" and "1 datasets" in by_name["ledger"].detail
    path.chmod(0o644)
    assert {c.name: c.status for c in environment.check_environment(path)}["ledger"] == "warning"
    path.write_bytes(b"no ledger")
    assert {c.name: c.status for c in environment.check_environment(path)}["ledger"] == "failed"


def test_a_missing_folder_fails(tmp_path: Path) -> None:
    assert environment.check_environment(tmp_path / "none" / "budget.db")[-1].status == "failed"


@pytest.mark.parametrize(
    ("kind", "status"), [("ext4", "ok"), ("tmpfs", "warning"), ("nfs4", "failed"), ("fuse.sshfs", "failed"), ("overlay", "warning")]
)
def test_storage_that_forgets_is_named(kind: str, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_kind_of_filesystem", lambda folder: kind)
    assert {c.name: c.status for c in environment.check_environment(tmp_path / "budget.db")}["storage"] == status


def test_the_machine_is_checked_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from hushgrad.cli import _run; sys.exit(_run(['doctor', '--json']))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    checks = {check["name"]: check["status"] for check in json.loads(result.stdout)["checks"]}
    assert checks["core"] == checks["OpenSSL"] == "ok", result.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def broken(:\n", ["SyntaxError", "line 1"]),
        ("import torch\nraise RuntimeError('no data here')\n", ["RuntimeError: no data here", "line 2"]),
        ("import sys\nsys.exit(3)\n", ["SystemExit", "__main__"]),
        ("import no_such_package\n", ["no_such_package"]),
        ("from torch import nn\nclass Net(nn.Module):\n    def __init__(self, width):\n        super().__init__()\n", ["Net was found", "width", "model.py:make_model"]),
    ],
)
def test_a_file_that_does_not_run_is_the_files_fault(text: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.py").write_text(text)
    assert _run(["doctor", str(tmp_path / "model.py")]) == 2
    printed = capsys.readouterr()
    assert f"running {tmp_path / 'model.py'}" in printed.out
    for word in words:
        assert word in printed.err
    assert printed.err.count("\n") == 1 and "defect" not in printed.err


def test_models_that_need_arguments_are_named_beside_those_that_do_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.py").write_text(
        "from torch import nn\n"
        "class Wide(nn.Module):\n    def __init__(self, width):\n        super().__init__()\n        self.l = nn.Linear(width, 2)\n"
        "    def forward(self, x):\n        return self.l(x)\n"
        "class Fixed(Wide):\n    def __init__(self):\n        super().__init__(3)\n"
        "def make_wide():\n    return Wide(7)\n"
    )
    assert _run(["doctor", str(tmp_path / "model.py"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document["models"]) == {"Fixed"} and "width" in document["skipped"]["Wide"]
    assert _run(["doctor", f"{tmp_path / 'model.py'}:make_wide"]) == 0


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("class Net(nn.Module):\n    def __init__(self):\n        super().__init__(); self.a = nn.Liner(5, 4)\n", [], ["Net() to build", "nn' has no attribute 'Liner'", "(line 5)"]),
        ("class Net(nn.Module):\n    def __init__(self):\n        super().__init__(); self.a = nn.Linear(6, 4)\n    def forward(self, x):\n        return self.a(x)\n",
         ["--input", "5"], ["Net to run on the inputs", "cannot be multiplied", "(line 7)", "--input"]),
    ],
)  # fmt: skip
def test_what_a_model_raises_is_said_with_its_line(text: str, options: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.py"
    path.write_text(f"import torch\nfrom torch import nn\n{text}")
    assert _run(["doctor", str(path), *options]) != 0
    said = " ".join(capsys.readouterr().err.split())
    assert all(word in said for word in words)


class Hooked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x)
        h.register_hook(lambda g: g / g.norm())
        return self.b(h)


def test_hooks_that_mix_gradients_and_lazy_modules_are_found() -> None:
    (refused,) = doctor.examine(Hooked(), torch.randn(6, 5)).refused
    assert "sample by sample" in refused.reason
    (lazy,) = doctor.examine(nn.Sequential(nn.LazyLinear(3)), torch.randn(6, 5)).refused
    assert "no shape" in lazy.reason


def test_the_code_of_replacements_runs_and_is_sound() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24), nn.Sequential(nn.Conv2d(24, 7, 1), nn.BatchNorm2d(7, affine=False)),
        nn.InstanceNorm2d(7, affine=True, track_running_stats=True), nn.Flatten(), nn.Linear(7 * 36, 2),
    )  # fmt: skip
    refused = doctor.examine(model).refused
    assert len(refused) == 3
    for finding in refused:
        parent, _, attribute = finding.module.rpartition(".")
        model.get_submodule(parent)[int(attribute)] = eval(finding.replacement)  # noqa: S307 - the code that is offered
    assert doctor.examine(model, torch.randn(4, 3, 8, 8)).ok
