"""The budget report: numbers against slow references, escaping, infinity, tampering, accessibility."""

import base64
import hashlib
import json
import math
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import mpmath
import pytest
import rfc8785
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from hushgrad.accounting import DpEvent, GaussianDpEvent, PoissonSampledDpEvent
from hushgrad.cli import report as cli_report
from hushgrad.errors import BudgetExceeded, InvalidArgument
from hushgrad.ledger import Ledger
from hushgrad.report import build, chart, numbers, render, words

STEP = PoissonSampledDpEvent(0.1, GaussianDpEvent(2.0))
DELTA = 1e-6
Document = dict[str, Any]


def run_steps(ledger: Ledger, dataset: str, event: DpEvent, count: int, **info: Any) -> str:
    run = ledger.begin_run(dataset=dataset, **info)
    for _ in range(count):
        ledger.charge(run, event)
    return run


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "budget.db")


@pytest.fixture
def two_runs(ledger: Ledger) -> Ledger:
    ledger.set_budget(dataset="ward-7", epsilon=4.0, delta=DELTA)
    first = run_steps(ledger, "ward-7", STEP, 30, purpose="triage", actor="m.okafor", plan={"max_grad_norm": 0.5})
    ledger.finish_run(first, "completed")
    run_steps(ledger, "ward-7", STEP, 10, purpose="triage, wider", actor="j.lind")
    return ledger


def only_dataset(document: Document) -> Document:
    (section,) = document["content"]["datasets"]
    return section  # type: ignore[no-any-return]


# --- numbers ---------------------------------------------------------------------------------------------------------


def gaussian_epsilon(noise_multiplier: float, steps: int, delta: float) -> float:
    """Balle and Wang (2018), theorem 8, solved by bisection at 50 digits."""
    mpmath.mp.dps = 50
    mu = mpmath.sqrt(steps) / noise_multiplier

    def delta_at(epsilon: Any) -> Any:
        return mpmath.ncdf(mu / 2 - epsilon / mu) - mpmath.exp(epsilon) * mpmath.ncdf(-mu / 2 - epsilon / mu)

    return float(mpmath.findroot(lambda e: delta_at(e) - mpmath.mpf(delta), (0, 60), solver="bisect", tol=1e-40))


def test_spent_holds_the_exact_epsilon_of_all_runs(ledger: Ledger) -> None:
    run_steps(ledger, "d", GaussianDpEvent(8.0), 9)
    run_steps(ledger, "d", GaussianDpEvent(8.0), 7)
    section = only_dataset(build(ledger, delta=DELTA))
    first, second = (run["epsilon"] for run in section["runs"])
    for spent, steps in [(section["spent"], 16), (first, 9), (second, 7)]:
        exact = gaussian_epsilon(8.0, steps, DELTA)
        assert spent["lower"] <= exact * (1 + 1e-12) and exact <= spent["upper"] * (1 + 1e-12)
        assert spent["upper"] - spent["lower"] < 0.01 * exact


def test_spent_is_what_the_ledger_says(two_runs: Ledger) -> None:
    section = only_dataset(build(two_runs))
    assert (section["spent"]["lower"], section["spent"]["upper"]) == two_runs.spent(dataset="ward-7", delta=DELTA)
    assert section["budget"]["left"] == 4.0 - section["spent"]["upper"]
    assert section["steps"] == 40


@given(st.floats(1e-9, 1e6))
def test_rounding_goes_against_the_spender(value: float) -> None:
    up, down = (Decimal(text.replace(",", "")) for text in (numbers.round_up(value), numbers.round_down(value)))
    assert down <= Decimal(value) <= up
    assert float(up - down) <= max(0.0100001, value / 5) and float(up) <= value * 1.11


def test_rounding_examples() -> None:
    assert [numbers.round_up(v) for v in (0, 0.001234, 2.001, 3.0)] == ["0", "0.0013", "2.01", "3.00"]
    assert numbers.round_up("infinity") == "infinity"
    assert [numbers.round_down(v) for v in (0, 0.001239, 2.009, 1234.5)] == ["0", "0.0012", "2.00", "1,234.50"]
    assert numbers.one_in(1e-5) == "1 in 99,999"  # the double nearest to 1e-5 lies above it
    assert numbers.one_in(0.25) == "1 in 4"


