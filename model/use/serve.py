"""A page on this machine: drop an image, type classes, see which of them it shows.

The page is one file without a request to anywhere else. The server listens on 127.0.0.1 alone, answers only to that name,
keeps the features of the last images in memory, and writes nothing.
"""

from __future__ import annotations

import hashlib
import io
import socket
import threading
from collections import OrderedDict
from importlib.resources import files
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware
from torch import Tensor

from model.data.images import FORMATS
from model.errors import InputError
from model.evaluation.classifier_file import Classifier, build_classifier
from model.use.classify import DEFAULT_TEMPLATE
from model.use.loading import Loaded
from model.use.search import query_of_bytes

HOST = "127.0.0.1"
MOST_BYTES = 20 * 2**20
MOST_PIXELS = 50_000_000
MOST_QUESTION_BYTES = 2 * 2**20  # 1,000 names of 300 characters, escaped
IMAGES_KEPT = 64
CLASSIFIERS_KEPT = 64
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src blob: data:; "
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

Key = TypeVar("Key")
Value = TypeVar("Value")
Name = Annotated[str, Field(min_length=1, max_length=300)]


class Question(BaseModel):
    """Which of these classes the image shows that was sent before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str = Field(pattern="^[0-9a-f]{64}$", description="What /images answered")
    classes: tuple[Name, ...] = Field(min_length=2, max_length=1_000)
    template: Name = DEFAULT_TEMPLATE


class Desk:
    """The model, asked by one request at a time, and what it found lately."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self._lock = threading.Lock()
        self._images: OrderedDict[str, Tensor] = OrderedDict()
        self._classifiers: OrderedDict[tuple[tuple[str, ...], str], Classifier] = OrderedDict()

    def take(self, data: bytes) -> str:
        """Look at an image; returns the name under which its features are kept. Raises InputError."""
        check_size(data)
        key = hashlib.sha256(data).hexdigest()
        with self._lock:
            feature_D = query_of_bytes(self.loaded.embedder, data, "this file")
            _keep(self._images, key, feature_D, IMAGES_KEPT)
        return key

    def answer(self, question: Question) -> list[float] | None:
        """The probability of each class, or None if the image is not remembered. Raises InputError."""
        with self._lock:
            feature_D = self._images.get(question.image)
            if feature_D is None:
                return None
            about = (question.classes, question.template)
            classifier = self._classifiers.get(about)
            if classifier is None:
                classifier = build_classifier(
                    self.loaded.embedder, question.classes, [question.template], self.loaded.scale
                )
            _keep(self._classifiers, about, classifier, CLASSIFIERS_KEPT)
            probabilities: list[float] = classifier.probabilities(torch.stack([feature_D]))[0].tolist()
        return probabilities


def check_size(data: bytes) -> None:
    """Raises InputError for what is no image, or has more pixels than are decoded here; only its head is read for that."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
    except UnidentifiedImageError as error:
        raise InputError("this file is not an image that can be decoded; drop a JPEG, PNG or WebP") from error
    except (Image.DecompressionBombError, ValueError, OSError, SyntaxError) as error:
        raise InputError(f"this file cannot be looked at: {error}") from error
    if width * height > MOST_PIXELS:
        raise InputError(
            f"this image has {width} x {height} pixels, at most {MOST_PIXELS:,} are taken; make it smaller"
        )


class OwnPageOnly(BaseHTTPMiddleware):
    """Refuses what a page of another site asks from within a person's browser, and questions longer than any can be."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            return JSONResponse({"error": "only the page served here may ask"}, 403, HEADERS)
        if (
            request.url.path == "/classes"
            and int(request.headers.get("content-length") or MOST_BYTES) > MOST_QUESTION_BYTES
        ):
            return JSONResponse({"error": "the question is too long; ask for fewer or shorter classes"}, 413, HEADERS)
        return await call_next(request)


def make_app(loaded: Loaded, labels: list[str]) -> FastAPI:
    """The page, and what it asks."""
    app = FastAPI(title="wit serve", openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    app.add_middleware(OwnPageOnly)
    desk = Desk(loaded)
    page = files("model.use").joinpath("templates/serve.html").read_text(encoding="utf-8")

    @app.exception_handler(InputError)
    def tell(_request: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400, HEADERS)

    @app.get("/")
    def index() -> HTMLResponse:
        return HTMLResponse(page, headers=HEADERS)

    @app.get("/about")
    def about() -> JSONResponse:
        told = {
            "model": loaded.name,
            "image_px": loaded.embedder.image_px,
            "labels": labels,
            "template": DEFAULT_TEMPLATE,
        }
        return JSONResponse(told, headers=HEADERS)

    @app.post("/images")
    async def image(request: Request) -> JSONResponse:
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > MOST_BYTES:
                told = f"this file is larger than {MOST_BYTES // 2**20} MB; make it smaller"
                return JSONResponse({"error": told}, 413, {**HEADERS, "Connection": "close"})
        key = await run_in_threadpool(desk.take, bytes(data))
        return JSONResponse({"image": key}, headers=HEADERS)

    @app.post("/classes")
    def classes(question: Question) -> JSONResponse:
        probabilities = desk.answer(question)
        if probabilities is None:
            return JSONResponse({"error": "this image is not remembered any more; drop it again"}, 404, HEADERS)
        return JSONResponse({"probabilities": probabilities}, headers=HEADERS)

    return app


def serve(loaded: Loaded, labels: list[str], port: int) -> None:
    """Serve until Ctrl-C. Raises InputError if the port is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except (OSError, OverflowError) as error:
        raise InputError(f"port {port}: cannot be listened on ({error}); choose another one (--port)") from error
    print(f"{loaded.name} answers at http://{HOST}:{listener.getsockname()[1]}/  (Ctrl-C ends)", flush=True)
    config = uvicorn.Config(make_app(loaded, labels), log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


def _keep(kept: OrderedDict[Key, Value], key: Key, value: Value, most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > most:
        kept.popitem(last=False)
