"""How the flows speak in a terminal: our own lines, without the engine's bookkeeping."""

from __future__ import annotations

import errno
import logging
import os

from pipeline.errors import InputError, WorkError

ENGINE_LINES = (
    "Beginning flow run",
    "Beginning subflow run",
    "Finished in state",
    "Starting temporary server",
    "Stopping temporary server",
    "Crash detected",
    "Still processing items",
)


HEARTBEAT_S = 30  # how often a flow says that it lives; flows/stack.py takes a longer silence for death

DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


def is_told_in_one_line(error: BaseException | None) -> bool:
    """Whether `wit` tells an error in its own words; of any other a person needs the traceback."""
    return isinstance(error, (InputError, WorkError)) or (isinstance(error, OSError) and error.errno in DISK_TROUBLE)


def quiet_environment() -> None:
    """Set Prefect's settings for a terminal; to be called before Prefect is imported. What the user has set stays."""
    for name, value in {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),  # Prefect's own three minutes would look like death
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # 20 are too few on a busy laptop
        "PREFECT_LOGGING_FORMATTERS_STANDARD_FORMAT": "%(asctime)s  %(message)s",
        "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(asctime)s  %(message)s",
        "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": "%(asctime)s  %(message)s",
        "PREFECT_LOGGING_FORMATTERS_STANDARD_DATEFMT": "%H:%M:%S",
        "NO_ALBUMENTATIONS_UPDATE": "1",
    }.items():
        os.environ.setdefault(name, value)


class WithoutEngine(logging.Filter):
    """Lets our own lines pass; holds back the engine's, and the traceback of an error that `wit` tells in one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = str(record.msg)
        if record.exc_info and is_told_in_one_line(record.exc_info[1]):
            return False
        return not message.startswith(ENGINE_LINES)


def quiet_engine() -> None:
    """Hold back the engine's own lines on the console; the API still gets them."""
    from prefect.logging.configuration import setup_logging

    setup_logging()
    for handler in logging.getLogger().handlers:
        handler.addFilter(WithoutEngine())
