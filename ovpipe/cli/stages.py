"""`ovpipe stages`: the kinds that there are, and what there is to know of one."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import click

from ovpipe.cli import complete
from ovpipe.cli.examples import examples
from ovpipe.cli.status import say
from ovpipe.errors import ConfigError
from ovpipe.loader.kinds import cards
from ovpipe.stages import plugins
from ovpipe.stages.registry import BUILT_IN, kinds, shadowed

_FLOW = {
    "producer": "a producer: it reads no stage and makes frames",
    "transform": "a transform: it takes frames and gives frames",
    "consumer": "a consumer: it takes frames and gives none",
}
_WIDTH = 100
_WIDEST_TYPE = 34
_WIDEST_DEFAULT = 16


@click.command(
    epilog=examples(
        ("ovpipe stages", "all kinds, those of installed packages too"),
        ("ovpipe stages video", "one of them"),
        ("ovpipe stages crowd:Crowd --folder yard", "a class of your own, in yard/crowd.py"),
    )
)
@click.argument("kind", required=False, shell_complete=complete.kinds)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, exists=True),
    default=".",
    help="Where modules of your own are looked for: the folder of the configuration.",
)
@click.option("--json", "json_", is_flag=True, help="As one JSON object.")
def stages(kind: str | None, folder: str, json_: bool) -> None:
    """List the kinds of stage, or all there is to know of KIND: what it takes and gives, what it
    needs, its options with types, defaults and bounds.
    """
    if kind is None:
        _list(Path(folder).absolute(), json_)
        return
    told = cards([kind], Path(folder).absolute())[kind]
    if told.fault:
        raise ConfigError(f"{told.fault} ({told.hint})" if told.hint else told.fault)
    known = {k: v for k, v in told.card.items() if k != "schema"}
    if json_:
        say(sys.stdout, json.dumps({"kind": kind, "package": _package(kind), **known}))
        return
    say(sys.stdout, _shown(kind, known))


def _package(kind: str) -> str:
    """The package that a kind is of: "" for those of ovpipe and one's own."""
    named = () if kind in BUILT_IN else plugins.named(plugins.STAGES, kind)
    return named[0].package if named else ""


def _list(folder: Path, json_: bool) -> None:
    told = cards(kinds(), folder)
    rows = {
        name: {
            "summary": answer.card.get("summary", ""),
            "role": answer.role,
            "package": _package(name),
            "missing": list(answer.missing),
            "fault": answer.fault,
        }
        for name, answer in told.items()
    }
    if json_:
        say(sys.stdout, json.dumps(rows))
    else:
        width = max(map(len, rows)) + 1
        for name, row in rows.items():
            text = str(row["fault"]) if row["fault"] else str(row["summary"])
            if row["package"] and not row["fault"]:
                text += f" [{row['package']}]"
            say(sys.stdout, f"{name:{width}} {text}")
    for text in shadowed():
        say(sys.stderr, f"warning: {text}")


def _shown(kind: str, known: dict[str, Any]) -> str:
    of = f" [{_package(kind)}]" if _package(kind) else ""
    flow = _FLOW[known["role"]]
    if known["one_process"] and known["role"] != "producer":
        flow += "; one process, no replicas"
    parts = [f"{kind}{of}: {known['doc']}".rstrip(": "), "", flow]
    for need in known["needs"]:
        gone = any(f"'{need['module']}'" in text for text in known["missing"])
        state = "NOT INSTALLED" if gone else "installed"
        parts.append(f"needs {need['module']} ({state}): pip install 'ovpipe[{need['extra']}]'")
    if known["options"]:
        parts += ["", _options(known["options"])]
    else:
        parts += ["", "no options of its own"]
    if kind == "infer" and (more := plugins.plugins(plugins.DECODERS)):
        parts += ["", "decoders of installed packages:"]
        parts += [f"  {plugin.name} [{plugin.package}]" for plugin in more]
    return "\n".join(parts)


def _options(options: list[dict[str, Any]]) -> str:
    """A table; what an option means goes on below where it is long."""
    rows = [
        [o["name"], o["type"], "required" if o["required"] else _value(o["type"], o["default"])]
        for o in options
    ]
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths = [wide[0], min(wide[1], _WIDEST_TYPE), min(wide[2], _WIDEST_DEFAULT)]
    head = ["option", "type", "default"]
    widths = [max(w, len(h)) for w, h in zip(widths, head, strict=True)]
    indent = sum(widths) + 6
    room = max(_WIDTH - indent, 24)
    lines = [_row([*head, "meaning"], widths), _row([*("-" * w for w in widths), "-" * 7], widths)]
    for row, option in zip(rows, options, strict=True):
        columns = [textwrap.wrap(c, w) or [""] for c, w in zip(row, widths, strict=True)]
        columns.append(textwrap.wrap(option["description"], room) or [""])
        for i in range(max(map(len, columns))):
            lines.append(_row([c[i] if i < len(c) else "" for c in columns], widths))
    return "\n".join(lines)


def _row(cells: list[str], widths: list[int]) -> str:
    padded = [c.ljust(w) for c, w in zip(cells, widths, strict=False)]
    return "  ".join([*padded, cells[-1]]).rstrip()


def _value(kind: str, value: Any) -> str:
    """A default as it is written in YAML."""
    if kind == "size" and value:
        return "x".join(map(str, value))
    if value is None:
        return "none"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
