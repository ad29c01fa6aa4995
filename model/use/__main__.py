"""Ask a model: `python -m model.use classify|search|embed|serve ...`.

A model is the folder of a run, or one in the format of open_clip, Hugging Face or OpenAI. Answers are lines on stdout, or with
--json one JSON object a line; what is told besides goes to stderr.

Exit codes: 0 done; 1 an image could not be looked at, the others were; 2 an error that is yours to mend, in one line on stderr;
130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from model.errors import InputError
from model.evaluation.classifier_file import Classifier, build_classifier, load_classifier
from model.evaluation.shards import Shards, read_shards
from model.use.classify import DEFAULT_TEMPLATE, Answer, classify, find_images, read_labels
from model.use.index import IndexPart, complete_index, index_parts
from model.use.loading import Loaded, load_model
from model.use.search import export_embeddings, lines, query_of_image, query_of_text, save_images, search

EXIT_PART, EXIT_INPUT, EXIT_INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    chosen = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    try:
        status: int = chosen.do(chosen)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_INPUT
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return EXIT_INTERRUPTED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m model.use", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)

    asked = commands.add_parser("classify", help="which of some classes images show")
    asked.add_argument("images", nargs="+", help="files, folders, patterns")
    asked.add_argument("--model", type=Path, required=True)
    asked.add_argument("--labels", default="", help="class names, with commas between them")
    asked.add_argument("--labels-file", type=Path, help="one class name a line")
    asked.add_argument("--classifier", type=Path, help="classifier.npz that was saved with this model")
    asked.add_argument(
        "--template", action="append", default=[], help="prompt with {c} for the name; more than one: ensemble"
    )
    asked.add_argument("--save-classifier", type=Path, help="file to be written, classifier.npz")
    asked.add_argument("--top", type=int, default=5, help="classes told of an image")
    asked.add_argument("--json", action="store_true", help="one JSON object a line")
    asked.set_defaults(do=_classify)

    sought = commands.add_parser("search", help="images of a folder of shards that are like a text or an image")
    sought.add_argument("text", nargs="?", default="")
    sought.add_argument("--image", type=Path, help="an image in place of the text")
    sought.add_argument("--top", type=int, default=10, help="images told, at most")
    sought.add_argument("--threshold", type=float, default=-1.0, help="lowest cosine that is told")
    sought.add_argument("--json", action="store_true", help="one JSON object a line")
    sought.add_argument("--save-images", type=Path, help="folder for the images that are found")
    sought.add_argument("--export-embeddings", type=Path, help="folder to be made, in the layout of clip-retrieval")
    sought.set_defaults(do=_search)

    embedded = commands.add_parser("embed", help="make what search reads, for several models in one pass")
    embedded.set_defaults(do=_embed)
    for command in (sought, embedded):
        command.add_argument("--shards", required=True, help="folder of shards with manifest.json")
        command.add_argument("--cache", type=Path, required=True, help="folder in which vectors are kept")
        command.add_argument("--split", action="append", choices=("train", "val"), help="only these samples")
        command.add_argument("--model", type=Path, action="append", required=True)

    served = commands.add_parser("serve", help="a local page to drop images on")
    served.add_argument("--model", type=Path, required=True)
    served.add_argument("--labels", default="", help="class names the page begins with, with commas between them")
    served.add_argument("--port", type=int, default=8765)
    served.set_defaults(do=_serve)
    return parser


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _classify(chosen: argparse.Namespace) -> int:
    if chosen.top < 1:
        raise InputError(f"--top {chosen.top}: tell one class at least")
    images = find_images(chosen.images)
    labels = _labels(chosen)
    loaded = load_model(chosen.model)
    classifier = _classifier(chosen, labels, loaded)
    if chosen.save_classifier is not None:
        classifier.save(chosen.save_classifier)
    failed = 0
    for answer in classify(loaded, classifier, images, chosen.top):
        failed += bool(answer.error)
        if chosen.json:
            print(json.dumps(_as_json(answer), ensure_ascii=False), flush=True)
        elif not answer.error:
            shown = "\n".join(f"  {100 * probability:6.2f} %  {name}" for name, probability in answer.classes)
            print(f"{answer.image}\n{shown}", flush=True)
        if answer.error:
            _say(f"{answer.image}: {answer.error}")
    if failed:
        _say(f"{failed} of {len(images)} images could not be looked at")
    return EXIT_PART if failed else 0


def _labels(chosen: argparse.Namespace) -> list[str]:
    ways = [way for way in ("labels", "labels_file", "classifier") if getattr(chosen, way)]
    if len(ways) != 1:
        raise InputError("give the classes in one way: --labels 'a, b, c', or --labels-file FILE, or --classifier FILE")
    if chosen.classifier and chosen.template:
        raise InputError("a template has no effect on a classifier that is made already; leave it out")
    if chosen.labels_file:
        return read_labels(chosen.labels_file)
    return split_labels(chosen.labels)


def split_labels(text: str) -> list[str]:
    """What stands between commas; nothing between two of them is no label."""
    return [label.strip() for label in text.split(",") if label.strip()]


def _classifier(chosen: argparse.Namespace, labels: list[str], loaded: Loaded) -> Classifier:
    if chosen.classifier:
        return load_classifier(chosen.classifier, loaded.embedder.weights_sha256)
    return build_classifier(loaded.embedder, labels, chosen.template or [DEFAULT_TEMPLATE], loaded.scale)


def _as_json(answer: Answer) -> dict[str, object]:
    if answer.error:
        return {"image": answer.image, "error": answer.error}
    return {
        "image": answer.image,
        "classes": [{"name": name, "probability": probability} for name, probability in answer.classes],
    }


def _search(chosen: argparse.Namespace) -> int:
    if bool(chosen.text) == bool(chosen.image) and not (chosen.export_embeddings and not chosen.text):
        raise InputError("give a text to search for, or an image (--image FILE), one of both")
    if chosen.top < 1:
        raise InputError(f"--top {chosen.top}: tell one image at least")
    if math.isnan(chosen.threshold):
        raise InputError("--threshold nan: give a cosine, -1 to 1")
    if len(chosen.model) != 1:
        raise InputError("search with one model")
    shards, (loaded,), (parts,) = _indexed(chosen)
    if chosen.export_embeddings:
        export_embeddings(shards, parts, loaded.embedder, chosen.export_embeddings, _say)
    if not chosen.text and not chosen.image:
        return 0
    embedder = loaded.embedder
    query_D = query_of_image(embedder, chosen.image) if chosen.image else query_of_text(embedder, chosen.text)
    hits = search(shards, parts, query_D, chosen.top, chosen.threshold)
    if chosen.save_images:
        save_images(shards, hits, chosen.save_images)
    told = (json.dumps({"rank": rank, **asdict(hit)}, ensure_ascii=False) for rank, hit in enumerate(hits, 1))
    for line in told if chosen.json else lines(hits):
        print(line)
    if not hits:
        _say(f"no image has a cosine of {chosen.threshold} or more")
    return 0


def _embed(chosen: argparse.Namespace) -> int:
    _, _, parts_of_each = _indexed(chosen)
    for parts in parts_of_each:
        print(parts[0].path.parents[1])
    return 0


def _indexed(chosen: argparse.Namespace) -> tuple[Shards, list[Loaded], list[list[IndexPart]]]:
    """The data set, the models, and where each one's vectors are, all of them there."""
    shards = read_shards(chosen.shards)
    splits = tuple(dict.fromkeys(chosen.split or ("train", "val")))
    models = [load_model(path) for path in chosen.model]
    parts = [index_parts(chosen.cache, shards, splits, loaded) for loaded in models]
    if not parts[0]:
        raise InputError(
            f"{chosen.shards}: the data set {shards.manifest.name!r} has no samples in {' and '.join(splits)}"
        )
    complete_index(shards, parts, models, _say)
    return shards, models, parts


def _serve(chosen: argparse.Namespace) -> int:
    from model.use.serve import serve

    serve(load_model(chosen.model), split_labels(chosen.labels), chosen.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