@given(st.floats(0, 50), st.floats(1e-9, 0.5))
def test_guesses_never_understate_the_best_attack(epsilon: float, delta: float) -> None:
    # Randomised response with a leak is the tight mechanism: with chance delta it tells, otherwise it answers
    # truthfully with odds e^epsilon. Kairouz, Oh, Viswanath (2015), theorem 2.
    mpmath.mp.dps = 50
    odds = mpmath.exp(mpmath.mpf(epsilon))
    best = 100 * (mpmath.mpf(delta) + (1 - mpmath.mpf(delta)) * odds / (1 + odds))
    shown = words.most_guesses_right(epsilon, delta)
    assert shown >= best - mpmath.mpf(10) ** -9
    assert shown < best + 1 + mpmath.mpf(10) ** -9


def test_curve_grows_from_zero_to_what_is_spent(two_runs: Ledger) -> None:
    section = only_dataset(build(two_runs))
    epsilons = [point["epsilon"] for point in section["curve"]]
    assert section["curve"][0] == {"step": 0, "epsilon": 0}
    assert section["curve"][-1] == {"step": 40, "epsilon": section["spent"]["upper"]}
    assert epsilons == sorted(epsilons) and len(epsilons) == 41
    halfway = next(point for point in section["curve"] if point["step"] == 30)
    assert halfway["epsilon"] == section["runs"][0]["epsilon"]["upper"]


def test_long_runs_keep_the_curve_short(ledger: Ledger) -> None:
    run_steps(ledger, "d", STEP, 97)
    section = only_dataset(build(ledger, delta=DELTA))
    assert len(section["curve"]) == 41
    assert [p["step"] for p in section["curve"]] == sorted({round(97 * i / 40) for i in range(41)})


@given(st.floats(1e-6, 1e9))
def test_ticks_cover_and_are_few(largest: float) -> None:
    ticks = chart.nice_ticks(largest)
    assert ticks[0] == 0 and ticks[-1] >= largest * (1 - 1e-9)
    assert 2 <= len(ticks) <= 7
    assert ticks[-2] < largest


def test_drawing_stays_inside_its_frame(two_runs: Ledger) -> None:
    drawing = chart.draw(only_dataset(build(two_runs)))
    assert drawing is not None and drawing.budget is not None
    points = [tuple(map(float, pair.split())) for pair in drawing.line.lstrip("M").split("L")]
    assert all(drawing.left <= x <= drawing.right and drawing.top <= y <= drawing.bottom for x, y in points)
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
    assert drawing.top <= drawing.budget < drawing.bottom
    assert len(drawing.runs) == 1


# --- which delta -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plans", "budget_delta", "expected"),
    [
        ([{"target_delta": 1e-7}], 1e-6, (1e-6, "budget")),
        ([{"target_delta": 1e-7}, {"target_delta": 1e-8}], None, (1e-8, "plan")),
        ([{"dataset_size": 1000}, {"dataset_size": 5000}], None, (1 / 50000, "dataset_size")),
        ([{}], None, (1e-5, "default")),
        ([{"target_delta": "soon", "dataset_size": True}], None, (1e-5, "default")),
        ([{"target_delta": 2, "dataset_size": -5}], None, (1e-5, "default")),
    ],
)
def test_default_delta(
    ledger: Ledger, plans: list[Document], budget_delta: float | None, expected: tuple[float, str]
) -> None:
    for plan in plans:
        run_steps(ledger, "d", STEP, 1, plan=plan)
    if budget_delta is not None:
        ledger.set_budget(dataset="d", epsilon=1.0, delta=budget_delta)
    section = only_dataset(build(ledger))
    assert (section["delta"], section["delta_source"]) == expected


def test_the_budget_is_judged_at_its_own_delta(two_runs: Ledger) -> None:
    section = only_dataset(build(two_runs, delta=1e-3))
    assert section["spent"]["upper"] == two_runs.spent(dataset="ward-7", delta=1e-3)[1]
    assert section["budget"]["spent"] == two_runs.spent(dataset="ward-7", delta=DELTA)[1]
    assert b"set at another delta" in render(build(two_runs, delta=1e-3))


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-9, math.nan, math.inf])
def test_delta_outside_its_domain_is_refused(ledger: Ledger, delta: float) -> None:
    with pytest.raises(InvalidArgument, match="delta in"):
        build(ledger, delta=delta)


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_run_facts_come_from_what_was_charged(ledger: Ledger) -> None:
    run_steps(ledger, "d", STEP, 3, plan={"noise_multiplier": 99.0, "sampling_rate": 0.001})
    (run,) = only_dataset(build(ledger, delta=DELTA))["runs"]
    (mechanism,) = run["mechanisms"]
    assert (mechanism["noise_multiplier"], mechanism["sampling_rate"], mechanism["steps"]) == (2.0, 0.1, 3)


