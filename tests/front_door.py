"""The front door as a user types it."""

import sys

import pytest

import run_all


def call(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["run_all.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        run_all.main()
        raise SystemExit(0)
    out = capsys.readouterr()
    return int(stop.value.code or 0), out.out, out.err
