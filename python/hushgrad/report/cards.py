"""A report in the formats of others: Markdown, the model card of the Hugging Face hub, a Croissant fragment."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hushgrad.report.numbers import percent_up, round_down, round_up
from hushgrad.report.text import visible

Json = dict[str, Any]

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~>:/@=$^])")


def render_markdown(document: Mapping[str, Any]) -> bytes:
    """The report as CommonMark with tables; texts of the ledger cannot become markup, links or HTML."""
    return "\n".join([*_report(document), ""]).encode()


def render_model_card(document: Mapping[str, Any]) -> bytes:
    """README.md of a model: a metadata block (YAML; texts are quoted, so none can break out), then a section."""
    facts = _facts(document)
    lines = ["---", "tags:", "- differential-privacy", "- hushgrad", "differential_privacy:" + ("" if facts else " []")]
    for fact in facts:
        lines += [f"{'-' if key == 'dataset' else ' '} {key}: {_yaml(value)}" for key, value in fact.items()]
    return "\n".join([*lines, "---", "", *_card(document), ""]).encode()


def render_croissant(document: Mapping[str, Any]) -> bytes:
    """A fragment of JSON-LD to merge into a data set's Croissant description."""
    content = document["content"]
    fragment = {
        "@context": {
            "@language": "en",
            "@vocab": "https://schema.org/",
            "cr": "http://mlcommons.org/croissant/",
            "rai": "http://mlcommons.org/croissant/RAI/",
            "sc": "https://schema.org/",
        },
        "@type": "sc:Dataset",
        "rai:personalSensitiveInformation": [_sentence(section) for section in content["datasets"]],
        "rai:dataLimitations": content["not_covered"],
        "sc:additionalProperty": [
            {"@type": "sc:PropertyValue", "propertyID": f"hushgrad:{key}", "name": key, "value": value, "valueReference": fact["dataset"]}
            for fact in _facts(document)
            for key, value in fact.items()
            if key != "dataset" and value is not None
        ],
        "sc:isBasedOn": {"@type": "sc:DigitalDocument", "name": "hushgrad budget report", "sha384": document["digest"]["value"]},
    }
    return (json.dumps(fragment, indent=2, sort_keys=True, ensure_ascii=True) + "\n").encode()


def escaped(text: object) -> str:
    """For Markdown: every mark escaped, HTML as entities, one line, what is not seen written as its number."""
    plain = visible(str(text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", plain.replace("&gt;", "\0")).replace("\0", "&gt;")


def _yaml(value: object) -> str:
    # Quoted JSON is YAML; of numbers YAML 1.1 takes 1e-06 for a text, and 1.0e-06 for a number.
    text = json.dumps(value).replace("<", "\\u003c")
    return re.sub(r"^(-?\d+)e", r"\1.0e", text) if isinstance(value, float) else text


def _facts(document: Mapping[str, Any]) -> list[Json]:
    content = document["content"]
    return [
        {
            "dataset": section["dataset"],
            "epsilon": section["spent"]["upper"],
            "delta": section["delta"],
            "privacy_unit": section["privacy"]["unit"],
            "adjacency": section["privacy"]["adjacency"],
            "accountant": section["privacy"]["accountant"],
            "sensitivity": section["privacy"]["sensitivity"],
            "runs": section["runs_total"],
            "steps": section["steps"],
            "membership_advantage": section["risk"]["membership_advantage"],
            "budget_epsilon": section["budget"]["epsilon"] if section["budget"] else None,
            "report_sha384": document["digest"]["value"],
            "software": f"hushgrad {content['software']['version']}",
        }
        for section in content["datasets"]
    ]


def _sentence(section: Json) -> str:
    return (
        f"Models trained on {section['dataset']}: epsilon at most {round_up(section['spent']['upper'])} at delta"
        f" {section['delta']:.3g}, all {section['runs_total']} runs composed; unit: {section['privacy']['unit']};"
        f" adjacency: {section['privacy']['adjacency']}."
    )


def _card(document: Mapping[str, Any]) -> Iterator[str]:
    yield "## Privacy"
    yield ""
    if not document["content"]["ledger"]["chain"]["ok"]:
        yield "**The ledger behind this model does not verify. Nothing can be said about its privacy.**"
        return
    for section in document["content"]["datasets"]:
        yield escaped(_sentence(section))
        yield ""
        yield from (f"{escaped(text)}" for text in section["summary"]["sentences"][:1])
        yield ""
        yield from (f"**Warning.** {escaped(warning['text'])}" for warning in section["warnings"])
    yield "Not covered:"
    yield ""
    yield from (f"- {escaped(item)}" for item in document["content"]["not_covered"])
    yield ""
    yield f"SHA-384 of the report: `{document['digest']['value']}`"


def _report(document: Mapping[str, Any]) -> Iterator[str]:
    content = document["content"]
    yield "# Privacy budget report"
    yield ""
    chain = content["ledger"]["chain"]
    yield f"The ledger verifies: {chain['entries_verified']:,} entries." if chain["ok"] else "**The ledger does not verify.**"
    yield ""
    yield from (f"**Warning.** {escaped(warning['text'])}\n" for warning in content["warnings"])
    for section in content["datasets"]:
        yield from _section(section)
    yield from _list("Risk register", [f"{row['title']}: {row['verdict'].replace('_', ' ')}. {row['remains']}" for row in content["risk_register"]["rows"]])
    for framework in [*content["controls"], content["agreement"]]:
        rows = [(row["id"], row["title"], row["verdict"].replace("_", " "), " ".join(e["text"] for e in row["evidence"])) for row in framework["rows"]]
        yield f"## {escaped(framework['framework'])}"
        yield ""
        yield from _table(("Control", "Title", "Evidence supporting it", "Found"), rows)
    yield from _list("What these numbers do not cover", content["not_covered"])
    yield from _list("What they assume", content["assumptions"])
    yield f"SHA-384 of the content: `{document['digest']['value']}`"


def _section(section: Json) -> Iterator[str]:
    yield f"## Dataset {escaped(section['dataset'])}"
    yield ""
    yield f"**{escaped(section['summary']['headline'])}**"
    yield ""
    for text in section["summary"]["sentences"] + section["summary"]["explanation"]:
        yield escaped(text) + "\n"
    yield from (f"**Warning.** {escaped(warning['text'])}\n" for warning in section["warnings"])
    rows = [
        (run["run_id"][:8], run["purpose"], run["actor"], run["status"], f"{run['steps']:,}", round_up(run["epsilon"]["upper"]))
        for run in section["runs"]
    ]
    total = ("all together", "", "", "", f"{section['steps']:,}", round_up(section["spent"]["upper"]))
    yield from _table(("Run", "Purpose", "Actor", "Status", "Steps", "Epsilon at most"), [*rows, total])
    yield from _list("What an attacker could find out at most", section["risk"]["sentences"], level="###")
    rates = section["risk"]["true_positive_rates"]
    yield from _table(("Wrongly accused", "Found at most"), [(percent_up(r["false_positive_rate"]), percent_up(r["true_positive_rate"])) for r in rates])
    if budget := section["budget"]:
        yield f"Budget: epsilon {round_down(budget['epsilon'])} at delta {budget['delta']:.3g}; left: {round_down(budget['left'])}."
        yield ""


def _list(title: str, items: Sequence[str], level: str = "##") -> Iterator[str]:
    yield f"{level} {title}"
    yield ""
    yield from (f"- {escaped(item)}" for item in items)
    yield ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    yield from ("| " + " | ".join(escaped(cell) for cell in row) + " |" for row in rows)
    yield ""
