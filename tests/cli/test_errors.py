"""What people see of errors: one line, status 2; every text file is UTF-8, whatever the locale."""

import ast
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import typer

from benchmarks.cli.errors import explain, run_script, run_verb

ROOT = Path(__file__).parents[2]


class Silent(ValueError):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.fixture(autouse=True)
def no_arguments(monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["run_all.py"])


def raising(error: BaseException):
    app = typer.Typer()

    @app.command()
    def verb() -> None:
        raise error

    return app


@pytest.mark.parametrize("error, status, line", [
    (ValueError("a.yaml:3: no grid 7; nearest: 8"), 2, "error: a.yaml:3: no grid 7; nearest: 8"),
    (ValueError("first\n  second"), 2, "error: first second"),
    (ValueError(), 2, "error: no message"),
    (ValueError("\x1b[31mred\x07"), 2, "error: \ufffd[31mred\ufffd"),
    (Silent(), 2, "error: (its message cannot be shown: RuntimeError)"),
    (FileNotFoundError(2, "No such file or directory", "a.npz"), 2, "error: a.npz: No such file or directory"),
    (PermissionError(13, "Permission denied", "a", None, "b"), 2, "error: a -> b: Permission denied"),
    (OSError(28, "No space left on device", "x/y"), 2, "error: x/y: No space left on device; free some space"),
    (OSError(28, "No space left on device"), 2, "error: standard output: No space left on device; free some space"),
    (OSError("cannot identify image file 'a.png'"), 2, "error: cannot identify image file 'a.png'"),
    (ModuleNotFoundError("No module named 'wandb'", name="wandb"), 2,
     "error: No module named 'wandb'; try: pip install wandb"),
    (MemoryError("9 GiB"), 2, "error: out of memory (9 GiB); use a smaller --batch or fewer --workers"),
    (EOFError("no data left"), 1, "error: a fault of this software, please report it: EOFError: no data left at "),
    (KeyError("width"), 1, "error: a fault of this software, please report it: KeyError: 'width' at "),
    (RecursionError("too deep"), 1, "error: a fault of this software, please report it: RecursionError: too deep at "),
])  # fmt: skip
def test_an_error_is_one_line(error, status, line, capsys) -> None:
    assert run_verb(raising(error)) == status
    said = capsys.readouterr()
    told = said.err.lstrip("\n")  # typer ends an open line before it says that a file has ended
    assert told.startswith(line) and told.count("\n") == 1 and said.out == ""
    if status == 1:
        assert "test_errors.py:" in said.err and "FLEXIVIT_TRACEBACK=1 shows the traceback" in said.err


def test_the_traceback_is_there_for_who_asks(monkeypatch, capsys) -> None:
    monkeypatch.setenv("FLEXIVIT_TRACEBACK", "1")
    assert run_verb(raising(ValueError("wrong"))) == 2
    said = capsys.readouterr().err
    assert said.startswith("Traceback") and said.endswith("\nerror: wrong\n")


def test_text_that_is_no_utf8_names_where_it_was_read(tmp_path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"name: \xff")
    with pytest.raises(UnicodeDecodeError) as caught:
        path.read_text(encoding="utf-8")
    line, status = explain(caught.value)
    assert status == 2 and line.startswith("error: a file is not UTF-8 text: 'utf-8' codec can't decode byte 0xff")


@pytest.mark.parametrize("arguments, line", [
    (["ls", "nonsense"], "error: Invalid value for 'what'"),
    (["plan", "demo", "--nonsense"], "error: No such option"),
    (["report"], "error: Missing argument 'folders'"),
    (["nonsense"], "error: No such command 'nonsense'"),
    (["run", "demo", "--batch", "0"], "error: Invalid value for '--batch'"),
])  # fmt: skip
def test_a_wrong_command_line_is_one_line(monkeypatch, capsys, arguments, line) -> None:
    from benchmarks.cli.app import app

    monkeypatch.setattr(sys, "argv", ["run_all.py", *arguments])
    assert run_verb(app) == 2
    said = capsys.readouterr()
    assert said.err.startswith(line) and said.err.count("\n") == 1 and "--help" in said.err and not said.out


def test_statuses_of_verbs_are_kept(capsys) -> None:
    assert run_verb(raising(KeyboardInterrupt())) == 130

    def before_any_verb(standalone_mode: bool) -> None:
        raise KeyboardInterrupt

    assert run_verb(before_any_verb) == 130 and capsys.readouterr().err == ""
    for status in (0, 1, 3):
        assert run_verb(raising(typer.Exit(status))) == status
    assert run_verb(raising(SystemExit(4))) == 4
    assert run_verb(raising(SystemExit("process 1: out of memory"))) == 1
    assert capsys.readouterr().err == "process 1: out of memory\n"


