"""`wit`: the flows and a few questions at the command line.

`wit pretrain tiny --train.epochs 3` takes the recipe `tiny` and changes one number; every field of a configuration is an option.

What takes long to import is imported by the command that needs it, so that Ctrl-C is heard from the first moment on.
"""

from __future__ import annotations

import argparse
import os
import select
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from flows.console import is_told_in_one_line, quiet_engine, quiet_environment
from pipeline.errors import InputError, WorkError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

    from flows.recipes import Recipe
    from pipeline.sources.config import SourceConfig

quiet_environment()  # Prefect reads its settings when it is imported

USER_ERROR_STATUS = 2
FAILURE_STATUS = 1
INTERRUPTED_STATUS = 130
READER_LEFT_STATUS = 141  # 128 + SIGPIPE, as of other programs
ENDED_BY_CTRL_C = ("serve", "tiny-web")  # they stay until then: nothing was cut short
ConfigT = TypeVar("ConfigT", bound="BaseModel")

USAGE = """usage: wit COMMAND ...

From the web to a zero-shot classifier:
  wit demo                        the whole walk on the embedded tiny web
  wit reproduce RECIPE            build-dataset, pretrain and evaluate, one after the other
  wit build-dataset RECIPE        crawl or read pairs, filter, download, pack shards (--until selection: no download)
  wit pretrain RECIPE             train CLIP on them
  wit evaluate RECIPE             zero-shot accuracy, retrieval, report.html (--further-runs RUN RUN: several, side by side)
  wit compare EVALUATION ...      finished evaluations side by side (--name NAME)
  wit takedown DATASET            take images out of a data set and out of all later ones (--urls, --hosts, --sha256 FILE)
  wit build-queries [NAME]        the paper's list of queries, from Wikipedia, WordNet or your own lists

With a model, a run or a folder of open_clip's or Hugging Face's (docs/use.md):
  wit classify IMAGE ...          which of some classes images show (--model RUN --labels "cat, dog")
  wit search DATASET "text"       images of a data set that are like a text or an --image (--model RUN)
  wit embed DATASET               what search reads, for several models in one pass (--models RUN RUN)
  wit serve MODEL                 a page on this machine: drop an image, type classes

Models of other programs (docs/weights.md):
  wit import-weights FOLDER NAME  a run of a model in the format of OpenAI, open_clip or Hugging Face
  wit export-weights RUN FOLDER   a run's model in one of these formats, or as ONNX (--format)

Questions:
  wit recipes                     the named configurations
  wit why DATASET URL-OR-ID       what became of a pair
  wit card DATASET                the page that tells what is in a data set
  wit verify DATASET              whether its shards are whole: every checksum, every sample
  wit tiny-web                    serve the embedded web, to look at it in a browser

Every field of a configuration is an option after RECIPE or NAME: wit pretrain tiny --train.epochs 3
`wit COMMAND --help` lists them."""


def main() -> None:
    """Entry point of `wit`: a person's mistake gives one line and status 2, never a traceback."""
    interrupted = threading.Event()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if interrupted.is_set():
            os._exit(INTERRUPTED_STATUS)  # as harmless as kill -9: the same command goes on
        interrupted.set()
        os.write(sys.stderr.fileno(), b"stopping; what is at work may end first, a second Ctrl-C ends it at once\n")
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    arguments = sys.argv[1:]
    try:
        status = run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_has_left():
            raise
        # `wit recipes | head -1` has what it wanted. What Python flushes at its end must find a place.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = READER_LEFT_STATUS
    except Exception:
        # Where Ctrl-C meets the engine in the middle of a request, it comes out as another exception.
        if not interrupted.is_set():
            raise
        status = FAILURE_STATUS
    if interrupted.is_set() and status == FAILURE_STATUS:
        status = _stopped(arguments)
    sys.exit(status)


def _reader_has_left() -> bool:
    """Whether what is printed goes to a pipe that nobody reads any more."""
    watch = select.poll()
    watch.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in watch.poll(0))


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    command, rest = arguments[0], list(arguments[1:])
    if command not in COMMANDS:
        print(f"error: no command {command!r}; one of {', '.join(COMMANDS)}", file=sys.stderr)
        return USER_ERROR_STATUS
    try:
        COMMANDS[command](rest)
    except InputError as error:
        return _failed(str(error), USER_ERROR_STATUS)
    except WorkError as error:
        return _failed(str(error), FAILURE_STATUS)
    except OSError as error:
        if not is_told_in_one_line(error):
            raise
        return _failed(
            f"{error}; free space or choose another --workspace, then run the same command again", FAILURE_STATUS
        )
    except ValueError as error:
        from pydantic import ValidationError

        if not isinstance(error, ValidationError):
            raise
        return _failed(explain_validation(error), USER_ERROR_STATUS)
    except KeyboardInterrupt:
        return _stopped(arguments)
    return 0


def _stopped(arguments: Sequence[str]) -> int:
    if arguments[0] in ENDED_BY_CTRL_C:
        return INTERRUPTED_STATUS
    return _failed(f"stopped; go on with the same command: wit {shlex.join(arguments)}", INTERRUPTED_STATUS)


def _failed(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


def explain_validation(error: ValidationError) -> str:
    """One line per field that is wrong."""
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or error.title}: {problem['msg']} (given: {problem['input']!r})"
        for problem in error.errors()
    )


