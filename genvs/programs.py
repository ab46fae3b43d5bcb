"""What genvs's own programs share, `python -m genvs...`: how they read options and print their help."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from genvs import __version__
from genvs.errors import InputError, no_such_option


class _Help(argparse.HelpFormatter):
    """Help in 80 columns, with defaults."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=80)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        unsaid = action.default is None or action.default is False or action.default == argparse.SUPPRESS
        return action.help if unsaid else f"{action.help} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """Accepts both `-` and `_` in the names of options, and says in one line what is wrong with them.

    Options belong to groups, `parser.add_argument_group(title)`. Their names are written with `-`.
    """

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog, description=description, formatter_class=_Help)
        self.add_argument("--version", action="version", version=__version__, help="show the version and exit")

    def parse_known_args(self, args=None, namespace=None):
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args([self._named(word) for word in words], namespace)

    def _named(self, word: str) -> str:
        """The word with `-` in its option's name. Raises InputError, naming the nearest one, for an unknown option."""
        name, equals, value = word.partition("=")
        if not name.startswith("--") or name == "--":
            return word
        name, known = name.replace("_", "-"), list(self._option_string_actions)
        if not any(option.startswith(name) for option in known):
            self.error(no_such_option(name, known))
        return name + equals + value

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (--help lists the options)")


def whole(low: int, high: int = 0) -> Callable[[str], int]:
    """The type of an option that takes a whole number from `low` to `high`, or to any number if `high` is 0."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < low or (high and int(text) > high):
            raise argparse.ArgumentTypeError(f"{text}: give a whole number from {low} {f'to {high}' if high else 'up'}")
        return int(text)

    return parse


def name_list(text: str) -> list[str]:
    """The type of an option that takes names, separated by commas."""
    return text.split(",")
