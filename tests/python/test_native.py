"""C++ and Python share ledger, keyring and checkpoints: the native example, built against the installed package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

import hushgrad  # noqa: E402
from hushgrad.keys import Keyring  # noqa: E402
from hushgrad.ledger import Ledger  # noqa: E402

pytestmark = pytest.mark.slow  # compiles the example

EXAMPLE = Path(__file__).parents[2] / "examples" / "native"
DATASET = "rand-hie"  # as in train.cpp
FILE = "native.sealed"


def make_model() -> nn.Module:
    """The model of train.cpp."""
    return nn.Sequential(nn.Linear(9, 16), nn.Tanh(), nn.Linear(16, 1))


def make_optimizer(model: nn.Module, lr: float = 0.5) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), lr=lr)


def why_not() -> str | None:
    """Why the example cannot be built here."""
    if not Path(hushgrad.cmake_prefix_path, "hushgrad", "hushgradConfig.cmake").is_file():
        return "the package that is imported has no CMake files: it is not installed from a wheel"
    missing = [tool for tool in ("cmake", "c++") if shutil.which(tool) is None]
    return f"there is no {' and no '.join(missing)}" if missing else None


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    reason = why_not()
    if reason and os.environ.get("HUSHGRAD_NATIVE") == "1":
        pytest.fail(reason)
    if reason:
        pytest.skip(f"the native example is not built: {reason}")
    build = tmp_path_factory.mktemp("build")
    prefixes = f"{torch.utils.cmake_prefix_path};{hushgrad.cmake_prefix_path}"
    for command in (
        # Without optimisation: it compiles in half the time.
        ["cmake", "-S", EXAMPLE, "-B", build, f"-DCMAKE_PREFIX_PATH={prefixes}", "-DCMAKE_BUILD_TYPE=Debug"],
        ["cmake", "--build", build],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "train"


def run(program: Path, *args: object) -> str:
    done = subprocess.run([str(program), *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def auc(model: nn.Module, features: Tensor, labels: Tensor) -> float:
    """Over all pairs of a positive and a negative row."""
    with torch.no_grad():
        scores = model(features).flatten()
    ups, downs = scores[labels > 0.5], scores[labels < 0.5]
    wins = (ups[:, None] > downs).double() + 0.5 * (ups[:, None] == downs).double()
    return float(wins.mean())


@pytest.fixture(scope="module")
def trained(program: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Tensor, Tensor]:
    """(folder, what train.cpp printed, held-out features, held-out labels)."""
    folder = tmp_path_factory.mktemp("native")
    torch.manual_seed(0)
    features = torch.randn(1500, 9)
    labels = (features[:, 0] + 0.5 * torch.randn(1500) > 0).float()
    header = ",".join([f"x{i}" for i in range(9)] + ["label"])
    for name, rows in (("train.csv", slice(0, 1000)), ("held_out.csv", slice(1000, 1500))):
        table = torch.cat([features[rows], labels[rows, None]], 1).tolist()
        lines = [header, *(",".join(f"{value:.9g}" for value in row) for row in table)]
        (folder / name).write_text("\n".join(lines) + "\n")
    printed = run(program, folder)
    return folder, printed, features[1000:], labels[1000:]


def open_engine(folder: Path) -> hushgrad.PrivacyEngine:
    return hushgrad.PrivacyEngine(
        ledger=folder / "hushgrad.ledger.db", dataset=DATASET, keyring=folder / "hushgrad.keyring"
    )


def test_python_opens_what_cpp_wrote(trained: tuple[Path, str, Tensor, Tensor]) -> None:
    folder, printed, features, labels = trained
    model = make_model()
    optimizer = make_optimizer(model)
    assert open_engine(folder).load_checkpoint(folder / FILE, module=model, optimizer=optimizer) is None
    assert f"AUC {auc(model, features, labels):.6f}" in printed
    assert optimizer.param_groups[0]["lr"] == 0.03 and optimizer.param_groups[0]["betas"] == (0.9, 0.999)
    assert [int(state["step"]) for state in optimizer.state.values()] == [20] * 4
    model(features).mean().backward()
    optimizer.step()  # the state is complete


def test_python_reads_the_ledger_that_cpp_wrote(trained: tuple[Path, str, Tensor, Tensor]) -> None:
    folder, printed, _, _ = trained
    ledger = Ledger(folder / "hushgrad.ledger.db")
    found = re.search(r"epsilon (\S+) at delta (\S+)", printed)
    assert found is not None
    epsilon, delta = map(float, found.groups())
    assert delta == 1 / (10 * 1000)
    assert ledger.spent(dataset=DATASET, delta=delta)[1] == pytest.approx(epsilon, rel=1e-12)
    assert 2.9 < epsilon <= 3.0
    assert ledger.verify().ok
    inspection = hushgrad.checkpoint.inspect(folder / FILE)
    assert inspection.step == 20 and inspection.epsilon["epsilon"] == pytest.approx(epsilon, rel=1e-12)
    assert inspection.plan["sampling_rate"] == 1.0 and inspection.plan["max_grad_norm"] == 0.5


def test_cpp_opens_what_python_wrote(program: Path, trained: tuple[Path, str, Tensor, Tensor]) -> None:
    folder, _, features, labels = trained
    model = make_model()
    optimizer = make_optimizer(model)
    model(features).square().mean().backward()
    optimizer.step()
    open_engine(folder).save_checkpoint(
        folder / "python.sealed", module=model, optimizer=optimizer, extra={"epoch": 1}, overwrite=True
    )
    printed = run(program, folder, "--open", folder / "python.sealed", folder / FILE)
    assert f"python.sealed: AUC {auc(model, features, labels):.6f}\n" in printed


def test_cpp_refuses_a_checkpoint_of_another_keyring(program: Path, trained: tuple[Path, str, Tensor, Tensor]) -> None:
    folder, _, _, _ = trained
    other = Keyring.create(str(folder / "other.keyring"))
    other.create_key(dataset=DATASET)
    hushgrad.checkpoint.save(folder / "other.sealed", {"model": {}}, keyring=other, dataset=DATASET)
    done = subprocess.run(
        [str(program), str(folder), "--open", str(folder / "other.sealed")], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Use the keyring that holds the key of this dataset" in done.stderr


def test_cpp_says_how_to_use_it(program: Path) -> None:
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: train FOLDER")
