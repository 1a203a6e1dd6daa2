"""Reports in every format: the published schema, hostile names, marked statistics, sizes from nothing to a thousand runs."""

from __future__ import annotations

import copy
import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from report_ledger import DELTA, PLAN, STEP, full_ledger, run_steps

from hushgrad.accounting import GaussianDpEvent
from hushgrad.errors import InvalidArgument, Unsupported
from hushgrad.ledger import Ledger
from hushgrad.report import build, pdf, render
from hushgrad.report.document import digest
from hushgrad.report.text import visible

jsonschema = pytest.importorskip("jsonschema")

SCHEMA = json.loads((Path(pdf.__file__).parent / "schema/report.v1.json").read_text())
TEXT_FORMATS: tuple[Any, ...] = ("json", "html", "csv", "md", "model-card", "croissant")
Document = dict[str, Any]


@pytest.fixture(scope="module")
def document() -> Document:
    return build(full_ledger())


def with_names(document: Document, name: str) -> Document:
    """The document with every text that comes from a person replaced: what a hostile ledger or a forged file could hold."""
    forged = copy.deepcopy(document)
    content = forged["content"]
    for section in content["datasets"]:
        section["dataset"] = section["privacy"]["unit"] = name
        section["description"]["purposes"] = [name]
        for run in section["runs"]:
            run.update(purpose=name, actor=name, dataset=name)
            run["plan"]["clipping"] = name
    for paper in content["records"]["entries"]:
        paper["fields"] = dict.fromkeys(paper["fields"], name)
    forged["digest"] = digest(content)
    return forged


# --- the schema ------------------------------------------------------------------------------------------------------


def test_schema_describes_every_document(document: Document) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    free = Ledger(":memory:")
    run_steps(free, "d", GaussianDpEvent(0.0), 2)
    for made in (document, build(Ledger(":memory:")), build(free)):
        assert list(validator.iter_errors(json.loads(render(made, "json")))) == []
    for path, value in ((("content", "ledger", "chain", "ok"), "yes"), (("digest", "value"), "0"), (("schema_version",), 2)):
        wrong = json.loads(render(document, "json"))
        at = wrong
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        assert not validator.is_valid(wrong)


def test_schema_names_every_field(document: Document) -> None:
    """A field that the schema does not know would be undocumented."""

    def walk(value: Any, schema: Any, where: str) -> None:
        if "$ref" in schema:
            schema = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]]
        for part in schema.get("anyOf", []):
            if "$ref" in part and value is not None:
                walk(value, part, where)
        if isinstance(value, list):
            for item in value:
                walk(item, schema.get("items", {}), where + "[]")
        if isinstance(value, dict) and "properties" in schema:
            for key, item in value.items():
                assert key in schema["properties"] or "additionalProperties" in schema, f"{where}.{key}"
                walk(item, schema["properties"].get(key, {}), f"{where}.{key}")

    walk(json.loads(render(document, "json")), SCHEMA, "")


# --- hostile names ---------------------------------------------------------------------------------------------------

HOSTILE = [
    "<script>alert(1)</script>",
    "</pre></style></title><svg onload=alert(1)>",
    "--> <!-- hushgrad-file {}",
    "{{ 7 * 7 }}{% include 'page.html' %}",
    "=HYPERLINK(\"http://x\")",
    "+1+1",
    "-2",
    "@SUM(1)",
    "[x](javascript:alert(1)) ![y](http://x/y.png) | `z` \\ *b* ~~s~~",
    "---\ntags: [evil]\n---",
    "a\u202egpj.exe\u2066b",
    "zero\u200bwidth\ufeff\x00\x1b[31m",
    "x" * 20_000,
]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_names_cannot_break_out(document: Document, name: str) -> None:
    forged = with_names(document, name)
    pages = {format: render(forged, format).decode() for format in TEXT_FORMATS}
    body = pages["html"]
    tags = set(re.findall(r"<([a-z][a-z0-9]*)", body))
    assert not tags & {"script", "img", "iframe", "object", "link", "form", "b", "base"}
    assert " onload=alert" not in body.replace("&lt;svg onload=alert", "")
    assert body.count("<!-- ") == body.count("<pre ") == body.count("</style>") == 1
    for format in ("html", "csv", "md", "model-card"):
        shown = pages[format].split("<pre ")[0]
        assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\ufeff\x00\x1b]", shown), format
    for format in ("md", "model-card"):
        shown = pages[format].split("---\n")[-1] if format == "model-card" else pages[format]
        assert "<" not in pages[format] and "](" not in shown
    assert json.loads(pages["json"])["content"]["datasets"][0]["dataset"] == name
    json.loads(pages["croissant"])


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_spreadsheets_see_no_formula(document: Document, name: str) -> None:
    rows = list(csv.reader(io.StringIO(render(with_names(document, name), "csv").decode())))
    assert len({len(row) for row in rows}) == 1 and len(rows) == 4
    assert all(not cell.startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows for cell in row)
    assert visible(name) in rows[1][0]


