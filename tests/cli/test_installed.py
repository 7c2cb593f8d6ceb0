"""The package where it is installed: its data, its revision, and users with names like its own."""

import fnmatch
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from benchmarks.report.published import published
from benchmarks.store.environment import FILE, revision

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = ("backbones", "tasks", "benchmarks")


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True).stdout.split()
    return [name for name in listed if (ROOT / name).exists()] or pytest.skip("no clone")


def test_every_file_of_the_packages_is_shipped() -> None:
    globs = {
        f"{package.replace('.', '/')}/{glob}"
        for package, patterns in SETTINGS["tool"]["setuptools"]["package-data"].items()
        for glob in patterns
    }
    matched = {str(path.relative_to(ROOT)) for glob in globs for path in ROOT.glob(glob)}
    assert not [name for name in tracked() if not name.endswith(".py") and name not in matched]
    # a folder of modules without __init__.py is found by no packager that looks for packages alone
    rooms = {str(Path(name).parent) for name in tracked() if name.endswith(".py")}
    assert not [room for room in rooms if not (ROOT / room / "__init__.py").exists() and not namespace(room)]


def namespace(room: str) -> bool:
    """Whether `[tool.setuptools.packages.find]` takes a folder all the same, as it does unless told otherwise."""
    find = SETTINGS["tool"]["setuptools"]["packages"]["find"]
    return find.get("namespaces", True) and any(fnmatch.fnmatch(room, glob) for glob in find["include"])


def test_published_numbers_are_read_from_the_package() -> None:
    import benchmarks.report.published as module

    assert len(published()) > 50 and Path(module.__file__).parents[1] in module.FOLDER.parents


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_the_revision_of_a_foreign_repository_is_not_ours(tmp_path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "theirs")
    assert revision(tmp_path) == git(tmp_path, "rev-parse", "--short=12", "HEAD")
    installed = tmp_path / "venv" / "site-packages"
    (installed / "benchmarks" / "store").mkdir(parents=True)
    assert revision(installed) is None
    (installed / "benchmarks" / "store" / FILE).write_text("0123456789ab\n")
    assert revision(installed) == "0123456789ab"


def shadowed(folder: Path) -> Path:
    """A folder of a user's with modules called as ours."""
    for name in PACKAGES:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise SystemExit('the module of the user was imported')\n")
    return folder


@pytest.mark.parametrize("how", ["-m", "script"])
def test_modules_of_the_users_with_our_names_do_no_harm(tmp_path, how: str) -> None:
    theirs = shadowed(tmp_path / "theirs")
    script = tmp_path / "bin" / "flexivit-transfer"  # as an installer writes it
    script.parent.mkdir()
    script.write_text("import sys\nfrom flexivit_transfer import main\nsys.exit(main())\n")
    words = ["-m", "flexivit_transfer"] if how == "-m" else [str(script)]
    paths = os.pathsep.join([str(theirs), str(ROOT)])  # theirs first, as `PYTHONPATH=.` has it
    environment = {**os.environ, "PYTHONPATH": paths}
    for verb in (["--version"], ["ls", "suites", "demo"], ["ls", "backbones", "flexivit_nano"], ["ls", "tasks"]):
        done = subprocess.run(
            [sys.executable, *words, *verb], cwd=theirs, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0 and done.stdout.strip(), done.stderr
    assert f"revision {revision()}" in subprocess.run(
        [sys.executable, *words, "--version"], cwd=theirs, env=environment, capture_output=True, text=True
    ).stdout  # fmt: skip


def test_a_helper_is_started_as_its_runner_was(monkeypatch) -> None:
    import importlib.machinery
    import types

    from benchmarks.executors.local import again

    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", ["/bin/flexivit-transfer", "run", "demo"])
    main.__spec__ = None
    assert again() == ["/bin/flexivit-transfer", "run", "demo"]
    main.__spec__ = importlib.machinery.ModuleSpec("flexivit_transfer", None)
    assert again() == ["-m", "flexivit_transfer", "run", "demo"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (made,) = out.glob("*.whl")
    return made


@pytest.mark.slow  # builds and installs
def test_the_wheel_in_another_folder(wheel, tmp_path) -> None:
    """Suites, weights, published numbers, revision; a run and its report with two runners, beside foreign modules."""
    assert wheel.stat().st_size <= 20e6
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    assert set(tracked()) <= names and f"benchmarks/store/{FILE}" in names
    site, theirs = tmp_path / "site", shadowed(tmp_path / "theirs")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    git(theirs, "init", "-q")
    git(theirs, "commit", "-q", "--allow-empty", "-m", "theirs")
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}

    def asked(*words: str) -> str:
        command = [sys.executable, str(site / "bin" / "flexivit-transfer"), *words]
        done = subprocess.run(command, cwd=theirs, env=environment, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert revision() in asked("--version") and "mini/classification" in asked("ls", "suites")
    code = (
        "import flexivit_transfer, inspect, backbones\n"
        "from pathlib import Path\n"
        "from benchmarks.report.published import published\n"
        "encoder = backbones.build_backbone('flexivit_nano')\n"
        "print(len(published()), bool(inspect.getdoc(type(encoder))), Path(backbones.__file__).parent)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == [str(len(published())), "True", str(site / "backbones")], done.stderr
    (theirs / "small.yaml").write_text(
        "{name: small, tasks: [{task: classification, options: {data: scenes, protocol: knn}}],"
        " backbones: [flexivit_nano, vit_nano_g8], train: [8], eval: [8, 10]}"
    )
    asked("run", "small.yaml", "--out", "out", "--jobs", "2", "--device", "cpu")
    assert (theirs / "out" / "rows.jsonl").read_text().count(revision()) == 4
    asked("report", "out")
    assert (theirs / "out" / "report" / "page.html").is_file()
