"""Runs the command line inside this process: starting Python for every case would take longer than all the tests."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from hushgrad.cli import main


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """As a process would run it, but in this one: starting Python forty times would take longer than all the tests."""
    out, err = _stream(), _stream()
    before = Path.cwd()
    os.chdir(cwd or before)
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.object(sys, "argv", ["hushgrad", *arguments]),
            pytest.raises(SystemExit) as stopped,
        ):
            main()
    finally:
        os.chdir(before)
    code = stopped.value.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(arguments, code, _text(out), _text(err))


def read(*arguments: str) -> Any:
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_one_error_line(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, (done.stdout, done.stderr)
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