def test_metadata_of_a_model_card_is_yaml(document: Document) -> None:
    yaml = pytest.importorskip("yaml")
    for name in ("ward-7", *HOSTILE):
        card = render(with_names(document, name), "model-card").decode()
        metadata = yaml.safe_load(card.split("---\n")[1])
        assert metadata["tags"] == ["differential-privacy", "hushgrad"]
        (facts,) = metadata["differential_privacy"]
        assert facts["dataset"] == name and facts["delta"] == DELTA
        assert facts["epsilon"] == document["content"]["datasets"][0]["spent"]["upper"]


def test_croissant_fragment_is_linked_data(document: Document) -> None:
    fragment = json.loads(render(document, "croissant"))
    assert fragment["@context"]["cr"] == "http://mlcommons.org/croissant/"
    named = {item["name"]: item["value"] for item in fragment["sc:additionalProperty"]}
    assert named["delta"] == DELTA and named["adjacency"] == "add_or_remove_one"
    assert "epsilon at most" in fragment["rai:personalSensitiveInformation"][0]


# --- what is never shown ---------------------------------------------------------------------------------------------

MARKS = ["314159", "0.271828", "577215", "161803", "141421", "173205", "223606", "264575", "331662", "316227"]


def test_no_statistic_reaches_any_format() -> None:
    ledger = full_ledger()
    plan = {
        **PLAN,
        "batch_sizes": [314159],
        "training_loss": 0.271828,
        "grad_norm": "577215",
        "noise": "lattice, clip fraction 0.161803",
        "clipping": {"rate": 0.141421},
        "loss": "0.173205",
        "sampler": "indices 223606, 264575",
        "epochs": "331662",
    }
    run = run_steps(ledger, "ward-7", count=1, purpose="triage", actor="a", plan=plan)
    ledger.record("approval", action="release", actor="d", reason="mean gradient norm was 0.331662", subject="batch size 223606")
    ledger.record("release", actor="d", artifact="model, training loss 0.271828", digest="ab", run=run)
    ledger.record("audit", action="x", actor="d", decision="deny", policy="loss=316227", reason="clip_rate=316227", subject=run)
    made = build(ledger)
    for format in TEXT_FORMATS:
        page = render(made, format).decode()
        assert [mark for mark in MARKS if mark.removeprefix("0.") in page] == [], format
    assert made["content"]["records"]["refused"][0]["fields"]["reason"].startswith("(withheld")


def test_nothing_says_that_a_rule_is_met(document: Document) -> None:
    folder = Path(pdf.__file__).parent
    sources = [path.read_text() for kind in ("controls/*.json", "templates/*", "*.py") for path in folder.glob(kind)]
    for text in [*sources, *(render(document, format).decode() for format in TEXT_FORMATS)]:
        assert not re.search(r"compliant|complies|certified by|guarantees compliance", text, re.IGNORECASE)


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_nothing_at_all() -> None:
    empty = build(Ledger(":memory:"))
    for format in TEXT_FORMATS:
        assert render(empty, format)
    assert {row["verdict"] for f in empty["content"]["controls"] for row in f["rows"]} >= {"none", "not_applicable"}


def test_a_thousand_runs() -> None:
    ledger = Ledger(":memory:")
    for index in range(1000):
        run_steps(ledger, "d", GaussianDpEvent(100.0), 1 if index % 3 else 0, actor=f"a{index}")
    made = build(ledger)
    (section,) = made["content"]["datasets"]
    assert section["runs_total"] == len(section["runs"]) == 1000
    assert len(section["runs_curve"]) == 41 and section["runs_curve"][-1]["epsilon"] == section["spent"]["upper"]
    assert render(made).count(b'<th scope="row">\n<span class="mono">') == 1000


