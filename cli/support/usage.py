"""A command line that is wrong, refused before any work: one line with the value, what is taken, and what would work.

The wording is pflx's own, not Click's, so that it is the same with every Typer.
"""

from __future__ import annotations

import inspect
import math
import mimetypes
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from functools import partial
from itertools import pairwise
from pathlib import Path
from shutil import get_terminal_size
from typing import Annotated, Any, cast, get_args, get_origin
from urllib.parse import unquote, urlsplit

import typer
from typer.core import TyperCommand, TyperGroup

from pflx.engines import PflxError
from pflx.engines.bundle.manifest import MANIFEST
from pflx.engines.hub.address import is_address

ParserError = cast(type[Exception], typer.BadParameter.__mro__[2])
"""Any mistake that the parser finds: `ClickException`, of Click itself or of the copy that later Typers carry."""

EXAMPLES = {
    "export": "-o me.pflx",
    "build": "me.pflx",
    "inspect": "me.pflx",
    "push": "me.pflx ORG/NAME --license mit",
    "person make": "me.pflx --clip me.mp4 --person-encoder encoder.pth --modifier modifier.pth -o me.person",
    "person show": "me.person",
    "run": "speaker.mp4 -p me.png",
    "batch": "clips -o reactions",
    "collect": "reactions -o pred.npz",
    "live": "-p me.png",
    "serve": "-p me.png",
    "bench-latency": "me.pflx -p me.png",
    "crop": "clips -o crops",
    "evaluate": "run.npz",
    "doctor": "",
    "demo": "",
    "calibrate record": "me.pflx --speaker speaker.mp4 -p me.png -o feeds",
    "calibrate fp16": "me.pflx --feeds feeds -o policy.json",
    "calibrate bf16": "me.pflx --feeds feeds",
    "calibrate int8": "me.pflx --feeds feeds",
    "calibrate lookahead": "me.pflx --feeds feeds",
    "calibrate foresight": "run.npz -o foresight.npz",
    "calibrate posnet": "run.npz --slide 8 -o posnet.safetensors",
}
"""What may stand behind each verb: the shortest that does something."""

_READ_AS_FILES = {"mean_face", "speaker_coefficients", "speaker_emotion", "coefficients"}
"""Options of words that may also be files."""


_ALONE = {"--ray": "local"}
"""What an option means that may stand without its value."""

_NARROW = 60
"""Columns of a terminal, at least, for help in boxes."""

_BUNDLES = ("bundle", "bundles")
"""Parameters that also take an address on the hub."""


class CommandLineError(PflxError, ValueError):
    """What was typed is no command of pflx."""


class App(typer.Typer):
    """Verbs that refuse in the words of this module, and say what they do after `-h`, too."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]}, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Any:
        """Register a verb, as `typer.Typer.command` does."""
        return super().command(name, cls=_Verb, **settings)


def _fit_help(verb: Any, formatter: Any) -> None:
    """Let help be plain text where boxes leave no room for the names of options."""
    columns = get_terminal_size().columns
    if columns < _NARROW:
        verb.rich_markup_mode = None
        formatter.width = columns - 2
        formatter.write_dl = partial(formatter.write_dl, col_max=columns // 3)


class _Verb(TyperCommand):
    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        _fit_help(self, formatter)
        super().format_help(ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse what is wrong, and leave the rest to Typer."""
        args = [*_completed(args)]
        if not ctx.resilient_parsing:  # a shell that completes asks about half a line
            given, extra = _parsed(self, ctx, args)
            if not any(param.is_eager and given.get(param.name) for param in self.get_params(ctx)):  # as --help is
                _check(self, ctx.command_path, given, extra)
        return super().parse_args(ctx, args)


