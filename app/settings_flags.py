"""Settings as the flags of a command."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from app.settings import DEFAULTS, TEXTS, choices, flag_name, load_settings, parse

CONFIG_TEXT = "TOML file with settings; by default the one that PHOSPHENE_CONFIG names."


def _option(name: str, default: object) -> inspect.Parameter:
    """The flag of a setting; its value stays text until `parse`, but for true and false."""
    is_flag = isinstance(default, bool)
    metavar = "|".join(c for c in choices(name) if c) or {int: "N", float: "SECONDS"}.get(
        type(default), "TEXT"
    )
    option = typer.Option(
        None,
        flag_name(name) + (f"/--no-{name.replace('_', '-')}" if is_flag else ""),
        help=TEXTS[name] + (f" [default: {default}]" if default not in ("", ()) else ""),
        metavar=None if is_flag else metavar,
        show_default=False,
    )
    kind: Any = bool | None if is_flag else str | None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind)


def takes_settings(
    *names: str, **defaults: object
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of the settings `names`, and hand it the settings.

    The command takes `settings` first; its other parameters stay its own. `defaults` are
    the command's own.
    """
    names = (*names, "debug")
    config = inspect.Parameter(
        "config",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[Path | None, typer.Option("--config", help=CONFIG_TEXT)],
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def call(**values: Any) -> None:
            given = {name: values.pop(name) for name in names}
            flags = {
                name: parse(name, value) if isinstance(value, str) else value
                for name, value in given.items()
                if value is not None
            }
            settings = load_settings(flags, values.pop("config"), defaults=defaults)
            try:
                command(settings, **values)
            except Exception:
                if settings.debug:
                    traceback.print_exc()
                raise

        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        parameters = [*own, *(_option(n, defaults.get(n, DEFAULTS[n])) for n in names), config]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        call.__name__, call.__doc__ = command.__name__, command.__doc__
        return call

    return decorate
