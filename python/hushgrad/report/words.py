"""The sentences of a report: what the numbers mean, for somebody who never heard of epsilon."""

import math
from collections.abc import Sequence
from typing import Any

from hushgrad.report.numbers import one_in, round_down, round_up, to_float

Json = dict[str, Any]

PRIVACY: Json = {
    "adjacency": "add_or_remove_one",
    "unit": "one record of the dataset, as the training loader hands it out (a row, an image, a document)",
    "accountant": "pld",
    "sensitivity": "empirical",
}

NOT_COVERED: list[str] = [
    "Several records of one person: the unit of privacy is one record. Somebody with k records is protected less, in"
    " the worst case by k times the epsilon shown.",
    "Anything done with the data outside this ledger: other training scripts, exports, statistics, a look at the rows.",
    "Choices made by looking at the data without recording it here: picking the best of several models, or settings,"
    " on private rows. Runs that are recorded here are counted, failed ones too.",
    "What is public by assumption: the number of records, the sampling rate, the model, the settings of the run.",
    "Sensitivity is empirical: the clipped sum is computed in 32-bit floating point, and how far rounding can move it"
    " is measured and tested, not proven.",
    "Side channels: how long a step takes, memory and files of the training machine, plain copies of the weights.",
    "A ledger that was put back together with everything that remembers it (a whole disk or machine image), or"
    " rewritten in full by somebody who may write the file. Compare the ledger head below with one kept elsewhere.",
    "Correctness of the model: privacy says nothing about its accuracy or fairness.",
]


def ledger_warnings(*, durable: bool, chain_ok: bool) -> list[Json]:
    """Warnings that concern the whole ledger; empty when all is well."""
    warnings = []
    if not chain_ok:
        warnings.append(_warning("ledger_altered", "The ledger has been altered or damaged, so no number it holds can"
                                 " be relied on. None is shown."))
    if not durable:
        warnings.append(_warning("not_durable", "This ledger is not kept on disk. What was spent is forgotten when the"
                                 " program ends, so nothing limits what is spent in total."))
    return warnings


def dataset_warnings(section: Json, *, non_private: Sequence[str], insecure: Sequence[str]) -> list[Json]:
    """Warnings for one dataset. `non_private`, `insecure`: ids of such runs, listed in the report or not."""
    warnings = []
    if non_private:
        warnings.append(_warning("non_private", "Trained without noise, or with steps that no accountant can bound,"
                                 " which protects nobody: " + _name_runs(non_private)))
    if insecure:
        warnings.append(_warning("insecure_randomness", "Used randomness that can be repeated by anybody who knows the"
                                 " seed, which undoes the protection: " + _name_runs(insecure)))
    if section["budget"] and section["budget"]["status"] == "passed":
        warnings.append(_warning("budget_passed", "More was spent than the budget allows. Every further step is"
                                 " refused."))
    return warnings


def summary(section: Json) -> Json:
    """Status, headline and sentences for the top of a dataset's section."""
    upper = to_float(section["spent"]["upper"])
    return {
        "status": _status(section, upper),
        "headline": _headline(section, upper),
        "sentences": [*_meaning(upper, section["delta"]), *_limit(section)],
    }


def most_guesses_right(epsilon: float, delta: float) -> float:
    """Of 100 guesses whether one record was used, starting from a coin toss: how many can be right.

    (epsilon, delta)-privacy bounds the accuracy by (e^epsilon + delta) / (e^epsilon + 1) (Kairouz, Oh, Viswanath 2015,
    theorem 2, at equal prior chances). Rounded up to a whole number, above 98 to one decimal."""
    if epsilon > 700:
        return 100.0
    odds = math.exp(epsilon)
    right = 100 * (odds + delta) / (odds + 1)
    return min(100.0, float(math.ceil(right)) if right <= 98 else math.ceil(10 * right) / 10)


def _warning(code: str, text: str) -> Json:
    return {"code": code, "text": text}


def _name_runs(run_ids: Sequence[str]) -> str:
    shown = ", ".join(run_id[:8] for run_id in run_ids[:5])
    more = len(run_ids) - 5
    return f"{'run' if len(run_ids) == 1 else 'runs'} {shown}" + (f" and {more} more." if more > 0 else ".")


def _status(section: Json, upper: float) -> str:
    if math.isinf(upper):
        return "unlimited"
    if section["budget"]:
        return str(section["budget"]["status"])
    return "nothing_spent" if section["steps"] == 0 else "no_budget"


def _headline(section: Json, upper: float) -> str:
    budget = section["budget"]
    if math.isinf(upper):
        return "There is no limit on what was revealed."
    if section["steps"] == 0:
        return "Nothing has been spent yet."
    if budget is None:
        return f"At most {round_up(upper)} has been spent. No budget is set."
    spent, left = round_up(budget["spent"]), round_down(budget["left"])
    if budget["status"] == "passed":
        return f"{spent} has been spent, more than the budget of {round_down(budget['epsilon'])}."
    return f"At most {spent} of {round_down(budget['epsilon'])} has been spent; {left} is left."


def _meaning(upper: float, delta: float) -> list[str]:
    if math.isinf(upper):
        return ["At least one training step added no noise, or cannot be bounded. The released model may give away"
                " any record of this dataset."]
    if upper == 0:
        return ["No released result depends on any record of this dataset."]
    right = most_guesses_right(upper, delta)
    sentences = [
        "Suppose somebody sees everything released from this dataset and wants to know whether one given record was"
        f" used. A coin toss is right 50 times in 100; they are right at most {right:g} times in 100.",
        "The number behind this is epsilon: with or without that record, no outcome becomes more than"
        f" {_factor(upper)} times as likely, except with a chance of at most {one_in(delta)} (delta)."
        " Smaller is safer; 0 would reveal nothing.",
    ]
    if right >= 99:
        sentences.append("At this size the worst case that the bound allows is close to certainty.")
    return sentences


def _factor(epsilon: float) -> str:
    if epsilon < math.log(1e6):
        return round_up(math.exp(epsilon))
    return f"10^{math.ceil(epsilon / math.log(10))}"


def _limit(section: Json) -> list[str]:
    budget = section["budget"]
    if budget is None:
        return ["Nothing limits further spending: no budget is set for this dataset. The data owner sets one with"
                " the command hushgrad ledger set-budget."]
    if budget["status"] == "within":
        return ["A training step that would pass the budget is refused, and nothing of it is released."]
    if to_float(budget["spent"]) == math.inf or budget["status"] == "passed":
        return ["Every further training step on this dataset is refused."]
    return ["The budget is used up: every further training step on this dataset is refused."]
