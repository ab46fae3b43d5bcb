"""A pickle reader that executes nothing and imports nothing.

It walks the file's instructions on a stack of its own, and knows only those that build numbers, strings, containers and
tensors. Whatever a pickle names (a class, a function) stays a name: an object of such a class becomes a `Record` of its
state, and a call becomes a `Record` too, unless it is one of the few, below, that rebuild containers and tensors. Every
name of Python itself that is not among those, and every other call into torch or numpy, is refused.

Work and memory are bounded by the size of the file (`Budget`).
"""

from __future__ import annotations

import pickletools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple, cast

MAX_INSTRUCTIONS = 400_000  # the published snapshot has about 150,000
MAX_NAME = 500  # letters of a class or function; a copy is made of each
MAX_INTEGER_BITS = 128  # of torch's own the largest has 80; with longer ones a product may take for ever
KEY_TYPES = (str, bytes, int, float, bool, type(None))  # the hash of a nested tuple may take for ever

PYTHONS_OWN = sys.stdlib_module_names | {"__builtin__"}
# Names that a tree of torch modules may hold, and that are recorded without a look at what they stand for.
RECORDED = {
    "builtins.getattr",  # how a method of an object is written
    "builtins.object",
    "builtins.set",
    "builtins.frozenset",
    "copyreg._reconstructor",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "torch.Size",
    "torch.device",
}


class Refused(Exception):
    """Why a file is not read: a few words."""


class TooMuch(Refused):
    """To read the file would take for ever, or more memory than it should."""


class Name(NamedTuple):
    """A class or function that a pickle names, as `package.module.name`. Never looked up."""

    name: str


@dataclass(eq=False)
class Record:
    """What a pickle says of an object: its class, and its state. The class itself is neither imported nor run."""

    name: str
    state: Any = None
    items: dict = field(default_factory=dict)


@dataclass
class Budget:
    """What reading a file, with all that is nested in it, may still cost. Raises Refused when it is used up."""

    bytes_left: int
    instructions_left: int = MAX_INSTRUCTIONS

    def spend_bytes(self, count: int) -> None:
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise TooMuch("its parts claim more bytes than the file has")

    def spend_instruction(self) -> None:
        self.instructions_left -= 1
        if self.instructions_left < 0:
            raise TooMuch(f"it has more than {MAX_INSTRUCTIONS} instructions")


