"""What is built can be installed, holds the toolkit and nothing else, and works beside folders of the same names."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PACKAGES = ("landscape", "analysis", "figures", "cli")
BUILT = "mtl_landscape-0.1.0"


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Output of a command that has to succeed; `variables` are added to an environment without a Python path."""
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=inherited | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and with the wheel that is built from that sdist."""
    folder = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def command(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed command, in an environment that has the wheel, and the dependencies of this one behind it."""
    place = tmp_path_factory.mktemp("installed")
    environment = place / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=place)
    python = environment / "bin" / "python"
    wheel = built / f"{BUILT}-py3-none-any.whl"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=place,
    )
    (site,) = environment.glob("lib/python*/site-packages")
    # A folder named in a .pth file is searched last, and .pth files in it are not read: the editable install of this
    # environment cannot stand in for the wheel.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return environment / "bin" / "landscape"


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A user's folder that has packages and a module of the same names, all of which fail when imported."""
    for name in ("analysis/__init__.py", "figures/__init__.py", "landscape.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("raise SystemExit('this is the user\\'s own')\n", encoding="utf-8")
    return tmp_path


def test_wheel_holds_the_toolkit_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(built / f"{BUILT}-py3-none-any.whl") as wheel:
        names = {name for name in wheel.namelist() if not name.startswith(f"{BUILT}.dist-info/")}
    there = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == there
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert any(name.startswith("figures/templates/") and name.endswith(".j2") for name in names)
    assert {Path(name).suffix for name in names} <= {".py", ".typed", ".j2", ".css", ".js"}


def test_wheel_says_its_licence_and_its_command(built: Path) -> None:
    with zipfile.ZipFile(built / f"{BUILT}-py3-none-any.whl") as wheel:
        metadata = wheel.read(f"{BUILT}.dist-info/METADATA").decode()
        commands = wheel.read(f"{BUILT}.dist-info/entry_points.txt").decode()
        licence = wheel.read(f"{BUILT}.dist-info/licenses/LICENSE").decode()
    assert "\nLicense-Expression: MIT\n" in metadata
    assert "landscape = cli:main" in commands
    assert licence == (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_sdist_holds_what_is_needed_to_build_and_test(built: Path) -> None:
    with tarfile.open(built / f"{BUILT}.tar.gz") as sdist:
        names = {name.split("/")[1] for name in sdist.getnames() if "/" in name}
    needed = {*PACKAGES, "tests", "benchmarks", "pyproject.toml", "constraints.txt", "Makefile"}
    assert needed <= names
    assert names <= needed | {
        *("README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "PKG-INFO", ".gitignore", "docs", "examples")
    }


def test_installed_modules_are_the_wheels(command: Path, tmp_path: Path) -> None:
    code = "import analysis, cli, figures, landscape; print(*(m.__file__ for m in (analysis, cli, figures, landscape)))"
    files = run(command.parent / "python", "-c", code, cwd=tmp_path).split()
    assert [file for file in files if not Path(file).is_relative_to(command.parent.parent)] == []


def test_command_works_beside_folders_of_the_same_names(command: Path, crowded: Path) -> None:
    assert "landscape" in run(command, "--help", cwd=crowded)


def test_command_works_where_pythonpath_names_such_a_folder(command: Path, crowded: Path) -> None:
    assert "report.html" in run(command, "report", "--help", cwd=crowded, PYTHONPATH=".")
    code = "import cli, analysis, figures, landscape; print(*(m.__file__ for m in (analysis, figures, landscape)))"
    files = run(command.parent / "python", "-c", code, cwd=crowded, PYTHONPATH=".").split()
    assert [file for file in files if not Path(file).is_relative_to(command.parent.parent)] == []