class _Verbs(TyperGroup):
    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        _fit_help(self, formatter)
        super().format_help(ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Show what there is if nothing is asked for."""
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        args = args or ["--help"]
        _, verb = _parsed(self, ctx, args)
        rest = super().parse_args(ctx, args)
        if not verb:
            raise CommandLineError(f"{ctx.command_path} needs a command: {_either(self.commands, 'or')}.")
        return rest

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb, or the one that was meant."""
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            meant = _meant(self, ctx, args[0])
            fix = f"Did you mean `{ctx.command_path} {meant}`?" if meant else f"It has {_either(self.commands, 'and')}."
            raise CommandLineError(f"{ctx.command_path} has no command '{args[0]}'. {fix}")
        return super().resolve_command(ctx, args)


def _meant(group: TyperGroup, ctx: Any, word: str) -> str:
    """What a word stands for that is no verb: a verb, one of a group below, or an option; empty if none is near."""
    known = {name: name for name in group.commands}
    known |= {part: name for name in group.commands for part in name.split("-") if part not in known}
    known |= {verb: verb for verb in _below(group)}
    options = {option.lstrip("-"): option for param in group.get_params(ctx) for option in param.opts}
    return options.get(word) or known.get(_close(word, [*known]), "")


def _completed(args: Sequence[str]) -> Iterator[str]:
    """The words, with the value of options that stand without it."""
    for word, after in pairwise([*args, "-"]):
        yield word
        if word in _ALONE and after.startswith("-"):
            yield _ALONE[word]


def _below(group: TyperGroup) -> Iterator[str]:
    """Verbs of the groups in a group, as they are typed."""
    for name, command in group.commands.items():
        for verb in getattr(command, "commands", ()):
            yield f"{name} {verb}"


def _parsed(command: Any, ctx: Any, args: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """What is given by parameter, as it was typed, and what no parameter takes."""
    try:
        given, extra, _ = command.make_parser(ctx).parse_args(args=[*args])
    except ParserError as error:
        raise CommandLineError(_told(command, ctx, error)) from error
    return given, extra


def _told(command: Any, ctx: Any, error: Any) -> str:
    """An option that is none, or that lacks its value."""
    name = getattr(error, "option_name", None)
    if name is None:
        return f"{error.format_message().rstrip('.')}. {_help(ctx.command_path)}"
    options = {each: param for param in command.get_params(ctx) for each in (*param.opts, *param.secondary_opts)}
    if name not in options:
        meant = _close(name, [each for each in options if each.startswith("--")])
        fix = f"Did you mean {meant}?" if meant else _help(ctx.command_path)
        return f"{ctx.command_path} has no option {name}. {fix}"
    if getattr(options[name], "is_flag", False):
        return f"{name} takes no value. {_help(ctx.command_path)}"
    n_values = options[name].nargs
    return f"{name} needs {'a value' if n_values == 1 else f'{n_values} values'}. {_help(ctx.command_path)}"


def _check(verb: Any, path: str, given: Mapping[str, Any], extra: Sequence[str]) -> None:
    """Refuse values that cannot be meant, what is in the wrong place, what is missing, and what is too much."""
    takes = taken_by(verb)
    typed = {param.name: [*_words(given.get(param.name))] for param in verb.params}
    for param in verb.params:
        for value in typed[param.name]:
            takes[param.name].check(_name(param), value)
    _check_places(verb, typed, extra)
    missing = [_name(param) for param in verb.params if param.required and not typed[param.name]]
    if missing:
        raise CommandLineError(f"{path} needs {_either(missing, 'and')}. {_example(path)}")
    if extra:
        raise CommandLineError(f"{path} has no place for '{extra[0]}'. {_example(path)}")


def _words(given: Any) -> Iterator[str]:
    """What was typed for one parameter; flags, and what Click puts where nothing was, are no words."""
    if isinstance(given, str):
        yield given
    elif isinstance(given, list | tuple):
        for each in given:
            yield from _words(each)


def _name(param: Any) -> str:
    """A parameter as a reader of the help knows it."""
    return str(max(param.opts, key=len) if param.param_type_name == "option" else param.name.upper())


@dataclass(frozen=True)
class _Takes:
    """What a parameter takes: a type, and of numbers the least and the most."""

    kind: Any
    least: float | None
    most: float | None
    is_file: bool
    is_bundle: bool

    def check(self, name: str, value: str) -> None:
        """Refuse a value, naming it and what is taken."""
        is_fetched = self.is_bundle and is_address(value)
        if self.is_file and not is_fetched and re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", value):
            raise CommandLineError(f"{name} is {value}, an address; pflx reads files. {_file_of(value)}")
        if isinstance(self.kind, type) and issubclass(self.kind, Enum):
            words = [str(each.value) for each in self.kind]
            if value not in words:
                meant = _close(value, words)
                fix = f" Did you mean {meant}?" if meant else ""
                raise CommandLineError(f"{name} is '{value}'; give {_either(words, 'or')}.{fix}")
        elif self.kind in (int, float) and not self._holds(value):
            raise CommandLineError(f"{name} is '{value}'; give {self._numbers()}.")

    def _holds(self, value: str) -> bool:
        try:
            number = self.kind(value)
        except ValueError:
            return False
        least, most = (-math.inf if self.least is None else self.least), (math.inf if self.most is None else self.most)
        return math.isfinite(number) and least <= number <= most

    def _numbers(self) -> str:
        number = "a whole number" if self.kind is int else "a number"
        if self.most is not None:
            return f"{number} from {self.least or 0:g} to {self.most:g}"
        return number if self.least is None else f"{number}, {self.least:g} or more"


def taken_by(verb: Any) -> dict[str, _Takes]:
    """What the parameters of a verb take, by name, read where Typer reads it."""
    parameters = inspect.signature(verb.callback, eval_str=True).parameters
    found: dict[str, _Takes] = {}
    for name, parameter in parameters.items():
        bare, info = get_args(parameter.annotation)[:2]
        kind = _kind(bare)
        is_file = kind is Path or name in _READ_AS_FILES
        least, most = getattr(info, "min", None), getattr(info, "max", None)
        found[name] = _Takes(kind, least, most, is_file, name in _BUNDLES)
    return found


def _kind(annotation: Any) -> Any:
    """The type of one value: of `list[Path] | None`, a path."""
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    parts = [part for part in get_args(annotation) if part is not type(None)]
    return _kind(parts[0]) if parts else annotation


def _file_of(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme.lower() == "file":
        return f"Give the path: {unquote(parts.path)}"
    return "Download it, and give the path."


def _check_places(verb: Any, typed: Mapping[str, list[str]], extra: Sequence[str]) -> None:
    """Refuse a picture where a bundle stands, a bundle where the portrait stands, and either where nothing does."""
    params = {param.name: param for param in verb.params}
    bundle, portrait = params.get("bundle") or params.get("bundles"), params.get("portrait")
    if bundle is None or portrait is None:
        return
    pictures = [shlex.quote(each) for each in typed[bundle.name] if _is_picture(each)]
    bundles = [shlex.quote(each) for each in typed["portrait"] if _is_bundle(each)]
    as_bundle = "--bundle {}" if bundle.param_type_name == "option" else "{}"
    if pictures and bundles:
        fix = f"Give {as_bundle.format(bundles[0])} --portrait {pictures[0]}"
        raise CommandLineError(f"{_name(bundle)} {pictures[0]} and --portrait {bundles[0]} are swapped. {fix}")
    if pictures:
        fix = f"Give it as --portrait {pictures[0]}"
        raise CommandLineError(f"{_name(bundle)} is {pictures[0]}, a picture. {fix}")
    if bundles:
        place = "it as --bundle" if bundle.param_type_name == "option" else "it without -p"
        fix = f"Give {place}, and a picture as --portrait."
        raise CommandLineError(f"--portrait is {bundles[0]}, a bundle. {fix}")
    for each in extra:
        if _is_picture(each) or _is_bundle(each):
            place = f"--portrait {shlex.quote(each)}" if _is_picture(each) else as_bundle.format(shlex.quote(each))
            raise CommandLineError(f"'{each}' stands where nothing does. Give it as {place}")


def _is_picture(path: str) -> bool:
    kind, _ = mimetypes.guess_type(path)
    return kind is not None and kind.startswith("image/") and not Path(path).is_dir()


def _is_bundle(path: str) -> bool:
    return Path(path).suffix == ".pflx" or (Path(path) / MANIFEST).is_file()


def _close(word: str, known: Sequence[str]) -> str:
    """The word that was meant; empty if none is near."""
    begun = [each for each in known if word and each.split()[-1].startswith(word.lower())]
    last = {each.split()[-1]: each for each in reversed(known)}
    near = [last[each] for each in get_close_matches(word.lower(), last, n=1)]
    return (begun or near or [""])[0]


def _either(words: Iterable[str], link: str) -> str:
    """`a, b or c`."""
    *first, last = words
    return f"{', '.join(first)} {link} {last}" if first else last


def _help(path: str) -> str:
    return f"See `{path} --help`."


def _example(path: str) -> str:
    """A line that works; for a verb without one, where to look."""
    example = EXAMPLES.get(path.removeprefix("pflx "))
    return _help(path) if example is None else f"For example: {f'{path} {example}'.strip()}"
