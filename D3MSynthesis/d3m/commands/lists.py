"""Options as BIDS Apps take them: several values after one name, and names with underscores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand

LEVELS = ("participant", "group")
"""What the last argument of a BIDS App can be."""


class BidsAppCommand(TyperCommand):
    """A command that also takes `--participant_label 01 02 03`, as programs that run BIDS Apps write it.

    typer wants the option again for each value.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Bring the arguments into typer's form, then parse them."""
        options = {name: option for option in self.params for name in option.opts if name.startswith("-")}
        lists = {name for name, option in options.items() if option.multiple}
        single = {
            name for name, option in options.items() if name not in lists and not getattr(option, "is_flag", False)
        }
        positions = sum(not any(name.startswith("-") for name in one.opts) for one in self.params)
        return super().parse_args(ctx, spread(args, set(options), lists, single, positions, LEVELS))


def spread(
    arguments: Sequence[str], known: set[str], lists: set[str], single: set[str], positions: int, endings: Sequence[str]
) -> list[str]:
    """`--participant_label 01 02` as `--participant-label 01 --participant-label 02`.

    Args:
        arguments: Of the command.
        known: All its options' names.
        lists: Those that may be given several times.
        single: Those with one value.
        positions: How many arguments without a name it takes.
        endings: What the last of them can be: it ends a list that was written before them.
    """
    result: list[str] = []
    rest = list(arguments)
    seen = 0
    while rest:
        name = rest.pop(0)
        if name == "--":
            return [*result, name, *rest]
        if not name.startswith("-"):
            seen += 1
            result.append(name)
            continue
        flag, equals, value = name.partition("=")
        if flag not in known and flag.replace("_", "-") in known:
            flag = flag.replace("_", "-")
        if equals or flag not in lists:
            result.append(flag + equals + value)
            if not equals and flag in single and rest:
                result.append(rest.pop(0))
            continue
        values = []
        while rest and not rest[0].startswith("-"):
            values.append(rest.pop(0))
        others = positions - seen  # arguments without a name that may have been swallowed
        if values and others and values[-1] in endings:
            rest[:0] = values[max(1, len(values) - others) :]
            values = values[: max(1, len(values) - others)]
        result += [part for value in values for part in (flag, value)] or [flag]
    return result