def _recipe_and_options(arguments: list[str], command: str) -> tuple[Recipe, list[str]]:
    """The recipe named first. Raises InputError if none is; to one who asks for help the options of `tiny` are shown."""
    from flows.recipes import RECIPES, recipe

    if arguments and not arguments[0].startswith("-"):
        return recipe(arguments[0]), arguments[1:]
    if not {"-h", "--help"} & {*arguments}:
        raise InputError(f"give a recipe first: wit {command} tiny; wit recipes tells what there is")
    print(f"usage: wit {command} RECIPE [options]; recipes: {', '.join(RECIPES)}. The options of `tiny`:\n")
    return recipe("tiny"), arguments


def _configured(
    default: ConfigT, options: list[str], command: str, named: str = "RECIPE"
) -> tuple[ConfigT, dict[str, str]]:
    """The configuration with the options laid over it, and the flow's other parameters.

    Raises InputError if an option says something of a source that is not read.
    """
    import tyro

    from flows.recipes import Recipe
    from model.config import PretrainConfig, objective_named
    from pipeline.config import BuildDatasetConfig

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, prog=f"wit {command}")
    parser.add_argument("--workspace", default="")
    if command == "build-dataset":
        parser.add_argument("--until", choices=("selection", "shards"), default="shards")
    if isinstance(default, PretrainConfig):
        # The other options follow from it: those of tyro are the settings of the objective that the default has.
        parser.add_argument("--objective.kind", dest="objective")
    ours, theirs = parser.parse_known_args(options)
    others = vars(ours)
    if isinstance(default, PretrainConfig) and (kind := others.pop("objective")):
        default = default.model_copy(update={"objective": objective_named(kind)})
    config = tyro.cli(
        type(default),
        default=default,
        args=theirs,
        prog=f"wit {command} {named} [--workspace FOLDER]"
        + (" [--until selection]" if command == "build-dataset" else ""),
        config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff),
    )
    if isinstance(config, BuildDatasetConfig) and isinstance(default, BuildDatasetConfig):
        _refuse_unread(config.source, default.source, "source")
    if isinstance(config, Recipe) and isinstance(default, Recipe):
        _refuse_unread(config.dataset.source, default.dataset.source, "dataset.source")
    return config, others


def _refuse_unread(source: SourceConfig, default: SourceConfig, field: str) -> None:
    """Raise InputError where an option changed what a source of this kind does not read."""
    if changes := source.unread_changes(default):
        kind, name = changes[0]
        raise InputError(
            f"{field}.{kind}.{name} is given, but {field}.kind is {source.kind}, which does not read it; "
            f"add --{field}.kind {kind}, or leave it out"
        )


def _run_flow(command: str, pick: Callable[[Recipe], Any]) -> Callable[[list[str]], None]:
    def run_command(arguments: list[str]) -> None:
        from flows.temporary_server import server

        chosen, options = _recipe_and_options(arguments, command)
        config, others = _configured(pick(chosen), options, command)
        name = command.replace("-", "_")
        flow = getattr(import_module(f"flows.{name}"), name)
        quiet_engine()
        with server():
            print(flow(config, **others))

    return run_command


def _build_queries(arguments: list[str]) -> None:
    from flows.build_queries import DEFAULT, build_queries
    from flows.temporary_server import server
    from pipeline.queries.config import BuildQueriesConfig

    named = bool(arguments) and not arguments[0].startswith("-")
    default = BuildQueriesConfig(name=arguments[0]) if named else DEFAULT
    config, others = _configured(default, arguments[named:], "build-queries", "[NAME]")
    quiet_engine()
    with server():
        print(build_queries(config, **others))


def _demo(arguments: list[str]) -> None:
    import tyro

    from flows.demo import DemoOptions, demo

    options = tyro.cli(DemoOptions, args=arguments, prog="wit demo", config=(tyro.conf.FlagConversionOff,))
    quiet_engine()
    demo(options)


def _recipes(arguments: list[str]) -> None:
    from flows.recipes import RECIPES

    argparse.ArgumentParser(prog="wit recipes", description="The named configurations.").parse_args(arguments)
    for name, make in RECIPES.items():
        print(f"{name:<16}{(make.__doc__ or '').splitlines()[0]}")


def _tiny_web(arguments: list[str]) -> None:
    import tyro

    from flows.tiny_web import serve
    from pipeline.tiny_web.config import TinyWebConfig

    serve(tyro.cli(TinyWebConfig, args=arguments, prog="wit tiny-web"))


def _of(module: str, name: str) -> Callable[[list[str]], None]:
    """A command of another module, which is imported when it is called."""

    def run_command(arguments: list[str]) -> None:
        getattr(import_module(module), name)(arguments)

    return run_command


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "demo": _demo,
    "reproduce": _run_flow("reproduce", lambda chosen: chosen),
    "build-dataset": _run_flow("build-dataset", lambda chosen: chosen.dataset),
    "pretrain": _run_flow("pretrain", lambda chosen: chosen.pretrain),
    "evaluate": _run_flow("evaluate", lambda chosen: chosen.evaluate),
    "compare": _of("flows.compare", "compare"),
    "build-queries": _build_queries,
    "import-weights": _of("flows.weights", "import_command"),
    "export-weights": _of("flows.weights", "export_command"),
    "recipes": _recipes,
    "why": _of("flows.data_commands", "why"),
    "card": _of("flows.data_commands", "card"),
    "verify": _of("flows.data_commands", "verify"),
    "takedown": _of("flows.data_commands", "takedown"),
    "tiny-web": _tiny_web,
    "classify": _of("flows.use_commands", "classify"),
    "search": _of("flows.use_commands", "search"),
    "embed": _of("flows.use_commands", "embed"),
    "serve": _of("flows.use_commands", "serve"),
}

if __name__ == "__main__":
    main()
