"""Every command and every Python block of the README and the docs is run, as a reader would run it; what is not is listed with its reason."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cli_run import run

from hushgrad.cli import _COMMANDS
from hushgrad.cli.root import root
from hushgrad.keys import Keyring
from hushgrad.ledger import Ledger, make_note_keys
from hushgrad.signing import SigningKey

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: Beginning of a command line, or a line of a block -> why it is not run here. Each entry must still be found in some page.
NOT_RUN = {
    "bash examples/quickstart.sh": "installs packages; run by hand before a release",
    "bash tests/run.sh": "runs this test",
    'cmake -S . -B build -DCMAKE_PREFIX_PATH="$(python -c': "builds against an installed wheel; examples/native/run.sh does it",
    "hushgrad ledger repair": "needs a ledger that was put back; test_cli.py repairs one",
    "hushgrad ledger init --ledger postgresql://": "needs a PostgreSQL server; test_ledger.py has one",
    "hushgrad ledger move": "needs a PostgreSQL server; test_cli.py moves to a file",
    "hushgrad access review": "needs a break-glass; test_access.py reviews one",
    'engine = hushgrad.PrivacyEngine(dataset="ward-7", purpose="triage", identity=': "needs a signed request; test_access_training.py makes one",
    "from hushgrad import oidc": "needs an identity provider; test_oidc.py is one",
    "print(model(x).grad_fn)": "prints an address",
    "torch.distributed.init_process_group(": "needs several processes; test_processes.py starts them",
    'CASES["embedding_padded"]': "a line of a test file, and run there",
    "torch, hushgrad\n": "run by test_docs.py, with its output",
}
#: Commands whose answer is not 0, because what they look at is not fine.
EXIT_CODES = {"hushgrad doctor model.py": 1}

MODEL = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2) if False else nn.Linear(8, 2))

    def forward(self, x):
        return self.layers(x)
"""


@dataclass(frozen=True)
class Block:
    """One block of a page."""

    page: str
    language: str
    text: str
    prints: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.text.strip().splitlines()[0][:50]}"


def blocks() -> Iterator[Block]:
    """Fenced blocks in a language that runs, and indented commands."""
    for page in PAGES:
        name, text = str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")
        fence = r"^```(\w*)\n(.*?)^```(?:\n\n<!-- the commands above print -->\n```text\n(.*?)^```)?"
        for language, body, prints in re.findall(fence, text, flags=re.DOTALL | re.MULTILINE):
            shell = language in ("bash", "sh", "shell", "console") or (not language and re.match(r"(\$ )?(hushgrad|bash) ", body))
            if shell or language == "python":
                yield Block(name, "bash" if shell else language, body, prints)
        rest = re.sub(r"^```(\w*)\n(.*?)^```", "", text, flags=re.DOTALL | re.MULTILINE)
        for body in re.findall(r"(?:^    .+\n)+", rest, flags=re.MULTILINE):
            if re.match(r"    (\$ )?(hushgrad [a-z-]+( |\n)|bash )", body) and not re.match(r"    hushgrad (keyring|sealed) \d", body):
                yield Block(name, "bash", "".join(line[4:] + "\n" for line in body.splitlines()))


ALL = list(blocks())