def test_nothing_but_named_settings_is_copied_from_a_plan(ledger: Ledger) -> None:
    secret = {"training_loss": 0.271828, "batch_sizes": [314159], "grad_norm": 0.577215, "clip_fraction": 0.161803,
              "note": "seen 141421 times", "epochs": {"deep": 173205},
              "max_grad_norm": 0.5, "clipping": "flat"}  # fmt: skip
    run_steps(ledger, "d", STEP, 1, plan=secret)
    document = build(ledger, delta=DELTA)
    assert only_dataset(document)["runs"][0]["plan"] == {"max_grad_norm": 0.5, "clipping": "flat"}
    for page in (render(document), render(document, format="json")):
        assert not re.search(rb"271828|314159|577215|161803|141421|173205", page)


def test_refused_charges_are_counted(ledger: Ledger) -> None:
    ledger.set_budget(dataset="d", epsilon=1.5, delta=DELTA)
    run = ledger.begin_run(dataset="d")
    with pytest.raises(BudgetExceeded):
        for _ in range(1000):
            ledger.charge(run, STEP)
    document = build(ledger)
    section = only_dataset(document)
    assert section["runs"][0]["refused_charges"] == 1
    assert section["budget"]["status"] == "within" and 0 <= section["budget"]["left"] < 0.5
    assert section["steps"] > 0
    assert b"1 step refused by the budget" in render(document)


def test_one_run_is_listed_and_all_are_counted(two_runs: Ledger) -> None:
    first, second = two_runs.runs()
    section = only_dataset(build(two_runs, run=second.run_id))
    assert [run["run_id"] for run in section["runs"]] == [second.run_id]
    assert section["runs_total"] == 2 and section["steps"] == 40
    assert section["spent"] == only_dataset(build(two_runs))["spent"]
    with pytest.raises(InvalidArgument, match="run of this ledger"):
        build(two_runs, run="no such run")
    two_runs.begin_run(dataset="other")
    with pytest.raises(InvalidArgument, match="run of this ledger on dataset 'other'"):
        build(two_runs, dataset="other", run=first.run_id)


def test_datasets_are_apart(two_runs: Ledger) -> None:
    run_steps(two_runs, "ward-8", STEP, 5)
    assert [section["dataset"] for section in build(two_runs)["content"]["datasets"]] == ["ward-7", "ward-8"]
    assert only_dataset(build(two_runs, dataset="ward-8"))["steps"] == 5
    with pytest.raises(InvalidArgument, match="dataset of this ledger"):
        build(two_runs, dataset="ward-9")


def test_empty_ledger(ledger: Ledger) -> None:
    document = build(ledger)
    assert document["content"]["datasets"] == []
    assert document["content"]["ledger"]["chain"]["ok"] is True
    assert b"holds no dataset yet" in render(document)


def test_budget_without_runs(ledger: Ledger) -> None:
    ledger.set_budget(dataset="d", epsilon=1.0, delta=DELTA)
    document = build(ledger)
    assert only_dataset(document)["spent"] == {"lower": 0, "upper": 0}
    assert only_dataset(document)["summary"]["headline"] == "Nothing has been spent yet."
    assert b"<svg" not in render(document)


def test_infinite_epsilon(ledger: Ledger) -> None:
    run_steps(ledger, "d", STEP, 3)
    run_steps(ledger, "d", PoissonSampledDpEvent(0.1, GaussianDpEvent(0.0)), 2)
    document = build(ledger, delta=DELTA)
    section = only_dataset(document)
    assert section["spent"]["upper"] == "infinity"
    assert section["summary"]["status"] == "unlimited"
    assert [run["private"] for run in section["runs"]] == [True, False]
    assert [warning["code"] for warning in section["warnings"]] == ["non_private"]
    assert [p["epsilon"] == "infinity" for p in section["curve"]] == [False, False, False, False, True, True]
    text = render(document, format="json").decode()
    assert "Infinity" not in text and "NaN" not in text
    page = render(json.loads(text)).decode()
    assert "There is no limit on what was revealed." in page
    assert 'class="headline danger-text"' in page and 'class="unlimited"' in page and "no noise: not private" in page


def test_infinite_epsilon_from_the_first_step(ledger: Ledger) -> None:
    run_steps(ledger, "d", GaussianDpEvent(0.0), 2)
    assert b"no limit on what was revealed" in render(build(ledger, delta=DELTA))


def test_infinite_epsilon_under_a_budget_set_later(ledger: Ledger) -> None:
    run_steps(ledger, "d", GaussianDpEvent(0.0), 1)
    ledger.set_budget(dataset="d", epsilon=2.0, delta=DELTA)
    document = build(ledger)
    assert only_dataset(document)["budget"]["left"] == 0
    assert only_dataset(document)["budget"]["status"] == "passed"
    assert b"no limit on what was revealed" in render(document)


