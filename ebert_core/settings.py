"""From what a user typed to a configuration: a preset, changed by a TOML file (`--config`), changed by single settings
(`--set a.b=c`), in this order. Unknown keys are refused, and all faults of a source are told at once.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ebert_core.config import Config
from ebert_core.errors import EbertError, InputError, listing, suggestion

C = TypeVar("C", bound=Config)


def resolve(base: C, toml: Path | None = None, settings: Iterable[str] = (), **options: Any) -> C:
    """A configuration from its base, a TOML file, `key=value` settings, then options that are not None.

    Raises:
        InputError: the TOML does not parse.
        EbertError: an unknown key or a value that cannot be (all are listed), in the TOML or among the settings.
    """
    values, of_file = base.model_dump(), None
    if toml is not None:
        try:
            changes = tomllib.loads(toml.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(toml, "is not there", "check the path given to --config") from None
        except UnicodeDecodeError:
            raise InputError(toml, "is not text", "name a TOML file with --config") from None
        except tomllib.TOMLDecodeError as error:
            raise InputError(toml, f"is not valid TOML ({error})", "write key = value, text in quotes") from None
        values = of_file = _merged(values, changes)
    for setting in settings:
        key, sign, text = setting.partition("=")
        if not sign:
            raise EbertError(f"setting {setting!r} has no '='", "write --set masking.dna_rate=0.2")
        change: Any = _parsed(text.strip())
        for part in reversed(key.strip().split(".")):
            change = {part: change}
        values = _merged(values, change)
    values = _merged(values, {name: value for name, value in options.items() if value is not None})
    try:
        return type(base).model_validate(values)
    except ValidationError:
        if of_file is not None:
            _validated(base, of_file, str(toml))  # is it the file that cannot be?
        return _validated(base, values, "the settings")


def _parsed(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(values)
    for key, change in changes.items():
        old = result.get(key)
        result[key] = _merged(old, change) if isinstance(old, Mapping) and isinstance(change, Mapping) else change
    return result


def _validated(base: C, values: Mapping[str, Any], where: str) -> C:
    try:
        return type(base).model_validate(values)
    except ValidationError as error:
        faults, hint, known = [], "", settings_of(type(base))
        for fault in error.errors():
            key = ".".join(str(part) for part in fault["loc"])
            if fault["type"] == "extra_forbidden":
                faults.append(f"{key} is not a setting")
                hint = hint or _nearest(key, list(known))
            elif fault["type"] == "value_error":
                faults.append(str(fault["msg"]).removeprefix("Value error, "))
            else:
                faults.append(f"{key} = {fault['input']!r}: {fault['msg']}")
                hint = hint or (f"{key}: {known[key]}" if key in known else "")
        raise EbertError(f"{where}: {'; '.join(faults)}", hint or "docs/settings.md lists what can be set") from None


def _nearest(key: str, known: list[str]) -> str:
    """The settings that a wrong key may mean: the same name in another table, a similar one, or all."""
    same = [other for other in known if other.rpartition(".")[2] == key.rpartition(".")[2]]
    return f"did you mean {' or '.join(same)}?" if same else suggestion(key, known) or listing(known, len(known))


def settings_of(config: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Every setting, as it is typed after `--set`, and what it is."""
    settings: dict[str, str] = {}
    for name, entry in config.model_fields.items():
        if isinstance(entry.annotation, type) and issubclass(entry.annotation, Config):
            settings |= settings_of(entry.annotation, f"{prefix}{name}.")
        else:
            settings[f"{prefix}{name}"] = entry.description or ""
    return settings


def fault_of(error: Exception, part: str) -> str:
    """What an exception says of a manifest that cannot be, in one line; `part` is where settings stand in it."""
    if isinstance(error, ValidationError):
        fault = error.errors()[0]
        return f"{'.'.join([part, *map(str, fault['loc'])])}: {fault['msg']}"
    return f"no {error}" if isinstance(error, KeyError) else str(error)
