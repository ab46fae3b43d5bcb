"""The one exception for input that a person can mend."""


class InputError(Exception):
    """Bad input: one line that names the file or option, what is wrong with it, and what to do.

    Command-line programs print it without a traceback and exit with code 2.
    """

    def __str__(self) -> str:
        # A loader worker's error arrives with the worker's traceback as its text; the line is its last.
        lines = super().__str__().splitlines()
        return lines[-1].removeprefix(f"{__name__}.InputError: ") if lines else ""