class CheckedFile:
    """A file of which no more can be asked than there is."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.size = file, size

    def tell(self) -> int:
        return self.file.tell()

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self.size - self.file.tell():
            raise Refused("it is cut short, or claims more bytes than it has")
        return self.file.read(count)

    def readline(self) -> bytes:
        return self.file.readline(1000)


Calls = dict[str, Callable[..., Any]]


def ordered_dict(budget: Budget, *arguments: Any) -> dict:
    """What a call of OrderedDict makes: a dict, of nothing or of pairs in a list."""
    if not arguments:
        return {}
    (pairs,) = arguments
    if type(pairs) is list:
        budget.spend_bytes(len(pairs))  # the same list may be asked for again and again
    if type(pairs) is not list or any(type(pair) not in (list, tuple) or type(pair[0]) is not str for pair in pairs):
        raise Refused("it makes an OrderedDict of other things than pairs of a name and a value")
    return dict(pairs)


def read_pickle(file: CheckedFile, budget: Budget, calls: Calls, persistent: Callable[[Any], Any] | None = None) -> Any:
    """The next pickle in `file`.

    calls: what to do when the pickle calls a function of this name. persistent: the same for a persistent id; None
    refuses it. Raises Refused; for damaged bytes it raises whatever they lead to (ValueError, IndexError, ...).
    """
    machine = _Machine(calls, persistent)
    for opcode, argument, _ in pickletools.genops(cast(IO[bytes], file)):
        budget.spend_instruction()
        if opcode.name == "STOP":
            break
        machine.step(opcode.name, argument)
    return machine.stack.pop()


PUSHES_ITS_ARGUMENT = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,  # as a list: no one asks sets for anything, and hashes may take for ever
}
IGNORED = {"PROTO", "FRAME"}


class _Machine:
    """The stack, the memo, and what each instruction does to them."""

    def __init__(self, calls: Calls, persistent: Callable[[Any], Any] | None) -> None:
        self.calls, self.persistent = calls, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in PUSHES_ITS_ARGUMENT:
            if type(argument) is int and argument.bit_length() > MAX_INTEGER_BITS:
                raise TooMuch("it has an integer that no network needs")
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name]())
        elif name not in IGNORED:
            method = getattr(self, f"op_{name.lower()}", None)
            if method is None:
                raise Refused(f"it has the instruction {name}, which networks do not need")
            method(argument)

    def pop_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    # The stack and the memo

    def op_mark(self, _) -> None:
        self.marks.append(len(self.stack))

    def op_pop(self, _) -> None:
        self.stack.pop()

    def op_pop_mark(self, _) -> None:
        self.pop_to_mark()

    def op_memoize(self, _) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def op_binput(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    op_long_binput = op_binput

    def op_binget(self, index: int) -> None:
        self.stack.append(self.memo[index])

    op_long_binget = op_binget

    # Containers

    def op_tuple(self, _) -> None:
        self.stack.append(tuple(self.pop_to_mark()))

    def op_tuple1(self, _, count: int = 1) -> None:
        values = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.stack.append(values)

    def op_tuple2(self, _) -> None:
        self.op_tuple1(_, 2)

    def op_tuple3(self, _) -> None:
        self.op_tuple1(_, 3)

    op_frozenset = op_tuple

    def op_append(self, _) -> None:
        self.extend([self.stack.pop()])

    def op_appends(self, _) -> None:
        self.extend(self.pop_to_mark())

    op_additems = op_appends

    def extend(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is list:
            self.stack[-1].extend(values)
        elif type(self.stack[-1]) is not Record:
            raise Refused("it appends to what is no list")

    def op_setitem(self, _) -> None:
        value = self.stack.pop()
        self.set_items([self.stack.pop(), value])

    def op_setitems(self, _) -> None:
        self.set_items(self.pop_to_mark())

    def set_items(self, flat: list[Any]) -> None:
        target = self.stack[-1].items if type(self.stack[-1]) is Record else self.stack[-1]
        keys = flat[::2]
        if type(target) is not dict:
            raise Refused("it sets items of what is no dict")
        if any(type(key) not in KEY_TYPES for key in keys):
            raise TooMuch("it has a dict with keys that are no plain values")
        target.update(zip(keys, flat[1::2], strict=True))

    # Names, calls and objects

    def op_global(self, argument: str) -> None:
        self.push_name(*argument.split(" ", 1))

    def op_stack_global(self, _) -> None:
        name = self.stack.pop()
        self.push_name(self.stack.pop(), name)

    def push_name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise Refused("a name in it is no string")
        if len(module) + len(name) > MAX_NAME:
            raise TooMuch(f"a name in it has more than {MAX_NAME} letters")
        full = f"{module}.{name}"
        allowed = full in self.calls or full in RECORDED
        if not allowed and module.partition(".")[0] in PYTHONS_OWN:
            raise Refused(f"it names {full!a:.80}, which could run code")
        self.stack.append(Name(full))

    def op_reduce(self, _) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not Name or type(arguments) is not tuple:
            raise Refused("it calls what is no function")
        if function.name in self.calls:
            self.stack.append(self.calls[function.name](*arguments))
        elif function.name.startswith(("torch.", "numpy.")) and function.name not in RECORDED:
            raise Refused(f"it calls {function.name!a:.80}, which could run code")
        else:
            self.stack.append(Record(function.name))

    def op_newobj(self, _) -> None:
        self.stack.pop()  # what the class would be called with
        cls = self.stack.pop()
        if type(cls) is not Name:
            raise Refused("it makes an object of what is no class")
        self.stack.append(Record(cls.name))

    def op_newobj_ex(self, _) -> None:
        self.stack.pop()
        self.op_newobj(_)

    def op_build(self, _) -> None:
        state = self.stack.pop()
        if type(self.stack[-1]) is Record:
            self.stack[-1].state = state
        elif type(self.stack[-1]) is not dict:  # attributes of an OrderedDict, which no one asks for
            raise Refused("it sets the state of what is no object")

    def op_binpersid(self, _) -> None:
        if self.persistent is None:
            raise Refused("it refers to things outside of itself")
        self.stack.append(self.persistent(self.stack.pop()))