def test_a_script_says_in_a_line_what_can_be_mended_and_shows_its_own_faults(capsys) -> None:
    def script(error: BaseException | None = None) -> int:
        if error:
            raise error
        return 3

    with pytest.raises(SystemExit) as left:
        run_script(lambda: script(ValueError("/nowhere: no pictures")))
    assert left.value.code == 2 and capsys.readouterr().err == "error: /nowhere: no pictures\n"
    with pytest.raises(SystemExit) as left:
        run_script(lambda: script(RuntimeError("not compiled")))
    told = capsys.readouterr().err
    assert left.value.code == 1 and told.startswith("Traceback") and "RuntimeError: not compiled" in told
    with pytest.raises(SystemExit) as left:
        run_script(lambda: script(KeyboardInterrupt()))
    assert left.value.code == 130 and not capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        run_script(script)
    assert left.value.code == 3


def test_every_script_has_this_boundary() -> None:
    """`benchmarks.speed.gpu.engine --data /nowhere` ended in a traceback, as others did."""
    ends = {
        str(path.relative_to(ROOT)): text.rpartition('if __name__ == "__main__":\n')[2]
        for path in sorted((ROOT / "benchmarks").rglob("*.py"))
        if '\nif __name__ == "__main__":\n' in (text := path.read_text(encoding="utf-8"))
    }
    assert len(ends) > 25
    assert not {p: end for p, end in ends.items() if not end.startswith("    run_script(")}


def test_a_warning_of_ours_is_one_line(capsys) -> None:
    app = typer.Typer()

    @app.command()
    def verb() -> None:
        warnings.warn_explicit("rows.jsonl:2: not a row", UserWarning, str(ROOT / "benchmarks" / "x.py"), 3)
        warnings.warn_explicit("old", FutureWarning, "other/package.py", 3)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        kept = warnings.formatwarning
        try:
            assert run_verb(app) == 0
        finally:
            warnings.formatwarning = kept
    # pytest shows warnings itself; what would be printed is the format
    from benchmarks.cli.errors import _warning

    assert _warning("a\nb", UserWarning, str(ROOT / "tasks" / "x.py"), 3) == "warning: a b\n"
    assert _warning("old", FutureWarning, "o/p.py", 3) == "FutureWarning: old (o/p.py:3)\n"


def command(*arguments: str, **more: str) -> subprocess.Popen:
    environment = {**os.environ, **more}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run_all.py"), *arguments], cwd=ROOT, env=environment, stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip


def test_a_reader_that_has_enough_and_a_full_disk_are_quiet() -> None:
    process = command("ls", "suites")
    process.stdout.close()
    assert b"Traceback" not in (error := process.stderr.read()) and b"Exception ignored" not in error
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, str(ROOT / "run_all.py"), "ls", "suites"], cwd=ROOT, stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 2
    assert done.stderr == b"error: standard output: No space left on device; free some space\n"


def test_a_report_under_an_ascii_locale_is_utf8(tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(Path(__file__).parents[1] / "store" / "old_rows", tmp_path / "old")
    run.mkdir()
    text = next((tmp_path / "old").glob("first*")).read_text(encoding="utf-8")
    (run / "rows.jsonl").write_text(text.replace("tiny_backbone:tiny", "tiny_ö:±"), encoding="utf-8")
    process = command("report", str(run), LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0 and b"Traceback" not in error, error
    assert "tiny_ö:±" in (run / "report" / "page.html").read_text(encoding="utf-8")
    assert "tiny_ö:±" in (run / "report" / "tables.md").read_text(encoding="utf-8")
    assert out.isascii() and rb"tiny_\xf6:\xb1" in out


def test_every_text_file_says_its_encoding() -> None:
    """Else it is read and written in the locale's, which differs from machine to machine."""
    for layer in ("backbones", "tasks", "benchmarks"):
        for path in (ROOT / layer).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and _opens_text(node):
                    raise AssertionError(f"{path.relative_to(ROOT)}:{node.lineno} opens a text without encoding=")


def _opens_text(call: ast.Call) -> bool:
    function, given = call.func, {k.arg: k.value for k in call.keywords}
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if "encoding" in given or None in given:
        return False
    if name in ("read_text", "write_text"):
        return isinstance(function, ast.Attribute)  # a path's, not a reader's own
    if isinstance(given.get("text"), ast.Constant) and name in ("run", "Popen", "check_output"):
        return True
    if name != "open":
        return False
    if isinstance(function, ast.Attribute):  # Image.open, tarfile.open, zipfile's: only a mode "w" or "a" tells a text
        mode = call.args[0] if call.args else given.get("mode")
        return isinstance(mode, ast.Constant) and mode.value in ("w", "a", "x", "r", "w+", "r+", "a+")
    mode = call.args[1] if len(call.args) > 1 else given.get("mode", ast.Constant("r"))
    return isinstance(mode, ast.Constant) and "b" not in mode.value
