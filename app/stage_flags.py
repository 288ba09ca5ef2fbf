"""A stage's configuration as the flags of a command."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from dataclasses import MISSING, fields
from enum import Enum
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from app.errors import ExitCode
from app.quiet import silence_libraries

PREPARED_TEXT = "Folder of a prepared set (`phosphene prepare`)."
STAGE_TEXT = "Folder of the stage: its checkpoint, results and TensorBoard log."
DEBUG_TEXT = "Show where an error happened."


def _kind(hint: Any, name: str) -> Any:
    """The type of a flag; choices become an enumeration, which Typer lists and checks."""
    if get_origin(hint) is Literal:
        return Enum(name.title(), {str(choice): choice for choice in get_args(hint)})
    return hint


def _option(name: str, hint: Any, default: Any, text: str) -> inspect.Parameter:
    kind = _kind(hint, name)
    is_choice = isinstance(kind, type) and issubclass(kind, Enum)
    option = typer.Option("--" + name.replace("_", "-"), help=text, show_default=default != "")
    if hint is bool:
        flag = name.replace("_", "-")
        option = typer.Option(f"--{flag}/--no-{flag}", help=text)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=kind(default) if is_choice else default,
        annotation=Annotated[kind, option],
    )


def takes_config(config: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command a flag for each field of a dataclass, and hand it the dataclass.

    The fields' annotations are their help. The command takes the configuration first; its
    other parameters stay its own.
    """
    hints = get_type_hints(config, include_extras=True)
    options = []
    for field in fields(config):
        assert field.default is not MISSING, field.name
        hint, text = get_args(hints[field.name])
        options.append(_option(field.name, hint, field.default, text))
    names = [option.name for option in options]
    debug = inspect.Parameter(
        "debug",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option("--debug", help=DEBUG_TEXT)],
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def call(**values: Any) -> None:
            is_debugged = values.pop("debug")
            if not is_debugged:
                silence_libraries()
            given = {name: values.pop(name) for name in names}
            given = {k: v.value if isinstance(v, Enum) else v for k, v in given.items()}
            try:
                command(config(**given), **values)
            except KeyboardInterrupt:
                # The stage has said what it saved.
                raise typer.Exit(int(ExitCode.INTERRUPTED)) from None
            except Exception:
                if is_debugged:
                    traceback.print_exc()
                raise

        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        parameters = [*own, *options, debug]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        call.__name__, call.__doc__ = command.__name__, command.__doc__
        return call

    return decorate
