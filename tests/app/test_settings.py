import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from app.errors import EXIT_CODE_TEXTS, ExitCode, SettingsError
from app.settings import (
    ROOT,
    TEXTS,
    Settings,
    choices,
    flag_name,
    load_settings,
    markdown,
    parse,
    variable_name,
)


def write(folder: Path, text: str) -> Path:
    path = folder / "phosphene.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_later_places_override_earlier_ones(tmp_path: Path) -> None:
    config = write(tmp_path, 'port = 1001\nseed = 1\nbundle = "from-file"\n')
    environ = {"PHOSPHENE_PORT": "1002", "PHOSPHENE_SEED": "2"}

    settings = load_settings({"port": 1003}, config, environ)

    assert (settings.port, settings.seed, settings.bundle) == (1003, 2, "from-file")
    assert settings.source == "simulated:"


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    config = write(tmp_path, "threads = 3\n")

    assert load_settings(environ={"PHOSPHENE_CONFIG": str(config)}).threads == 3


def test_a_file_in_the_working_directory_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "threads = 3\n")
    monkeypatch.chdir(tmp_path)

    assert load_settings(environ={}).threads == 0


def test_every_field_is_read_from_toml_and_environment_alike(tmp_path: Path) -> None:
    toml = {
        str: '"/x"', int: "7", float: "1.5", bool: "true", tuple: '["Fp1", "Fp2"]',
    }  # fmt: skip
    text = {str: "/x", int: "7", float: "1.5", bool: "yes", tuple: "Fp1,Fp2"}
    for f in fields(Settings):
        kind = type(f.default)
        if allowed := choices(f.name):
            from_file, from_environment = f'"{allowed[-1]}"', allowed[-1]
        elif f.name == "host":
            from_file, from_environment = '"::1"', "::1"
        elif f.name in ("tls_cert", "tls_key"):
            continue  # each needs the other
        else:
            from_file, from_environment = toml[kind], text[kind]
        config = write(tmp_path, f"{f.name} = {from_file}\n")
        by_file = getattr(load_settings(config=config, environ={}), f.name)
        by_environment = getattr(
            load_settings(environ={variable_name(f.name): from_environment}), f.name
        )
        assert by_file == by_environment != f.default or f.name == "open_browser"
        assert type(by_file) is type(by_environment) is kind


def test_an_unknown_key_names_close_matches(tmp_path: Path) -> None:
    config = write(tmp_path, "prot = 80\n")
    with pytest.raises(SettingsError, match=r"no setting called prot\. Did you mean port"):
        load_settings(config=config, environ={})


def test_an_unknown_variable_names_close_matches() -> None:
    with pytest.raises(
        SettingsError, match=r"called PHOSPHENE_SORCE\. Did you mean PHOSPHENE_SOUR"
    ):
        load_settings(environ={"PHOSPHENE_SORCE": "simulated:"})


def test_other_programs_variables_are_left_alone() -> None:
    assert load_settings(environ={"PATH": "/bin", "PORT": "1"}) == Settings()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('port = "80"', "port expects a whole number, not '80'"),
        ("port = true", "port expects a whole number, not True"),
        ("ch_names = 'Fp1'", "ch_names expects a list of names, not 'Fp1'"),
        ("debug = 1", "debug expects true or false, not 1"),
        ("epochs = 'all'", "--epochs expects one of auto, sliding, marker-locked, not 'all'"),
        ("port = 70000", "--port expects 0 to 65535, not 70000"),
        ("duration = inf", "--duration expects 0 or more seconds, not inf"),
        ("port =", "is not TOML"),
    ],
)
def test_a_bad_value_gets_its_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    config = write(tmp_path, text)
    with pytest.raises(SettingsError, match=sentence):
        load_settings(config=config, environ={})


def test_a_missing_file_gets_its_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot be read \(No such file or directory\)"):
        load_settings(config=tmp_path / "nothing.toml", environ={})


def test_lists_are_split_at_commas() -> None:
    assert parse("ch_names", " Fp1, Fp2,") == ("Fp1", "Fp2")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_this_machine_needs_no_tls(host: str) -> None:
    assert Settings(host=host).is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", ""])
def test_other_machines_need_flag_and_tls(host: str) -> None:
    with pytest.raises(SettingsError, match="--allow-remote, --tls-cert and --tls-key"):
        Settings(host=host)
    with pytest.raises(SettingsError, match="--allow-remote, --tls-cert and --tls-key"):
        Settings(host=host, allow_remote=True)
    with pytest.raises(SettingsError, match="--allow-remote, --tls-cert and --tls-key"):
        Settings(host=host, tls_cert="c", tls_key="k")
    assert not Settings(host=host, allow_remote=True, tls_cert="c", tls_key="k").is_loopback


def test_tls_needs_both_halves() -> None:
    with pytest.raises(SettingsError, match="both halves"):
        Settings(tls_cert="c")


def test_settings_survive_json() -> None:
    import json

    settings = Settings(ch_names=("Fp1", "Fp2"), duration=2, seed=5)
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_every_field_has_a_text() -> None:
    assert list(TEXTS) == [f.name for f in fields(Settings)]
    assert all(text[0].isupper() and text.endswith(".") for text in TEXTS.values())


def test_the_docs_are_what_the_code_says() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == markdown(), "run: python -m app.settings > docs/settings.md"
    assert all(f"`{flag_name(f.name)}`" in page for f in fields(Settings))
    assert set(EXIT_CODE_TEXTS) == set(ExitCode)


def test_only_this_module_reads_the_environment() -> None:
    readers = [
        path.name
        for package in ("app", "acquisition", "models")
        for path in (ROOT / package).rglob("*.py")
        if any(word in path.read_text("utf-8") for word in ("os.environ", "getenv"))
    ]
    # liblsl takes its library and its session from variables, before any setting exists, PyTorch's
    # compiler its folder; torchrun tells there how many processes it started.
    assert set(readers) - {"lsl_network.py", "stage.py", "networks.py"} == {"settings.py"}


def test_the_generator_prints_the_page() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "app.settings"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert printed == markdown()
