"""Submissions: found in a folder as an LMS packs them, and read without trust; never run.

A folder may hold, in any mixture, one folder a student (Moodle's, nbgrader's, your own), flat files
named STUDENT_hw1.ipynb (also as Moodle, Canvas and Blackboard name them), and zips of these.
"""

import json
import re
import stat
import time
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import nbformat
from nbformat import NotebookNode

from companion.homework.release import Assignment

__all__ = ["Submission", "Unreadable", "assignment_of", "find", "named", "parse"]

MAX_BYTES = 20_000_000  # of one notebook; outputs may hold pictures
MAX_CELLS = 1000
MAX_FILES = 20_000  # in one zip
JUNK = re.compile(r"^(\.|__MACOSX$|Thumbs\.db$|desktop\.ini$)", re.IGNORECASE)
MOODLE = re.compile(r"^(?P<student>.+?_\d+)_assignsubmission_[a-z]+(?:_(?P<file>.*))?$")
CANVAS = re.compile(r"^(?P<student>[^_]+)_(?:LATE_)?(?P<number>\d+)_\d+_(?P<file>.+)$")
BLACKBOARD = re.compile(r"^.+_(?P<student>[^_]+)_attempt_\d{4}(?:-\d\d){5}(?:_(?P<file>.+))?$")
HOW = "Submit the notebook itself: in Colab, File > Download > Download .ipynb."


class Unreadable(Exception):
    """A file that is no notebook; the text is for the student."""


@dataclass(frozen=True)
class Submission:
    """A file that somebody handed in. `file` is how the table names it."""

    student: str
    file: str
    path: Path
    member: str = ""  # its name inside the zip `path`
    problem: str = ""  # why it cannot be one, as far as its name tells
    when: float = 0.0  # of several files of a student the latest counts

    def bytes(self) -> bytes:
        """The file's bytes. Raises Unreadable; follows no link, and reads no more than it may."""
        if self.problem:
            raise Unreadable(self.problem)
        try:
            if not stat.S_ISREG(self.path.lstat().st_mode):
                raise Unreadable(f"{self.file} is not a file, but a link or a device. {HOW}")
            if not self.member:
                with self.path.open("rb") as f:
                    data = f.read(MAX_BYTES + 1)
            else:
                with zipfile.ZipFile(self.path) as z, z.open(self.member) as f:
                    data = f.read(MAX_BYTES + 1)
        except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, ValueError) as e:
            raise Unreadable(f"{self.file} cannot be read ({e}). {HOW}") from None
        if len(data) > MAX_BYTES:
            raise Unreadable(
                f"{self.file} has more than {MAX_BYTES // 1_000_000} MB. Clear the outputs (in "
                "Colab: Edit > Clear all outputs), save and submit it again."
            )
        return data

    def notebook(self) -> NotebookNode:
        """The notebook in nbformat 4, without outputs. Raises Unreadable."""
        return parse(self.bytes(), self.file)


# -- finding --------------------------------------------------------------------------------------


def find(folder: Path, names: list[str]) -> list[Submission]:
    """Every submission in a folder (or zip), by student, each one's files from old to new.

    `names` are the course's assignments, by which flat files are told from their students' names.
    Files that are no notebooks are found too, with their `problem`; only what operating systems
    leave behind is skipped. Raises FileNotFoundError if there is no such folder.
    """
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: no such folder; name the one with the submissions")
    entries = list(_zipped(folder, "") if folder.is_file() else _walk(folder))
    if folder.is_file() or not any(entry.member for entry in entries):  # not a student's own zip
        entries = _below(entries, names)
    by_student: dict[str, list[Submission]] = {}
    for entry in entries:
        student, file = _who(entry.parts, names)
        problem = ""
        if not file.lower().endswith(".ipynb"):
            problem = f"{file} is not a notebook (.ipynb). {HOW}"
        found = Submission(
            student, "/".join(entry.parts), entry.path, entry.member, problem, entry.when
        )
        by_student.setdefault(student, []).append(found)
    for path in () if folder.is_file() else sorted(folder.iterdir()):  # somebody's empty folder
        if path.is_dir() and not path.is_symlink() and not JUNK.match(path.name):
            student, _ = _who((path.name, ""), names)
            empty = Submission(student, path.name, path, "", f"There is no file in it. {HOW}")
            if not any(entry.path.is_relative_to(path) for entry in entries):
                by_student.setdefault(student, [empty])
    kept: list[Submission] = []
    for files in by_student.values():
        notebooks = [f for f in files if not f.problem]
        kept += notebooks or files[:1]  # a picture beside a notebook is no submission
    return list(_distinct(kept))


@dataclass(frozen=True)
class Entry:
    """A file below the folder: `parts` are the names on the way."""

    parts: tuple[str, ...]
    path: Path
    member: str = ""
    when: float = 0.0


