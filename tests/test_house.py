"""The files around the code: commands, containers, licence, links and sizes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from app.cli import app as cli
from app.settings import CONFIG_VARIABLE, DEFAULTS, variable_name

ROOT = Path(__file__).resolve().parents[1]
MEGABYTE = 1_000_000
TARGETS = ("setup", "demo", "test", "bench", "lint", "clean", "help")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def files() -> list[str]:
    """What git tracks, and what it would if everything were added now."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout, so nobody knows which files are tracked")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    # A checkout that belongs to someone else (CI does that) is not refused.
    environment = {**os.environ, "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory",
                   "GIT_CONFIG_VALUE_0": "*"}  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, env=environment)
    return [name for name in done.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def pages() -> list[str]:
    return ["README.md", "CHANGELOG.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]


def shell_lines(page: str) -> Iterator[list[str]]:
    """The commands in a page's shell blocks, as words, up to the first pipe or the like."""
    for block in re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", text(page), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            for stop in ("|", "&", "&&", ">", ";"):
                if stop in words:
                    words = words[: words.index(stop)]
            if words:
                yield words


def parse_phosphene(arguments: list[str]) -> None:
    """Read a command line as `phosphene` would, and run nothing."""
    command: Any = get_command(cli)
    name = "phosphene"
    while hasattr(command, "commands") and arguments != ["--help"]:
        assert arguments[:1] != []
        assert arguments[0] in command.commands
        name, *arguments = arguments
        command = command.commands[name]
    if arguments != ["--help"]:
        command.make_context(name, list(arguments))


def test_a_command_that_does_not_exist_is_noticed() -> None:
    parse_phosphene(["serve", "--port", "9000"])
    parse_phosphene(["scale-model", "vae", "pictures", "out"])
    for wrong in (["paint"], ["scale-model"], ["scale-model", "paint"]):
        with pytest.raises(AssertionError):
            parse_phosphene(wrong)
    with pytest.raises(Exception, match="No such option"):
        parse_phosphene(["serve", "--colour"])


# Sizes and licence


def test_all_tracked_files_together_stay_small() -> None:
    sizes = {name: (ROOT / name).stat().st_size for name in files()}
    assert sum(sizes.values()) <= 55 * MEGABYTE
    assert {name: size for name, size in sizes.items() if size > 45 * MEGABYTE} == {}


def test_the_licence_is_apache_2_whole() -> None:
    licence = text("LICENSE")
    assert licence.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    for section in range(1, 10):
        assert re.search(rf"^\s+{section}\. [A-Z]", licence, re.M), f"section {section}"
    assert "END OF TERMS AND CONDITIONS" in licence
    project = tomllib.loads(text("pyproject.toml"))["project"]
    assert project["license"] == "Apache-2.0"
    assert all((ROOT / name).is_file() for name in project["license-files"])


def test_the_notice_names_the_emoji_and_no_font_is_shipped() -> None:
    assert "Noto Color Emoji" in text("NOTICE")
    assert "SIL Open Font License 1.1" in text("NOTICE")
    assert [f for f in files() if f.endswith((".ttf", ".otf", ".woff", ".woff2"))] == []


# Packages


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = [line for line in text("constraints.txt").splitlines() if line and line[0] != "#"]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    return {canonical(name): number for name, number in (line.split("==") for line in lines)}


def test_whatever_is_installed_is_pinned() -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {canonical(re.split(r"[<>=!~\[; ]", wanted)[0]) for group in groups for wanted in group}
    assert names - set(pins()) == set()


def test_the_environment_holds_the_pinned_versions() -> None:
    others = {}
    for name, number in pins().items():
        try:
            found = version(name).split("+")[0]
        except PackageNotFoundError:
            continue  # of another purpose, or for GPUs
        if found != number:
            others[name] = (found, number)
    assert others == {}


def test_every_package_is_listed_for_installation() -> None:
    listed = tomllib.loads(text("pyproject.toml"))["tool"]["setuptools"]["packages"]
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("acquisition", "app", "models")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(listed) == there


# Commands


@pytest.mark.parametrize("target", TARGETS)
def test_make_has_the_target(target: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_readme_shows_the_two_commands_and_ci_runs_the_second() -> None:
    commands = [" ".join(words) for words in shell_lines("README.md")]
    assert "make demo" in commands
    assert "make test" in commands
    assert commands.index("make demo") < commands.index("make test")
    ci = ROOT / ".ci" / "run"
    assert os.access(ci, os.X_OK)
    last = ci.read_text().strip().splitlines()[-1]
    assert last.removeprefix("exec ") == "make test"


@pytest.mark.parametrize("page", pages())
def test_every_command_in_the_docs_exists(page: str) -> None:
    for words in shell_lines(page):
        program = words[0].removeprefix(".venv/bin/")
        if program == "make":
            targets = [w for w in words[1:] if "=" not in w and not w.startswith("-")]
            assert set(targets) <= set(TARGETS), words
        elif program == "phosphene":
            parse_phosphene(words[1:])
        elif program == "docker":
            named = [w for w in words[3:] if not w.startswith("-")]
            assert set(named) <= set(compose()["services"]), words


@pytest.mark.parametrize("page", pages())
def test_every_link_in_the_docs_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", text(page))
    links += re.findall(r"<img[^>]+src=\"([^\"]+)\"", text(page))
    for link in links:
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page} links to {link}"
        if anchor and target.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
            slugs = {re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in headings}
            assert anchor in slugs, f"{page} links to {link}"


@pytest.mark.parametrize("page", pages())
def test_every_path_in_the_docs_exists(page: str) -> None:
    tops = "acquisition|app|benchmarks|docs|models|scripts|tests|web|weights"
    named = re.findall(rf"`((?:{tops})/[\w./-]*)`", text(page))
    assert [name for name in named if not (ROOT / name).exists()] == []


# Setting up


def run_script(script: str, folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [shutil.which("sh") or "/bin/sh", str(ROOT / "scripts" / script), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout without its environment, whose setup fails before it changes anything."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    return tmp_path


def setup_with(checkout: Path, python: str) -> tuple[int, str]:
    fake = checkout / "fake-python"
    fake.write_text(f"#!/bin/sh\n{python}\n")
    fake.chmod(0o755)
    done = subprocess.run(
        ["sh", "scripts/setup.sh", "run"],
        cwd=checkout,
        env={"PATH": os.environ["PATH"], "PYTHON": str(fake)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def test_setup_says_which_python_is_needed(checkout: Path) -> None:
    code, words = setup_with(checkout, "exit 1")
    assert code == 1
    assert "Python 3.11, 3.12 or 3.13 is needed, but PYTHON=" in words
    assert not (checkout / ".venv").exists()


def test_setup_says_what_debians_python_lacks(checkout: Path) -> None:
    fake = 'case "$2" in *ensurepip*) exit 1;; *print*) echo python3.12-venv;; esac'
    code, words = setup_with(checkout, fake)
    assert code == 1
    assert "sudo apt-get install python3.12-venv" in words
    assert not (checkout / ".venv").exists()


def test_without_chromium_and_rights_it_is_said_what_is_skipped(tmp_path: Path) -> None:
    # `id` says 1000, and neither a browser nor sudo is on this PATH.
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    (tmp_path / "find").symlink_to(shutil.which("find") or "/usr/bin/find")
    code, words = run_script("browser.sh", tmp_path, PATH=str(tmp_path), HOME=str(tmp_path))
    assert code == 0
    assert "tests marked 'browser' are skipped" in words
    assert "sudo apt-get install chromium" in words


def test_the_pages_checker_is_pinned_and_its_lock_names_no_address() -> None:
    package, lock = json.loads(text("package.json")), json.loads(text("package-lock.json"))
    assert lock["packages"][""]["devDependencies"] == package["devDependencies"]
    assert all(re.fullmatch(r"[\d.]+", v) for v in package["devDependencies"].values())
    assert "dependencies" not in package
    assert "resolved" not in text("package-lock.json")


# Containers


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text("docker-compose.yml"))
    return found


def filled(value: str) -> str:
    """A value as compose reads it where no variable is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


SERVICES = sorted(compose()["services"])


def dockerfile() -> list[tuple[str, str]]:
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text("Dockerfile"), flags=re.M))
    steps = (line.partition(" ") for line in lines.splitlines() if line)
    return [(word, rest) for word, _, rest in steps]


def test_compose_starts_the_demo_alone_and_knows_the_others() -> None:
    services = compose()["services"]
    assert {name for name, s in services.items() if "profiles" not in s} == {"demo"}
    assert {name: s["profiles"] for name, s in services.items() if "profiles" in s} == {
        name: [name] for name in ("gpu", "headset", "lsl")
    }
    device = services["gpu"]["deploy"]["resources"]["reservations"]["devices"][0]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert filled(services["headset"]["devices"][0]) == "/dev/ttyUSB0:/dev/ttyUSB0"
    assert services["lsl"]["network_mode"] == "host"
    assert variable_name("known_peers") in services["lsl"]["environment"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs_a_command_that_exists(name: str) -> None:
    service = compose()["services"][name]
    parse_phosphene([filled(word) for word in service["command"]])
    known = {variable_name(field) for field in DEFAULTS} | {CONFIG_VARIABLE}
    assert set(service.get("environment", ())) <= known


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_reachable_from_this_computer_alone(name: str) -> None:
    service = compose()["services"][name]
    is_published = "--in-container" in service["command"]
    assert is_published == (service.get("ports") == ["127.0.0.1:8765:8765"])
    assert is_published != (service.get("network_mode") == "host")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


def test_every_path_in_the_dockerfile_exists() -> None:
    sent = [line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")]
    copied = set()
    for word, rest in dockerfile():
        if word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                assert (ROOT / source).exists(), f"COPY {source}"
                assert source.split("/")[0] in sent, f".dockerignore holds back {source}"
                assert target in ("./", source)
            copied |= set(sources)
    scripts = tomllib.loads(text("pyproject.toml"))["project"]["scripts"]
    (entry,) = [json.loads(rest) for word, rest in dockerfile() if word == "ENTRYPOINT"]
    (folder,) = [rest for word, rest in dockerfile() if word == "WORKDIR"]
    assert entry == [f"{folder}/.venv/bin/{name}" for name in scripts]
    # What the program reads when it runs.
    assert {"acquisition", "app", "models", "web", "weights"} <= copied


def test_the_image_is_set_up_by_the_same_script_as_a_checkout() -> None:
    commands = [rest for word, rest in dockerfile() if word == "RUN"]
    assert any("sh scripts/setup.sh run" in command for command in commands)
    builds = {s["build"]["args"]["TORCH"] for s in compose()["services"].values()}
    assert builds == {"cpu", "cuda"}
    assert all(re.search(rf"^\s+{build}\)", text("scripts/setup.sh"), re.M) for build in builds)


def test_the_image_runs_as_an_ordinary_user_and_checks_its_health() -> None:
    words = [word for word, _ in dockerfile()]
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert dict(dockerfile())["USER"] not in ("root", "0")
    assert "http://127.0.0.1:8765/healthz" in dict(dockerfile())["HEALTHCHECK"]
    assert '"/healthz"' in text("app/server.py")
    assert DEFAULTS["port"] == int(dict(dockerfile())["EXPOSE"])
    parse_phosphene(json.loads(dict(dockerfile())["CMD"]))