def commands(block: Block) -> list[str]:
    """The lines of a shell block, continued ones joined, comments and prompts left out."""
    joined = re.sub(r"\\\n\s*", "", block.text)
    return [line.removeprefix("$ ") for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def reason_not_to_run(text: str) -> str:
    return next((why for start, why in NOT_RUN.items() if start in text), "")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what a reader has: a ledger with a run, a keyring, a model, a witness's key, a signer's."""
    monkeypatch.chdir(tmp_path)
    for name in ("hushgrad.ledger.db", "ward-7.db"):
        ledger = Ledger(name)
        ledger.set_budget(dataset="ward-7", epsilon=3.0, delta=1e-6)
        from hushgrad.accounting import GaussianDpEvent, PoissonSampledDpEvent

        training = ledger.begin_run(dataset="ward-7", purpose="triage", actor="ada")
        ledger.charge(training, PoissonSampledDpEvent(0.01, GaussianDpEvent(1.1)))
        ledger.finish_run(training)
    for name in ("hushgrad.keyring", "ward-7.keyring"):
        Keyring.create(name).create_key(dataset="ward-7")
    Path("model.py").write_text(MODEL)
    signer, _ = make_note_keys("clinic")
    Path("clinic.key").write_text(signer + "\n")
    signing = SigningKey.generate()
    signing.save("signer.key")
    Path("signer.pem").write_text(signing.public_key.pem)
    for name in PEOPLE:
        key = SigningKey.generate()
        key.save(f"{name}.key")
        Path(f"{name}.pub").write_text(key.public_key.pem)
    return tmp_path


PEOPLE = {"olga": "privacy_officer", "tom": "trainer", "ann": "approver", "axel": "auditor"}


def let_people_in(block: Block) -> None:
    """The page about access goes on where its first block ends."""
    if block.page != "docs/access.md" or "access init" in block.text:
        return
    officer = Ledger("hushgrad.ledger.db", identity="olga.key")
    officer.found_access("olga")
    for name in ("tom", "ann", "axel"):
        officer.add_actor(name, SigningKey.load(f"{name}.key").public_key)
        officer.grant(name, PEOPLE[name])


def make_room(text: str) -> None:
    """A block that makes a file must not find it."""
    for made in re.findall(r"(?:ledger init --ledger|keys init) (\S+)", text):
        Path(made).unlink(missing_ok=True)
        Path(made + ".log").unlink(missing_ok=True)  # of a keyring
    if re.search(r"ledger init *(#.*)?$", text, flags=re.MULTILINE):
        Path("hushgrad.ledger.db").unlink()


@pytest.mark.parametrize("block", [block for block in ALL if block.language == "bash"], ids=str)
def test_commands_of_the_docs_run(block: Block, desk: Path) -> None:
    if block.page != "README.md" and reason_not_to_run(block.text.splitlines()[0]) and len(commands(block)) <= 2:
        pytest.skip(reason_not_to_run(block.text))
    if "softhsm2-util" in block.text and shutil.which("softhsm2-util") is None:
        pytest.skip("SKIPPED: SoftHSM 2 is not installed (apt install softhsm2)")
    make_room(block.text)
    let_people_in(block)
    printed = "".join(run_line(line, desk) for line in commands(block) if not reason_not_to_run(line))
    if block.prints:
        assert without_chance(printed) == without_chance(block.prints)


def without_chance(text: str) -> list[str]:
    """Lines without what differs each time: ids, times, and the order of what was made in the same second."""
    return sorted(re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "<time>", re.sub(r"[0-9a-f]{32}", "<id>", line)) for line in text.splitlines())


def run_line(line: str, desk: Path) -> str:
    expected = next((code for start, code in EXIT_CODES.items() if line.startswith(start)), 0)
    if line.startswith(("hushgrad doctor", "hushgrad demo")):
        pytest.importorskip("torch", reason="looks at a model, trains one, or says that the machine cannot")
        pytest.importorskip("hushgrad._torch")
    if "explain 3f9a" in line:
        (training, *_) = Ledger("hushgrad.ledger.db").runs("ward-7") or [None]
        if training is None:
            return ""
        line = line.replace("3f9a", training.run_id[:8])
    words = shlex.split(line, comments=True)
    if words[0] == "hushgrad" and not {"|", "<", ">>", "&&"} & set(words) and "<(" not in line:
        target = Path(words[words.index(">") + 1]) if ">" in words else None
        done = run(*(words[1 : words.index(">")] if target else words[1:]))
        if target is not None:
            target.write_text(done.stdout)
    else:
        done = subprocess.run(["bash", "-euc", line], capture_output=True, text=True, timeout=300, check=False, env=shell_environment(desk))
    assert done.returncode == expected, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def shell_environment(desk: Path) -> dict[str, str]:
    """With `hushgrad` and `python` on the path, as after an installation."""
    tools = desk / ".tools"
    tools.mkdir(exist_ok=True)
    (tools / "hushgrad").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hushgrad "$@"\n')
    (tools / "hushgrad").chmod(0o755)
    if not (tools / "python").exists():
        (tools / "python").symlink_to(sys.executable)
    return {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}


@pytest.mark.parametrize("block", [block for block in ALL if block.language == "python"], ids=str)
def test_python_of_the_docs_runs(block: Block, desk: Path) -> None:
    if why := reason_not_to_run(block.text):
        pytest.skip(why)
    let_people_in(block)
    names: dict[str, Any] = {}
    if re.search(r"torch|PrivacyEngine|module=|checkpoint|import doctor", block.text):
        torch = pytest.importorskip("torch", reason="a block that trains")
        pytest.importorskip("hushgrad._torch")
        model = torch.nn.Sequential(torch.nn.Linear(9, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
        rows = torch.utils.data.TensorDataset(torch.randn(512, 9), torch.zeros(512, 1))
        names = {"torch": torch, "nn": torch.nn, "model": model, "rows": rows, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)}
    exec(compile(block.text, block.page, "exec"), names)


def test_what_is_not_run_is_still_there() -> None:
    """The list shows at a glance what is not run; an entry that fits nothing any more must go."""
    text = "\n".join(re.sub(r"\\\n\s*", "", block.text) for block in ALL) + "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [start for start in NOT_RUN if start not in text] == []
    assert len(NOT_RUN) <= 20


def mentions() -> list[tuple[str, str]]:
    """`hushgrad ...` wherever a page, a message or a docstring names it."""
    sources = [*PAGES, *(path for path in (ROOT / "examples").rglob("*") if path.suffix in (".py", ".sh", ".cpp")), *(ROOT / "python/hushgrad").rglob("*.py"), *(path for part in ("dpcore", "accounting", "torch_ext") for path in (ROOT / part).rglob("*.cpp"))]
    return [
        (str(path.relative_to(ROOT)), found)
        for path in sources
        for found in re.findall(r"`(hushgrad [a-z][^`\n]*)`", path.read_text(encoding="utf-8"))
        if not re.match(r"hushgrad (keyring|sealed|ledger entry|signed|checkpoint|approval|identity|certificate) ?\d", found)
    ]


@pytest.mark.parametrize(("source", "text"), sorted(set(mentions())), ids=lambda value: value[:60])
def test_commands_that_are_named_exist(source: str, text: str) -> None:
    words = text.split()[1:]
    command = root(_COMMANDS)
    assert words[0] in command.commands, f"{source} names `{text}`"
    command = command.get_command(None, words[0])
    for word in words[1:]:
        if hasattr(command, "commands") and not word.startswith("-"):
            for name in word.split("|"):
                assert name in command.commands or not re.fullmatch("[a-z-]+", name), f"{source} names `{text}`"
            command = command.commands.get(word, command)
    options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    if not hasattr(command, "commands"):
        assert {word.split("=")[0] for word in words if word.startswith("--") and word != "--"} <= options, f"{source} names `{text}`"