def _below(entries: list[Entry], names: list[str]) -> list[Entry]:
    """Without the folder around it all that unpacking a download leaves."""
    around = {e.parts[0] for e in entries}
    if len(around) != 1 or any(len(e.parts) < 2 for e in entries):
        return entries
    second = {e.parts[1] for e in entries}
    packed = all(any(lms.match(s) for lms in (MOODLE, CANVAS, BLACKBOARD)) for s in second)
    folders = len(second) > 1 and all(len(e.parts) > 2 for e in entries) and not second & set(names)
    if not (packed or folders):
        return entries
    return [Entry(e.parts[1:], e.path, e.member, e.when) for e in entries]


def _walk(folder: Path, parts: tuple[str, ...] = ()) -> Iterator[Entry]:
    """Every file below a folder; links are not followed."""
    for path in sorted(folder.iterdir()):
        here = (*parts, path.name)
        if JUNK.match(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path, here)
        elif path.suffix.lower() == ".zip" and path.is_file() and not path.is_symlink():
            yield from _zipped(path, "/".join(here))
        else:
            yield Entry(here, path, "", path.lstat().st_mtime)


def _zipped(path: Path, shown: str) -> Iterator[Entry]:
    """The files of a zip, read where they are: nothing is unpacked, so nothing can escape."""
    outer = tuple(shown.split("/")) if shown else ()
    try:
        with zipfile.ZipFile(path) as z:
            members = z.infolist()[:MAX_FILES]
    except (OSError, zipfile.BadZipFile, ValueError):
        yield Entry(outer or (path.name,), path)
        return
    for info in members:
        inner = tuple(p for p in PurePosixPath(info.filename).parts if p not in ("/", "..", "."))
        if inner and not info.is_dir() and not any(JUNK.match(p) for p in inner):
            when = time.mktime((*info.date_time, 0, 0, -1))
            yield Entry((*outer, *inner), path, info.filename, when)


def _who(parts: tuple[str, ...], names: list[str]) -> tuple[str, str]:
    """(student, file name). What the LMS wrote in front decides; a student cannot choose it."""
    file = parts[-1]
    first = parts[0][:255]  # longer names are in zips alone, and slow to search
    moodle = MOODLE.match(first)
    if moodle:
        return moodle["student"], file if len(parts) > 1 else moodle["file"] or ""
    canvas = CANVAS.match(first)
    if canvas:
        return f"{canvas['student']}_{canvas['number']}", file
    blackboard = BLACKBOARD.match(first)
    if blackboard:
        return blackboard["student"], file
    if len(parts) > 1 and not first.lower().endswith(".zip"):
        return first, file
    stem = PurePosixPath(first).stem
    for short in sorted({x for n in names for x in (n, n.split("_")[0])}, key=len, reverse=True):
        found = re.search(rf"[ _.-]+{re.escape(short)}(?![0-9a-z])", stem, re.IGNORECASE)
        if found and found.start():
            return stem[: found.start()], file
    return stem, file


def _distinct(found: list[Submission]) -> Iterator[Submission]:
    """Students' names as names of folders that differ on every file system; their files by age."""
    taken: dict[str, str] = {}
    for submission in sorted(found, key=lambda s: (s.student, s.when, _natural(s.file))):
        name = unicodedata.normalize("NFC", submission.student)
        name = re.sub(r"[^\w .@-]|^[@-]", "_", name.strip(" ."))[:100] or "_"
        while taken.setdefault(name.casefold(), submission.student) != submission.student:
            name += "_"
        yield replace(submission, student=name)


def _natural(text: str) -> list[tuple[int, str]]:
    """hw1-2 before hw1-10, and hw1 before both."""
    return [(int(d or 0), w) for d, w in re.findall(r"(\d{1,9})|(\D+)", text.rsplit(".", 1)[0])]


# -- reading --------------------------------------------------------------------------------------


def parse(data: bytes, file: str) -> NotebookNode:
    """A notebook of any version as nbformat 4, without outputs. Raises Unreadable."""
    if not data.strip():
        raise Unreadable(f"{file} is empty. {HOW}")
    try:
        raw = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as e:
        said = f"it is no JSON: {e}"[:100]
        for what, sign in {"a PDF": b"%PDF", "a web page": b"<html", "a zip": b"PK"}.items():
            said = f"it is {what}" if sign in data[:500] else said
        raise Unreadable(f"{file} is not a Jupyter notebook; {said}. {HOW}") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("nbformat"), int):
        raise Unreadable(f"{file} is JSON, but not a Jupyter notebook. {HOW}")
    try:
        _plain_cells(raw)
        old = nbformat.convert(nbformat.reader.reads(json.dumps(raw)), 4)
        notebook: Any = nbformat.from_dict(old)  # old formats have classes of their own
        cells = [_cell(cell) for cell in notebook.cells]
    except Exception as e:  # nbformat raises what it likes about what is not there
        raise Unreadable(
            f"{file} is a damaged notebook ({type(e).__name__}: {e!s:.80}). Open it in Colab or "
            "Jupyter, save it and submit it again."
        ) from None
    if len(cells) > MAX_CELLS:
        raise Unreadable(f"{file} has {len(cells)} cells; more than {MAX_CELLS} are not graded.")
    about = notebook.get("metadata", {}).get("homework", {})
    new = nbformat.v4.new_notebook(cells=cells)
    if isinstance(about, dict) and isinstance(about.get("assignment"), str):
        new.metadata["homework"] = {"assignment": about["assignment"]}
    return new


