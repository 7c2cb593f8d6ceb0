"""An exception as the text of a row or of a line; works for any exception, whatever its own methods do."""

from __future__ import annotations

import traceback

LONGEST = 1000  # characters of a line
TRACE = 20_000  # characters of a traceback


def text_of(error: BaseException) -> str:
    """The message of an exception, printable; where its `str()` fails, so it says.

    Example: `text_of(ValueError("no such grid"))` is "no such grid"
    """
    try:
        text = str(error)
    except BaseException as another:  # a third party's __str__ may do anything
        return f"(its message cannot be shown: {type(another).__name__})"
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text.replace("\r", "\n"))


def one_line(error: BaseException) -> str:
    """What failed, for a row: the first line of the message; of an error in a decoding process, its own last line.

    Example: `one_line(ValueError("no such grid"))` is "ValueError: no such grid"
    """
    lines = text_of(error).strip().splitlines() or ["no message"]
    if lines[0].startswith("Caught ") and "DataLoader worker" in lines[0]:
        name, _, text = lines[-1].partition(": ")
        return f"{name.rpartition('.')[2]}: {text}"[:LONGEST]
    if "DataLoader worker" in lines[0]:
        died = "a process that decodes pictures died, often for want of memory; try fewer --workers"
        return f"{type(error).__name__}: {died} ({lines[0].strip()})"[:LONGEST]
    return f"{type(error).__name__}: {lines[0]}"[:LONGEST]


def trace_of(error: BaseException) -> str:
    """The traceback; of one that is very long, as recursion's, its beginning and its end."""
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:  # its __str__, __notes__ or __cause__ may do anything
        text = "".join(traceback.format_tb(error.__traceback__)) + f"{type(error).__name__}: {text_of(error)}"
    half = TRACE // 2 - 10
    return text if len(text) <= TRACE else f"{text[:half]}\n...\n{text[-half:]}"
