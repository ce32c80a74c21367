"""STATION.toml -> a Station: every key is known, has a type and is checked before anything is
opened.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from anomaly.errors import AnomalyError
from anomaly.files.regular_files import read_small_text
from anomaly.station.results import OUTCOMES
from anomaly.station.settings import (
    SINKS,
    SOURCES,
    TRIGGERS,
    FolderSink,
    Station,
    UnitSettings,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MAX_BYTES = 1 << 20  # bytes of a station's file
MAX_PORT = 65535
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
EXPECTED = {  # by the type of a field
    "str": "text",
    "int": "a whole number from 0 on",
    "float": "a number above 0",
    "bool": "true or false",
    "tuple[str, ...]": "a list of texts",
    "dict[str, Any]": "a table",
    "Path": "a path",
    "Path | None": "a path",
}
Settings = TypeVar("Settings", bound="DataclassInstance")
CHOICES = {
    "not_judged": ("reject", "pass", "stop"),
    "review": ("reject", "pass"),
    "when_behind": ("drop oldest", "stop the line"),
    "device": ("auto", "cpu", "cuda"),
}


def read_station(file: Path) -> Station:
    """Returns the station that a file describes; AnomalyError where anything in it is wrong."""
    try:
        content = tomllib.loads(read_small_text(file, MAX_BYTES))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        what = " ".join(str(error).split())
        raise AnomalyError(f"{file}: not a TOML file ({what}): mend it") from error
    home = file.parent.absolute()
    given: dict[str, Any] = {"name": file.stem, "state": file.stem, **content, "file": file.name}
    for key, kinds in (("source", SOURCES), ("sink", SINKS)):
        tables = given.pop(key, [])
        if not isinstance(tables, list) or not tables:
            raise AnomalyError(f"{file}: no [[{key}]] found, at least one expected")
        given[f"{key}s"] = tuple(
            _of_kind(table, kinds, f"{file}: {key} {number}", home)
            for number, table in enumerate(tables, 1)
        )
    if "unit" in given:
        given["unit"] = filled(UnitSettings, given["unit"], f"{file}: unit", home)
    station = filled(Station, given, str(file), home)
    _check(station)
    return station


def _of_kind(table: Any, kinds: dict[str, Any], where: str, home: Path) -> Any:
    """Returns the settings of a table that names its ``kind``."""
    kind = table.get("kind") if isinstance(table, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise AnomalyError(f"{where}: kind {kind!r} found, one of {', '.join(kinds)} expected")
    fields = {key: value for key, value in table.items() if key != "kind"}
    if "trigger" in fields:
        fields["trigger"] = _of_kind(fields["trigger"], TRIGGERS, f"{where}: trigger", home)
    for key in ("database", "address"):
        place = fields.get(key)
        if isinstance(place, str) and kind in ("review", "video") and is_path(place):
            fields[key] = str(home / place)
    names = {field.name for field in dataclasses.fields(kinds[kind])}
    if "name" in names:
        fields.setdefault("name", kind)
    return filled(kinds[kind], fields, f"{where} ({kind})", home)


def is_path(place: str) -> bool:
    """Whether a database or a video is a file: no address and no camera's number."""
    return bool(place) and "://" not in place and not place.isdecimal()


def filled(cls: type[Settings], given: Any, where: str, home: Path) -> Settings:
    """Returns an instance of ``cls`` with the values of a table."""
    if not isinstance(given, dict):
        raise AnomalyError(f"{where}: {given!r} found, a table expected")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = next((key for key in given if key not in fields), None)
    if unknown is not None:
        known = ", ".join(name.replace("sources", "source").replace("sinks", "sink")
                          for name in fields if name != "file")  # fmt: skip
        raise AnomalyError(f"{where}: {unknown!r} found, one of {known} expected")
    missing = [
        name
        for name, field in fields.items()
        if name not in given
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise AnomalyError(f"{where}: no {missing[0]} found, one expected: add {missing[0]} = ...")
    return cls(
        **{key: _value(value, fields[key].type, f"{where}: {key}", home)
           for key, value in given.items()}
    )  # fmt: skip


def _value(value: Any, kind: Any, where: str, home: Path) -> Any:
    """Returns a value in the type of its field."""
    if kind not in EXPECTED:
        return value  # read already
    if kind == "float" and type(value) in (int, float) and value > 0:
        return float(value)
    if kind == "int" and type(value) is int and value >= 0:
        return value
    if kind == "bool" and type(value) is bool:
        return value
    if kind in ("str", "Path", "Path | None") and isinstance(value, str) and value.isprintable():
        return value if kind == "str" else home / os.path.expanduser(value)
    texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
    if kind == "tuple[str, ...]" and texts and value:
        return tuple(value)
    if kind == "dict[str, Any]" and isinstance(value, dict):
        return value
    raise AnomalyError(f"{where} is {value!r}, {EXPECTED[kind]} expected")


def _check(station: Station) -> None:
    """Raises AnomalyError for what is wrong between the parts of a station."""
    where = station.file
    for key, allowed in CHOICES.items():
        found = getattr(station, key)
        if found not in allowed:
            expected = ", ".join(map(repr, allowed))
            raise AnomalyError(f"{where}: {key} is {found!r}, one of {expected} expected")
    if station.waiting < 1:
        raise AnomalyError(f"{where}: waiting is 0, a whole number from 1 on expected")
    for sink in station.sinks:
        if isinstance(sink, FolderSink) and not set(sink.outcomes) <= set(OUTCOMES):
            found, expected = ", ".join(sink.outcomes), ", ".join(OUTCOMES)
            raise AnomalyError(
                f"{where}: sink {sink.name}: outcomes {found} found, some of {expected} expected"
            )
    for part in (*station.sources, *station.sinks):
        if (port := getattr(part, "port", 0)) > MAX_PORT:
            raise AnomalyError(
                f"{where}: {part.name}: port {port} found, one from 0 to {MAX_PORT} expected"
            )
    for parts in (station.sources, station.sinks):
        names = [part.name for part in parts]
        for name in names:
            if not NAME.fullmatch(name) or names.count(name) > 1:
                raise AnomalyError(
                    f"{where}: name {name!r} found, one of letters, digits, . _ - expected, and "
                    "each once: give each source and each sink a name of its own (name = ...)"
                )
    for source in station.sources:
        try:
            re.compile(getattr(source, "serial", ""))
        except re.error as error:
            raise AnomalyError(f"{where}: source {source.name}: serial: {error}") from error
    views = () if station.unit is None else station.unit.views
    unknown = set(views) - {source.name for source in station.sources}
    if unknown or len(set(views)) != len(views):
        raise AnomalyError(
            f"{where}: unit: views {', '.join(views)} found, names of sources expected, each once"
        )
