"""The documentation keeps its word: links lead somewhere, named tests exist, the README's code prints what it shows."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest

import hushgrad.errors
from hushgrad.keys import verify_certificate
from hushgrad.signing import PublicKey

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    missing = [target for target in targets if target and not (page.parent / target).exists()]
    assert missing == []


def excerpts() -> list[tuple[str, str, str]]:
    pattern = r"<!-- from (\S+) -->\n```\w*\n(.*?)```"
    return [(page.name, *found) for page in PAGES for found in re.findall(pattern, page.read_text(), flags=re.DOTALL)]


@pytest.mark.parametrize(("page", "source", "code"), excerpts())
def test_excerpts_stand_in_their_source(page: str, source: str, code: str) -> None:
    assert code in (ROOT / source).read_text()


def check_named_tests(tested_by: str) -> None:
    named = re.findall(r"`([^`]+)`", tested_by)
    files = [ROOT / name for name in named if "/" in name]
    assert files and all(file.is_file() for file in files), tested_by
    text = "".join(file.read_text() for file in files)
    for name in (name for name in named if "/" not in name):
        suite, _, case = name.partition(".")
        pattern = rf"TEST(_F|_P)?\({suite},\s*{case}\)" if case else rf"def {name}\("
        assert re.search(pattern, text), name


def test_pitfalls_name_tests_that_exist() -> None:
    table = (ROOT / "docs/pitfalls.md").read_text().partition("| bug | here | test |")[2]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) > 30
    for row in rows:
        check_named_tests(row[3])


def guarantee_rows() -> list[tuple[str, str, str]]:
    rows = [line.split("|") for line in (ROOT / "docs/guarantees.md").read_text().splitlines() if line.startswith("| ")]
    return [(row[1].strip(), row[2], row[3]) for row in rows if row[1].strip() not in ("guarantee", "---")]


@pytest.mark.parametrize(("guarantee", "kept_in", "tested_by"), guarantee_rows())
def test_guarantees_name_code_and_tests_that_exist(guarantee: str, kept_in: str, tested_by: str) -> None:
    for source in re.findall(r"`([^`]+)`", kept_in):
        assert (ROOT / source).is_file(), source
    check_named_tests(tested_by)


def attack_rows() -> list[list[str]]:
    rows = [line.strip("| ").split(" | ") for line in (ROOT / "docs/security/attacks.md").read_text().splitlines() if line.startswith("| ")]
    return [row for row in rows if row[0].isdigit()]


def test_every_attack_has_tests_that_exist_and_an_error_of_the_taxonomy() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("*") if path.suffix in (".cpp", ".h", ".py"))
    rows = attack_rows()
    assert [int(row[0]) for row in rows] == list(range(1, 32))
    for number, _, tested_by, error, verdict in rows:
        named = re.findall(r"`([^`]+)`", tested_by)
        assert named and verdict, number
        for name in named:
            suite, _, case = name.partition(".")
            assert re.search(rf"TEST(_F|_P)?\({suite},\s*{case}\)" if case else rf"def {name}\(", sources), name
        errors = re.findall(r"`([^`]+)`", error)
        assert errors or error == "none", number
        assert all(issubclass(getattr(hushgrad.errors, name), hushgrad.errors.HushgradError) for name in errors), error


def test_the_certificate_that_is_shown_is_one() -> None:
    (text,) = re.findall(r"```json\n(\{\n.*?certificate of destruction.*?)```", (ROOT / "docs/keys.md").read_text(), flags=re.DOTALL)
    signer = PublicKey.from_pem(json.loads(text)["public_key"])
    assert verify_certificate(text, signer)
    assert not verify_certificate(text.replace("trial-4", "trial-5"), signer)


def test_readme_code_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("hushgrad._torch")
    code, output = re.search(
        r"```python\n(.*?)```\n+```text\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL
    ).groups()  # type: ignore[union-attr]
    monkeypatch.chdir(tmp_path)
    features = torch.randn(8192, 9)
    rows = torch.utils.data.TensorDataset(features, (features[:, :1] > 0).float())
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {"rows": rows})
    assert printed.getvalue() == output
