"""Measure a run: `python -m model.evaluation OUT_DIR --run RUN_DIR --shards SHARDS_DIR`.

OUT_DIR holds config.json (EvaluateConfig); results, features, summary.json and report.html are written there,
done.json last.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from model.config import EvaluateConfig
from model.errors import InputError
from model.evaluation.measure import measure
from model.evaluation.prepare import finished, prepare
from model.evaluation.summary import table
from model.files import write_text

EXIT_INPUT = 2
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the evaluation is there, 2 when something must be mended first, 130 when it was stopped by Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m model.evaluation", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the evaluation; holds config.json")
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("--shards", required=True, help="folder of shards with manifest.json")
    parser.add_argument("--config", type=Path, help="a configuration to be copied to OUT_DIR/config.json first")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.config is not None:
            config = EvaluateConfig.read(chosen.config)
            write_text(chosen.out / "config.json", config.model_dump_json(indent=2))
        config = EvaluateConfig.read(chosen.out / "config.json")
        evaluation = prepare(chosen.out, chosen.run, chosen.shards, config)
        summary = finished(evaluation)
        if summary is not None:
            print("this very evaluation is done already; nothing to do", flush=True)
        else:
            summary = measure(evaluation, lambda line: print(line, flush=True))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_INPUT
    except KeyboardInterrupt:
        print("stopped; what was measured is kept, the same command goes on", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(table(summary))
    print(f"report: {chosen.out / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
