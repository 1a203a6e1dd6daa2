"""The sentences of a report: what the numbers mean, for somebody who never heard of epsilon."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from hushgrad.report.numbers import one_in, round_down, round_up, to_float

Json = dict[str, Any]

PRIVACY: Json = {
    "adjacency": "add_or_remove_one",
    "unit": "one record of the dataset, as the training loader hands it out (a row, an image, a document)",
    "accountant": "pld",
    "trust": "central: the training machine and its operators see the records; the protection is of what leaves it",
    "post_processing": "what is computed from a released model without the records costs nothing more",
}

USER_UNIT = "one user with all of the user's records, as the training told users apart"

ASSUMPTIONS: list[str] = [
    "The training used hushgrad on a machine that nobody altered: its random numbers, its clipping and its charges.",
    "Each record is one row of the dataset as the loader hands it out, and contributes to a step only as that row.",
    "The attacker knows everything else: the settings, all other records, every intermediate model that was released.",
    "The ledger shown is the only one for these datasets.",
]

NOT_COVERED: list[str] = [
    "Several records of one person: the unit of privacy is one record. Somebody with k records is protected less, in"
    " the worst case by k times the epsilon shown.",
    "Anything done with the data outside this ledger: other training scripts, exports, statistics, a look at the rows.",
    "Choices made by looking at the data without recording it here: picking the best of several models, or settings,"
    " on private rows. Runs that are recorded here are counted, tuning and failed ones too.",
    "What is public by assumption: the number of records, the sampling rate, the model, the settings of the run.",
    "Side channels: how long a step takes, memory and files of the training machine, plain copies of the weights.",
    "A ledger that was put back together with everything that remembers it (a whole disk or machine image), or"
    " rewritten in full by somebody who may write the file. Compare the ledger head below with one kept elsewhere.",
    "Correctness of the model: privacy says nothing about its accuracy or fairness.",
]

EMPIRICAL_SENSITIVITY = (
    "Sensitivity is empirical: the clipped sum is computed in 32-bit floating point, and how far rounding can move it"
    " is measured and tested, not proven."
)


def not_covered(*, certified: bool) -> list[str]:
    """What no number of a report speaks about. `certified`: every run has a proven sensitivity."""
    return NOT_COVERED if certified else [*NOT_COVERED[:4], EMPIRICAL_SENSITIVITY, *NOT_COVERED[4:]]


def time(when: datetime) -> str:
    """Of the ledger, to the second."""
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def ledger_warnings(*, durable: bool, chain_ok: bool, missing: int = 0, break_glass: int = 0) -> list[Json]:
    """Warnings that concern the whole ledger; empty when all is well."""
    warnings = []
    if not chain_ok:
        warnings.append(_warning("ledger_altered", "The ledger has been altered or damaged, so no number it holds can"
                                 " be relied on. None is shown."))
    if not durable:
        warnings.append(_warning("not_durable", "This ledger is not kept on disk. What was spent is forgotten when the"
                                 " program ends, so nothing limits what is spent in total."))
    if missing:
        warnings.append(_warning("put_back", "This ledger was put back: an entry that was seen before is missing. What was"
                                 " spent in the lost copy is not counted here."))
    if break_glass:
        times = "once" if break_glass == 1 else f"{break_glass:,} times"
        warnings.append(_warning("break_glass", f"Emergency access (break-glass) was used {times}, which goes around the usual"
                                 " rules. Each use is listed under who decided what."))
    return warnings


def dataset_warnings(
    section: Json, *, non_private: Sequence[str], insecure: Sequence[str], unchecked: Sequence[str] = ()
) -> list[Json]:
    """Warnings for one dataset. The sequences: ids of such runs, listed in the report or not."""
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
    if unchecked:
        warnings.append(_warning("unchecked_loss", "The check that the loss keeps the records of a batch apart was switched off."
                                 " If it does not, the numbers here are too small: " + _name_runs(unchecked)))
    return warnings


def summary(section: Json) -> Json:
    """For the top of a dataset's section: status, headline, three figures, three sentences, and what epsilon is."""
    upper = to_float(section["spent"]["upper"])
    return {
        "status": _status(section, upper),
        "headline": _headline(section, upper),
        "figures": [_spent_figure(section), _left_figure(section), _risk_figure(_right(section))],
        "sentences": [_meaning(upper, _right(section)), _limit(section), _what_could_go_wrong(upper)],
        "explanation": _explanation(upper, section["delta"], _right(section)),
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


def _right(section: Json) -> float:
    """The smaller of two bounds that both hold: from epsilon at delta, and from the largest advantage at any delta."""
    by_epsilon = most_guesses_right(to_float(section["spent"]["upper"]), section["delta"])
    by_advantage = 50 * (1 + section["risk"]["membership_advantage"])
    return min(by_epsilon, float(math.ceil(by_advantage)) if by_advantage <= 98 else min(100.0, math.ceil(10 * by_advantage) / 10))


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


def _spent_figure(section: Json) -> Json:
    budget = section["budget"]
    exact = budget["spent"] if budget else section["spent"]["upper"]
    spent = "infinite" if to_float(exact) == math.inf else round_up(exact)
    runs, steps = section["runs_total"], section["steps"]
    note = f"by {steps:,} {'step' if steps == 1 else 'steps'} of {runs:,} {'run' if runs == 1 else 'runs'}, failed ones too"
    return {"label": "Spent, at most", "value": spent, "note": note if steps else "no training step was taken"}


def _left_figure(section: Json) -> Json:
    budget = section["budget"]
    if budget is None:
        return {"label": "Left", "value": "no limit", "note": "nobody has set a budget"}
    left = round_down(budget["left"])
    return {"label": "Left, at least", "value": left, "note": f"of the budget of {round_down(budget['epsilon'])}"}


def _risk_figure(right: float) -> Json:
    return {
        "label": "A guess about one record",
        "value": f"{right:g} in 100",
        "note": "right at most this often; a coin toss is right 50 times",
    }


def _meaning(upper: float, right: float) -> str:
    if math.isinf(upper):
        return ("At least one training step added no noise, or cannot be bounded. The released model may give away"
                " any record of this dataset.")  # fmt: skip
    if upper == 0:
        return "No released result depends on any record of this dataset."
    return ("Suppose somebody sees everything released from this dataset and wants to know whether one given record was"
            f" used. A coin toss is right 50 times in 100; they are right at most {right:g}"
            " times in 100.")  # fmt: skip


def _explanation(upper: float, delta: float, right: float) -> list[str]:
    if math.isinf(upper) or upper == 0:
        return []
    sentences = [
        "The number behind this is epsilon: with or without that record, no outcome becomes more than"
        f" {_factor(upper)} times as likely, except with a chance of at most {one_in(delta)} (delta)."
        " Smaller is safer; 0 would reveal nothing."
    ]
    if right >= 99:
        sentences.append("At this size the worst case that the bound allows is close to certainty.")
    return sentences


def _what_could_go_wrong(upper: float) -> str:
    if math.isinf(upper):
        return "Treat every model trained on this dataset as if it held the records themselves."
    return ("What could still go wrong: a person with several records is protected less, and nothing here protects the"
            " records, keys and files themselves. The risks are listed one by one below.")  # fmt: skip


def _factor(epsilon: float) -> str:
    if epsilon < math.log(1e6):
        return round_up(math.exp(epsilon))
    return f"10^{math.ceil(epsilon / math.log(10))}"


def _limit(section: Json) -> str:
    budget = section["budget"]
    if budget is None:
        return ("Nothing limits further spending: no budget is set for this dataset. The data owner sets one with"
                " the command hushgrad ledger set-budget.")  # fmt: skip
    if budget["status"] == "within":
        return "A training step that would pass the budget is refused, and nothing of it is released."
    if to_float(budget["spent"]) == math.inf or budget["status"] == "passed":
        return "Every further training step on this dataset is refused."
    return "The budget is used up: every further training step on this dataset is refused."
