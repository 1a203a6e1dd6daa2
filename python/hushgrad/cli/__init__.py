"""The command line: ``hushgrad``. Exit codes: ``exit_code.py``. Nothing here imports PyTorch.

Every command module has ``register(app)``; this file only lists the commands: heading of the help page -> name -> (module,
first paragraph of its help), so that help and completions need not import them.
"""

from __future__ import annotations

__all__ = ["main"]

_COMMANDS = {
    "Plan": {
        "epsilon": ("hushgrad.cli.epsilon", "Show what a training costs: epsilon as an interval, a comparison, a risk, a table and plot over steps."),
        "calibrate": (
            "hushgrad.cli.calibrate",
            "Find what a target allows: leave out what you look for, the noise, the steps, or the sampling rate or batch size.",
        ),
        "plan": ("hushgrad.cli.plan", "Plan a training: noise, steps and sampling rate for a target, what other batch sizes would do, and the code."),
    },
    "Budgets": {
        "ledger": ("hushgrad.cli.ledger", "Make a ledger, cap a dataset, and read what was spent."),
        "access": ("hushgrad.cli.access", "Say who may do what in a ledger: actors, grants, break-glass."),
        "policy": ("hushgrad.cli.policy", "Write, check, try, sign and publish the policy of a ledger."),
        "approve": ("hushgrad.cli.approve", "Ask for what takes a second person, sign it, and carry it out."),
        "report": ("hushgrad.cli.report", "Reports what was spent and what is left."),
        "verify": ("hushgrad.cli.verify", "Check a report: digest, signature, chain head, and that its pages show what it holds."),
    },
    "Keys and files": {
        "keys": ("hushgrad.cli.keys", "Make, change, approve and destroy the keys of datasets."),
        "seal": ("hushgrad.cli.seal", "Seal a file or folder: encrypted, authenticated, under the key of a dataset."),
        "open": ("hushgrad.cli.seal", "Open a sealed file or folder. Plaintext appears only complete and authenticated."),
        "inspect": (
            "hushgrad.cli.seal",
            "Show what a sealed file says about itself; without a keyring or a writer nothing of it is proven.",
        ),
    },
    "This machine": {
        "demo": ("hushgrad.cli.demo", "Show everything once, in a minute: a budget, a private training, a refusal, a sealed checkpoint, a report."),
        "doctor": ("hushgrad.cli.doctor", "Check a model before training; without one, check this machine."),
        "completion": ("hushgrad.cli.completion", "Print the script that completes commands and options in a shell."),
        "man": ("hushgrad.cli.man", "Print the manual page."),
    },
}


def main() -> None:
    """Run the command line and exit. An error is one red line on standard error, never a traceback."""
    import sys

    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    try:
        from hushgrad.cli.frame import run
        from hushgrad.cli.root import root

        return run(root(_COMMANDS), _meant(arguments))
    except KeyboardInterrupt:  # while modules were still being imported
        return 130


def _meant(arguments: list[str]) -> list[str]:
    """Nothing at all, ``help COMMAND`` and ``version`` are what they are in other tools."""
    first = arguments[0] if arguments else "help"
    if first == "help":
        return [*arguments[1:], "--help"]
    return ["--version", *arguments[1:]] if first == "version" else arguments