def test_unlisted_runs_still_warn(ledger: Ledger) -> None:
    good = run_steps(ledger, "d", STEP, 1)
    run_steps(ledger, "d", GaussianDpEvent(0.0), 1)
    assert [w["code"] for w in only_dataset(build(ledger, run=good))["warnings"]] == ["non_private"]


@pytest.mark.parametrize("plan", [{"insecure": True}, {"noise_generator": "InsecureSeed"}, {"InsecureSeed": 7}])
def test_insecure_randomness_is_red(ledger: Ledger, plan: Document) -> None:
    run_steps(ledger, "d", STEP, 1, plan=plan)
    document = build(ledger, delta=DELTA)
    assert [w["code"] for w in only_dataset(document)["warnings"]] == ["insecure_randomness"]
    assert b'<span class="danger-text">insecure randomness</span>' in render(document)


def test_secure_randomness_is_not(two_runs: Ledger) -> None:
    assert only_dataset(build(two_runs))["warnings"] == []
    run_steps(two_runs, "ward-7", STEP, 1, plan={"insecure": False})
    assert only_dataset(build(two_runs))["warnings"] == []


def test_memory_ledger_is_red() -> None:
    ledger = Ledger(":memory:")
    run_steps(ledger, "d", STEP, 1)
    document = build(ledger, delta=DELTA)
    assert [w["code"] for w in document["content"]["warnings"]] == ["not_durable"]
    page = render(document)
    assert b'<p class="danger"><strong>Warning.</strong> This ledger is not kept on disk.' in page
    assert b"(not kept on disk)" in page


# --- the document ----------------------------------------------------------------------------------------------------


def test_json_is_canonical_and_round_trips(two_runs: Ledger) -> None:
    document = build(two_runs)
    text = render(document, format="json")
    assert rfc8785.dumps(json.loads(text)) == text
    assert render(json.loads(text), format="json") == text
    assert render(json.loads(text)) == render(document)
    assert render(build(two_runs), format="json") == text  # same ledger, same bytes


def test_digest_is_sha384_of_the_content(two_runs: Ledger) -> None:
    text = render(build(two_runs), format="json")
    start, end = text.index(b'{"content":') + len(b'{"content":'), text.index(b',"digest":{"algorithm"')
    assert hashlib.sha384(text[start:end]).hexdigest() == json.loads(text)["digest"]["value"]


@pytest.mark.parametrize("format", ["html", "json"])
def test_altered_document_is_refused(two_runs: Ledger, format: Any) -> None:
    document = json.loads(render(build(two_runs), format="json"))
    document["content"]["datasets"][0]["spent"]["upper"] = 0.1
    with pytest.raises(InvalidArgument, match="digest"):
        render(document, format=format)


def test_other_documents_are_refused(ledger: Ledger) -> None:
    with pytest.raises(InvalidArgument, match="schema"):
        render({"schema": "something else"})
    with pytest.raises(InvalidArgument, match="version 2"):
        render({**build(ledger), "schema_version": 2})
    with pytest.raises(InvalidArgument, match="format"):
        render(build(ledger), format="docx")  # type: ignore[arg-type]


def tamper(path: Path) -> None:
    with sqlite3.connect(path) as database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f'DROP TRIGGER "{name}"')
        database.execute("UPDATE entry SET payload = replace(payload, 'triage', 'treats') WHERE sequence = 3")
    database.close()


def test_altered_ledger_gives_a_verdict_and_no_numbers(two_runs: Ledger) -> None:
    path = Path(two_runs.path)
    del two_runs
    tamper(path)
    document = build(Ledger(path, create=False))
    content = document["content"]
    assert content["ledger"]["chain"]["ok"] is False
    assert content["datasets"] == []
    assert [w["code"] for w in content["warnings"]] == ["ledger_altered"]
    page = render(document)
    assert b"The ledger does not verify" in page and b"epsilon 4" not in page


# --- the page --------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Every tag with its attributes, and the text outside style."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "{{ 7 * 7 }}{% raw %}",
    "</title></style>&lt;b",
]


def test_names_are_escaped(ledger: Ledger) -> None:
    for name in HOSTILE:
        run_steps(ledger, name, STEP, 1, purpose=name, actor=name, plan={"clipping": name, "insecure": name})
    document = build(ledger, delta=DELTA)
    page = Page(render(document))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img", "iframe", "object", "embed", "base", "form", "b"}
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    text = "".join(page.texts)
    for name in HOSTILE:
        assert text.count(name) >= 4
    assert Page(render(build(ledger, dataset=HOSTILE[3], delta=DELTA))).all("title")[0] == {}


