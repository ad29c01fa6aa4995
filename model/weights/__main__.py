"""Models from and to other programs:

    python -m model.weights import FOLDER RUN_DIR --dataset NAME
    python -m model.weights export RUN_DIR FOLDER --format openai|open_clip|hugging_face|onnx [--dtype fp16]

Exit codes: 0 done; 2 an error that is yours to mend, in one line on stderr.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from model.weights.folders import Format, Precision, export_weights, import_weights

EXIT_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m model.weights", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    bring = commands.add_parser("import", help="make a run, which can be evaluated, of a model in another format")
    bring.add_argument("source", type=Path, help="folder of open_clip or Hugging Face, or OpenAI state dict (.pt)")
    bring.add_argument("run_dir", type=Path, help="folder of the run, to be made")
    bring.add_argument("--dataset", required=True, help="data set whose captions and validation split evaluations use")
    send = commands.add_parser("export", help="write a run's model in another format")
    send.add_argument("run_dir", type=Path, help="folder of the run")
    send.add_argument("folder", type=Path, help="folder to be made")
    send.add_argument("--format", choices=get_args(Format), required=True)
    send.add_argument("--dtype", choices=get_args(Precision), default="fp32")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "import":
            import_weights(chosen.source, chosen.run_dir, chosen.dataset)
            print(chosen.run_dir)
        else:
            export_weights(chosen.run_dir, chosen.folder, chosen.format, chosen.dtype)
            print(chosen.folder)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