def _plain_cells(raw: dict[str, Any]) -> None:
    """Takes the outputs away, before anything looks at them."""
    sheets = [raw] if "cells" in raw else raw.get("worksheets", [])
    if not sheets or not all(isinstance(sheet.get("cells"), list) for sheet in sheets):
        raise ValueError("it has no cells")
    for cell in (cell for sheet in sheets for cell in sheet["cells"]):
        if cell["cell_type"] == "code":
            cell["outputs"] = []
            cell["metadata"] = cell.get("metadata") or {}


def _cell(cell: NotebookNode) -> NotebookNode:
    """A cell with its source and what tells which cell it was; nothing else of a submission."""
    source = cell.source
    if not isinstance(source, str):
        raise ValueError("a cell has no text")
    source = source.replace("\r\n", "\n")
    source.encode("utf8")  # half a surrogate pair cannot be written to any file
    new = {
        "code": nbformat.v4.new_code_cell,
        "markdown": nbformat.v4.new_markdown_cell,
    }.get(cell.cell_type, nbformat.v4.new_markdown_cell)(source)
    meta = cell.get("metadata", {})
    nbgrader = meta.get("nbgrader", {}) if isinstance(meta, dict) else {}
    grade_id = nbgrader.get("grade_id", "") if isinstance(nbgrader, dict) else ""
    new.metadata["was"] = [x for x in (grade_id, cell.get("id"), meta.get("id")) if x]
    if new.cell_type == "markdown":
        pictures = _pictures(cell.get("attachments"))
        new.source = _as_attachments(new.source, pictures)
        if pictures:
            new["attachments"] = pictures
    return new


def _as_attachments(source: str, pictures: dict[str, dict[str, str]]) -> str:
    """Markdown whose pictures are attachments: Colab pastes them into the text, base64 and all."""

    def attach(match: re.Match[str]) -> str:
        name = f"pasted-{len(pictures)}"
        pictures[name] = {match[1]: match[2]}
        return f"attachment:{name}"

    return re.sub(r"data:(image/png|image/jpeg);base64,([A-Za-z0-9+/=]+)", attach, source)


def _pictures(attachments: Any) -> dict[str, dict[str, str]]:
    """The PNG and JPEG pictures that are pasted into a written answer."""
    found: dict[str, dict[str, str]] = {}
    for name, bundle in attachments.items() if isinstance(attachments, dict) else ():
        for kind, data in bundle.items() if isinstance(bundle, dict) else ():
            data = "".join(data) if isinstance(data, list) else data
            good = isinstance(data, str) and re.fullmatch(r"[A-Za-z0-9+/=\s]+", data)
            if kind in ("image/png", "image/jpeg") and good:
                found[name] = {kind: data}
    return found


def assignment_of(notebook: NotebookNode, file: str, known: dict[str, Assignment]) -> Assignment:
    """Whose notebook it is: by its metadata, its cells, or its file's name.

    Raises Unreadable if none of them tells, or the notebook is of another assignment.
    """
    said = notebook.metadata.get("homework", {}).get("assignment")
    if said and said not in known:
        raise Unreadable(f"{file} is the notebook of {said:.60}, not of {', '.join(known)}.")
    ids = {x for cell in notebook.cells for x in cell.metadata.get("was", ()) if type(x) is str}
    by_cells = [a.name for a in known.values() if ids & {a.cell_id(q.id) for q in a.questions}]
    name = said or (by_cells[0] if len(by_cells) == 1 else named(file, list(known)))
    if not name:
        raise Unreadable(
            f"{file}: nothing tells which assignment this is. Put one of these names into the "
            f"file's name: {', '.join(known)}."
        )
    return known[name]


def named(file: str, names: list[str]) -> str:
    """The assignment that a file's name tells (hw1 for hw1_mechanics), or the only one, or ''."""
    own = PurePosixPath(file).name.lower()[:255]
    short = [n for n in names if re.search(rf"(?<![0-9a-z]){n.split('_')[0]}(?![0-9a-z])", own)]
    found = [n for n in names if n in own] or short or names
    return found[0] if len(found) == 1 else ""