def test_page_is_self_contained(two_runs: Ledger) -> None:
    raw = render(build(two_runs))
    page = Page(raw)
    assert raw.startswith(b"<!doctype html>")
    loading = ("src", "srcset", "href", "xlink:href", "data", "action", "poster", "background")
    links = [value for _, attributes in page.tags for key, value in attributes.items() if key in loading]
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert links[0] == "#report" and all(link and link[0] == "#" and link[1:] in ids for link in links)
    assert b"url(" not in raw and b"@import" not in raw and b"<script" not in raw
    (policy,) = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    style = re.search(rb"<style>(.*?)</style>", raw, re.DOTALL)
    assert style is not None and raw.count(b"<style") == 1
    allowed = base64.b64encode(hashlib.sha256(style.group(1)).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none'"
    assert not [name for _, attributes in page.tags for name in attributes if name == "style"]  # the policy forbids them


def test_page_is_accessible(two_runs: Ledger) -> None:
    run_steps(two_runs, "ward-8", STEP, 5)
    page = Page(render(build(two_runs)))
    assert page.all("html")[0]["lang"] == "en"
    assert all(len(page.all(tag)) == 1 for tag in ("main", "header", "footer", "h1", "title") if tag != "title")
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert headings[0] == 1 and all(b - a <= 1 for a, b in zip(headings, headings[1:], strict=False))
    assert all(th.get("scope") in ("row", "col") for th in page.all("th"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = [id_ for _, a in page.tags for id_ in (a.get("aria-labelledby") or "").split()]
    assert named and set(named) <= set(ids)
    drawings = [svg for svg in page.all("svg") if svg.get("aria-hidden") != "true"]
    assert len(drawings) == 6  # epsilon over steps, over runs and the trade-off, the bar of the budget; steps and trade-off
    assert all(svg["role"] == "img" and svg["aria-labelledby"] for svg in drawings)
    assert len(page.all("nav")) == 1 and page.all("nav")[0]["aria-label"]


def test_first_screen_is_in_plain_words(two_runs: Ledger) -> None:
    section = only_dataset(build(two_runs))
    spent, left = section["spent"]["upper"], 4.0 - section["spent"]["upper"]
    up, down = math.ceil(spent * 100) / 100, math.floor(left * 100) / 100
    assert section["summary"]["headline"] == f"At most {up:.2f} of 4.00 has been spent; {down:.2f} is left."
    assert "coin toss" in section["summary"]["sentences"][0]
    text = "".join(Page(render(build(two_runs))).texts)
    assert text.index("has been spent") < text.index("Training runs")
    assert "sensitivity: empirical" in text and "do not cover" in text


# --- command line and imports ----------------------------------------------------------------------------------------


@pytest.fixture
def command() -> Callable[..., Any]:
    app = typer.Typer()
    app.callback()(lambda: None)
    cli_report.register(app)
    return lambda *arguments: CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_command_writes_by_the_ending(two_runs: Ledger, tmp_path: Path, command: Callable[..., Any]) -> None:
    html, canonical = tmp_path / "r.html", tmp_path / "r.json"
    assert command("--ledger", two_runs.path, "--output", html).exit_code == 0
    assert command("--ledger", two_runs.path, "--output", canonical).exit_code == 0
    assert html.read_bytes() == render(build(two_runs))
    assert canonical.read_bytes() == render(build(two_runs), format="json")
    shown = command("--ledger", two_runs.path, "--format", "json", "--delta", "0.001", "--dataset", "ward-7")
    assert only_dataset(json.loads(shown.stdout))["delta"] == 0.001


def test_command_fails_when_the_ledger_does_not_verify(
    two_runs: Ledger, tmp_path: Path, command: Callable[..., Any]
) -> None:
    path = Path(two_runs.path)
    del two_runs
    tamper(path)
    result = command("--ledger", path, "--output", tmp_path / "r.html")
    assert result.exit_code == 1 and result.exception.__class__ is SystemExit
    assert b"The ledger does not verify" in (tmp_path / "r.html").read_bytes()


def test_command_makes_no_ledger(tmp_path: Path, command: Callable[..., Any]) -> None:
    assert command("--ledger", tmp_path / "absent.db").exit_code != 0
    assert not (tmp_path / "absent.db").exists()


def test_report_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import hushgrad.report, hushgrad.cli.report;"
        " print('numpy' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
