"""Every fenced block of README and docs is run by a test, or is named here with the reason why not.

What is not run is at least read: commands by the parser of the command line, files of suites and JSON by theirs.
"""

import ast
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

import run_all

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [
    (page.name, number, found[1], found[2])
    for page in PAGES
    for number, found in enumerate(FENCE.finditer(page.read_text(encoding="utf-8")), 1)
]
IDS = [f"{page}-{number}" for page, number, _, _ in BLOCKS]

# (page, language) -> the test that runs all blocks of it
RUN = {
    ("README.md", "python"): "tests/docs/test_blocks.py",
    ("add-a-backbone.md", "python"): "tests/docs/test_plug_ins.py",
    ("add-a-task.md", "python"): "tests/docs/test_plug_ins.py",
    ("add-a-task.md", "yaml"): "tests/docs/test_plug_ins.py",
    ("add-a-dataset.md", "yaml"): "tests/data/test_cards.py",
    ("library.md", "python"): "tests/backbones/test_library_docs.py",
    ("mmsegmentation.md", "python"): "tests/segmentation/test_segmentation_mmseg_runner.py",
    ("tutorial.md", "bash"): "tests/docs/test_tutorial.py",
    ("tutorial.md", "yaml"): "tests/docs/test_tutorial.py",
}
# (page, language) -> why its blocks are read by a parser and not run
READ = {
    ("README.md", "bash"): "sets up an environment, or runs suites on data that are not here",
    ("README.md", "yaml"): "names published weights and data sets that are not here",
    ("add-a-backbone.md", "bash"): "test_plug_ins.py runs these verbs on a folder of its own",
    ("add-a-task.md", "bash"): "test_plug_ins.py runs these verbs on a folder of its own",
    ("add-a-dataset.md", "json"): "a form, not a command",
    ("add-a-dataset.md", ""): "a command in words that stand for others",
    ("cluster.md", "bash"): "needs a cluster or GPUs; tests/cli/test_slurm.py submits to a real Slurm",
    ("gpu.md", "bash"): "needs a GPU",
    ("library.md", "bash"): "needs a run of the demo; tests/cli/test_export_model.py runs the verb",
    ("pi-resize.md", ""): "a formula",
    ("reproduce.md", "bash"): "needs ImageNet and days",
    ("score.md", "json"): "a form, not a command",
    ("score.md", "sh"): "tests/scoring runs these verbs on files of its own",
    ("tutorial.md", ""): "a listing of files",
    ("upstream.md", "bash"): "needs Tiny ImageNet or ImageNet, and hours",
}


def test_each_block_is_run_or_named() -> None:
    there = {(page, language) for page, _, language, _ in BLOCKS}
    assert not there - set(RUN) - set(READ), "run these blocks in a test, or say here why not"
    assert not (set(RUN) | set(READ)) - there, "no such blocks any more"
    assert not set(RUN) & set(READ)
    for (page, _), test in RUN.items():
        assert page in (ROOT / test).read_text(encoding="utf-8"), f"{test} does not read {page}"


def commands(text: str) -> list[list[str]]:
    """Lines of a shell as words, without comments; what is in square brackets is optional and taken."""
    text = re.sub(r"\[(--[^\]]*)\]", lambda m: re.sub(r"\|\w+", "", m[1]), text.replace("\\\n", " "))
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def parsed(words: list[str]) -> None:
    """Read a command of ours as the command line reads it, without running it; AssertionError where it cannot."""
    command, context = typer.main.get_command(run_all.app), None
    while hasattr(command, "commands"):
        name, *words = words
        assert name in command.commands, f"no verb {name!r}"
        context = command.context_class(command, info_name=name, parent=context)
        command = command.commands[name]
    try:
        command.make_context(command.name, list(words), parent=context)
    except Exception as error:  # of click, which some releases of typer carry within
        raise AssertionError(str(error)) from error


@pytest.mark.parametrize(("page", "number", "language", "text"), BLOCKS, ids=IDS)
def test_what_is_not_run_is_read(page: str, number: int, language: str, text: str) -> None:
    if language == "python":
        ast.parse(text)
    elif language == "json":
        json.loads(text)
    elif language == "yaml":
        assert isinstance(yaml.safe_load(text), dict)
    elif language in ("bash", "sh"):
        for words in commands(text):
            check(words)
    else:
        assert (page, language) in READ


def check(words: list[str]) -> None:
    """A command that there is: a verb with its options, a target of make, a script or a module of this repository."""
    if "run_all.py" in words:
        parsed(words[words.index("run_all.py") + 1 :])
    elif words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert not [w for w in words[1:] if "=" not in w and w not in targets], words
    elif words[0] == "python" and words[1] != "-m":
        assert (ROOT / words[1]).is_file(), words
    elif words[:3] == ["pip", "install", "-e"]:
        known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
        assert words[3].startswith(".") and set(re.findall(r"[\w-]+", words[3])) <= known.keys(), words
    else:
        assert words[0] in ("git", "source") or words[:3] == ["python3", "-m", "venv"], f"{words[0]}: not known here"


def test_inline_commands_are_read_too() -> None:
    wrong = {}
    for page in PAGES:
        for found in re.findall(r"`(?:python )?run_all\.py ([^`]+)`", page.read_text(encoding="utf-8")):
            if "..." in found or re.search(r"\b(VERB|TASK)\b", found):
                continue
            try:
                for words in commands(found.replace("\n", " ")):
                    parsed(words)
            except AssertionError as error:
                if not str(error).startswith("Missing"):  # a sentence need not say all of a command
                    wrong[f"{page.name}: {found}"] = str(error)
    assert not wrong


def test_the_backbone_of_the_readme() -> None:
    names: dict = {}
    (text,) = [text for page, _, language, text in BLOCKS if (page, language) == ("README.md", "python")]
    exec(compile(text, "README.md", "exec"), names)
    assert names["features"].map.shape == (2, 8, 8, 128) and names["logits"].shape == (2, 100)


def test_a_command_that_is_not_there_is_noticed() -> None:
    wrong = ["python run_all.py rnu demo", "python run_all.py run demo --jobz 2", "python run_all.py compare"]
    for line in (*wrong, "make testt", "python -m pytest", "python docs/none.py"):
        with pytest.raises(AssertionError):
            check(commands(line)[0])