def test_infinite_epsilon_in_every_format() -> None:
    ledger = Ledger(":memory:")
    run_steps(ledger, "d", GaussianDpEvent(0.0), 2)
    made = build(ledger)
    risk = made["content"]["datasets"][0]["risk"]
    assert risk["membership_advantage"] == 1 and {r["true_positive_rate"] for r in risk["trade_off"]} == {1}
    for format in TEXT_FORMATS:
        text = render(made, format).decode()
        assert "NaN" not in text and "Infinity" not in text and "inf " not in text
    assert "all in 1,000" not in render(made).decode()


def test_many_kinds_of_events_are_bounded_quickly_and_safely() -> None:
    ledger = Ledger(":memory:")
    for index in range(70):
        run_steps(ledger, "d", GaussianDpEvent(40.0 + index), 2)
    (section,) = build(ledger, delta=DELTA)["content"]["datasets"]
    assert len(section["curve"]) <= 11
    assert section["curve"][-1]["epsilon"] == section["spent"]["upper"]
    mu = sum(2 / (40.0 + index) ** 2 for index in range(70)) ** 0.5
    from scipy.stats import norm

    assert section["risk"]["membership_advantage"] >= 2 * norm.cdf(mu / 2) - 1
    for rate in section["risk"]["true_positive_rates"]:
        assert rate["true_positive_rate"] >= norm.cdf(norm.ppf(rate["false_positive_rate"]) + mu)


# --- PDF -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("paper", "size"), [("a4", (595, 842)), ("letter", (612, 792))])
def test_pdf_has_pages_of_the_size_and_the_digest_on_each(document: Document, paper: Any, size: tuple[int, int]) -> None:
    pytest.importorskip("weasyprint")
    pypdf = pytest.importorskip("pypdf")
    forged = with_names(document, HOSTILE[0]) if paper == "letter" else document
    read = pypdf.PdfReader(io.BytesIO(render(forged, "pdf", paper=paper)))
    digest_value = forged["digest"]["value"]
    assert len(read.pages) > 3
    for number, page in enumerate(read.pages, 1):
        assert tuple(round(float(side)) for side in page.mediabox[2:]) == size
        text = "".join(page.extract_text().split())
        assert f"page{number}of{len(read.pages)}" in text and digest_value in text
    assert "privacy budget report" in read.pages[0].extract_text().lower()
    assert read.trailer["/Root"]["/MarkInfo"]["/Marked"] and read.trailer["/Root"]["/Lang"] == "en"
    assert json.loads(read.attachments["report.json"][0])["digest"]["value"] == digest_value


def test_pdf_loads_nothing() -> None:
    with pytest.raises(ValueError, match="loads nothing"):
        pdf._fetch_nothing("file:///etc/passwd")


def test_pdf_without_its_packages_names_the_extra(document: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(Unsupported, match=r"pip install 'hushgrad\[pdf\]'"):
        render(document, "pdf")
    with pytest.raises(InvalidArgument, match="paper"):
        render(document, "pdf", paper="a5")  # type: ignore[arg-type]


def test_formats_need_no_torch(tmp_path: Path) -> None:
    code = """
import sys; sys.modules["torch"] = None
sys.path.insert(0, sys.argv[1])
from report_ledger import full_ledger
from hushgrad.report import build, render, verify_report
made = build(full_ledger())
for format in ("json", "html", "csv", "md", "model-card", "croissant"):
    open(f"{sys.argv[2]}/r.{format}", "wb").write(render(made, format))
print(verify_report(f"{sys.argv[2]}/r.html").ok, verify_report(f"{sys.argv[2]}/r.json").ok, "numpy" in sys.modules)
"""
    arguments = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)]
    assert subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split() == ["True", "True", "False"]


def test_steps_are_plain_poisson_for_the_comparison(document: Document) -> None:
    (section,) = document["content"]["datasets"]
    rows = {row["assumption"]: row["epsilon"] for row in section["sampling_assumptions"]}
    assert rows["poisson"] == section["spent"]["upper"] < rows["shuffled"] < rows["every_step"]
    from hushgrad.accounting import SelfComposedDpEvent, epsilon

    assert rows["every_step"] == epsilon(SelfComposedDpEvent(GaussianDpEvent(2.0), 12), DELTA)[1]
    noise = section["calibration"]["rows"]
    assert [row["noise_multiplier"] for row in noise] == sorted((row["noise_multiplier"] for row in noise), reverse=True)
    for row in noise:
        spent = epsilon(SelfComposedDpEvent(type(STEP)(0.1, GaussianDpEvent(row["noise_multiplier"])), 12), DELTA)[1]
        assert spent <= row["epsilon"]
