"""State models: the named alphabets of chromatin states, their official colours, and how a file's names tell which it
is.

Sources of names and colours: the Roadmap Epigenomics ChromHMM 15-, 18- and 25-state models and the IDEAS 20-state model
(see docs/definitions.md). A user's own model is a TSV with the columns number, name, color.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ebert_core.errors import EbertError, InputError, listing
from ebert_core.io.text import read_sheet

MAX_STATES: Final = 250
_UNNAMED_COLOR: Final = "#b0b0b0"


@dataclass(frozen=True)
class State:
    """One label of a state model: its number in files, its name, and its colour (`#rrggbb`)."""

    number: int
    name: str
    color: str

    @property
    def label(self) -> str:
        """`N_Name`, as mnemonics files spell it."""
        return f"{self.number}_{self.name}"


@dataclass(frozen=True)
class StateModel:
    """A named alphabet of chromatin states. The code of `states[i]` in arrays is i + 1; 0 is unknown."""

    name: str
    states: tuple[State, ...]

    def code_of(self, text: str) -> int | None:
        """Code of a file's fourth column: `N_Name`, `Name`, `EN`, `UN` or plain `N`; None where nothing fits."""
        return self._codes().get(text)

    def _codes(self) -> dict[str, int]:
        codes: dict[str, int] = {}
        for code, state in enumerate(self.states, start=1):
            for spelling in (state.label, state.name, f"E{state.number}", f"U{state.number}", str(state.number)):
                codes.setdefault(spelling, code)
        return codes

    def to_json(self) -> dict[str, object]:
        return {"name": self.name, "states": [[s.number, s.name, s.color] for s in self.states]}

    @classmethod
    def from_json(cls, value: dict[str, object]) -> StateModel:
        """The inverse of `to_json`; a KeyError, TypeError or ValueError where the value is none of its."""
        rows = value["states"]
        if not isinstance(rows, list):
            raise TypeError("states are a list")
        return cls(str(value["name"]), tuple(State(int(number), name, color) for number, name, color in rows))


def _parse(name: str, first: int, text: str) -> StateModel:
    """A model from 'Name Name #color Name #color ...': a colour holds for the names before it."""
    states: list[State] = []
    waiting: list[str] = []
    for word in text.split():
        if word.startswith("#"):
            states += [State(first + len(states) + i, waiting[i], word) for i in range(len(waiting))]
            waiting = []
        else:
            waiting.append(word)
    return StateModel(name, tuple(states))


BUILT_IN: Final = {
    model.name: model
    for model in (
        _parse(
            "roadmap15",
            1,
            "TssA #ff0000 TssAFlnk #ff4500 TxFlnk #32cd32 Tx #008000 TxWk #006400 EnhG #c2e105 Enh #ffff00 "
            "ZNF/Rpts #66cdaa Het #8a91d0 TssBiv #cd5c5c BivFlnk #e9967a EnhBiv #bdb76b ReprPC #808080 "
            "ReprPCWk #c0c0c0 Quies #ffffff",
        ),
        _parse(
            "roadmap18",
            1,
            "TssA #ff0000 TssFlnk TssFlnkU TssFlnkD #ff4500 Tx #008000 TxWk #006400 EnhG1 EnhG2 #c2e105 "
            "EnhA1 EnhA2 #ffc34d EnhWk #ffff00 ZNF/Rpts #66cdaa Het #8a91d0 TssBiv #cd5c5c EnhBiv #bdb76b "
            "ReprPC #808080 ReprPCWk #c0c0c0 Quies #ffffff",
        ),
        _parse(
            "roadmap25",
            1,
            "TssA #ff0000 PromU PromD1 PromD2 #ff4500 Tx5' Tx Tx3' #008000 TxWk #009600 "
            "TxReg TxEnh5' TxEnh3' TxEnhW #c2e105 EnhA1 EnhA2 EnhAF #ffc34d EnhW1 EnhW2 EnhAc #ffff00 DNase #ffff66 "
            "ZNF/Rpts #66cdaa Het #8a91d0 PromP #e6b8b7 PromBiv #7030a0 ReprPC #808080 Quies #ffffff",
        ),
        # The IDEAS track hub gives no fixed colours; these follow the meaning of the Roadmap states.
        _parse(
            "ideas20",
            0,
            "Quies #ffffff ReprPCWk #c0c0c0 TxWk #006400 HetWk #b4b9e6 Enh #ffff00 Tx #008000 EnhG #c2e105 "
            "ZNF/Rpts #66cdaa TssAFlnk #ff4500 Het #8a91d0 TssA #ff0000 EnhBiv #bdb76b Het/ReprPC #9a9ac0 "
            "ReprPC #808080 TssWk #ff8c69 TssBiv #cd5c5c TxRepr #6b8e6b EnhGA #ffc34d Enh/Het #d0c890 "
            "Enh/ReprPC #b0a878",
        ),
    )
}


def load_state_model(name_or_path: str) -> StateModel:
    """A built-in model by name, or a user's own from a TSV with the columns number, name and (optional) color."""
    if name_or_path in BUILT_IN:
        return BUILT_IN[name_or_path]
    path = Path(name_or_path)
    if not path.is_file():
        raise EbertError(
            f"unknown state model {name_or_path!r}",
            f"{listing(BUILT_IN)}; or name a TSV file with the columns number, name, color",
        )
    states: list[State] = []
    for line, row in read_sheet(path, ("number", "name"), ("color",)):
        color = row.get("color") or _UNNAMED_COLOR
        if not re.fullmatch(r"[0-9]{1,9}", row["number"]):
            raise InputError(
                path, f"number is {row['number']!r}, expected a whole number", "number the states 1, 2, ...", line=line
            )
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", color):
            raise InputError(path, f"color is {color!r}, expected #rrggbb", "for example #ff4500", line=line)
        if any(int(row["number"]) == state.number or row["name"] == state.name for state in states):
            raise InputError(
                path, f"state {row['number']} {row['name']} is given twice", "keep one row per state", line=line
            )
        states.append(State(int(row["number"]), row["name"], color.lower()))
    if len(states) > MAX_STATES:
        raise InputError(path, f"has {len(states)} states, expected at most {MAX_STATES}", "a bin's state is one byte")
    return StateModel(path.stem, tuple(states))


def detect_state_model(names: Iterable[str], file_names: Iterable[str]) -> StateModel:
    """The built-in model that all these column-4 names belong to.

    Names with words (`1_TssA`) decide alone where they fit one model. Bare numbers (`E1`, `7`) fit many; then
    a state count in a file's name (`_15_`, `_18_`, `_25_`) decides.

    Raises:
        EbertError: no model fits, or several do.
    """
    asked = sorted(set(names))
    fitting = [model for model in BUILT_IN.values() if all(model.code_of(name) for name in asked)]
    if len(fitting) > 1:
        counts = {int(count) for name in file_names for count in re.findall(r"_(15|18|20|25)_", name)}
        hinted = [model for model in fitting if len(model.states) in counts]
        fitting = hinted or fitting
    if len(fitting) == 1:
        return fitting[0]
    shown = ", ".join(asked[:6]) + (" ..." if len(asked) > 6 else "")
    choices = f"say which with --state-model ({', '.join(BUILT_IN)}, or a TSV of your own: number, name, color)"
    if fitting:
        raise EbertError(f"state names {shown} fit {', '.join(model.name for model in fitting)}", choices)
    raise EbertError(f"state names {shown} fit no known state model", choices)
