"""What the sinks of a run wrote, against its ledger: `python -m ovpipe.testing.verify FOLDER`.

FOLDER holds `summary.json`, what `ovpipe run --json` printed, and one `NAME.jsonl` per Recorder,
named as its stage. Prints one JSON object, {"frames", "missing", "differences"}; exit code 0
where there is no difference, else 1.

Law: nothing of the machinery that it judges is imported; it reads two kinds of file. Of each
stream at each sink:

    whole       every line's pixels are of this stream and this seq, unchanged
    once, in order      seqs rise, each is below the number of frames that the source claimed
    explained   what is missing is what the edges on the way count as dropped or failed. A frame
                that somebody held when he was killed is counted as failed, and may have been
                passed on or written before: so many may be there in spite of it, and no more
    waited for  an edge without a live source above it drops nothing
    ended       after an end comes nothing; a run that ended well ends every stream
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

Line = dict[str, Any]
HELD = ("stage_crash", "drain_timeout")
"""How a frame is counted that was in somebody's hands: it may have been passed on before."""
LOSSLESS_MAY = {"draining"}


def verify(folder: Path, live: Collection[str] = ("cam",), hasty: bool = False) -> dict[str, Any]:
    """The verdict on one run; `live`: names of sources that do not wait. `hasty`: a stage may
    have been away when the run was asked to end, and heard of no end."""
    summary = json.loads((folder / "summary.json").read_text())
    rows: list[Line] = summary["ledger"]
    verdict: dict[str, Any] = {"frames": 0, "missing": 0, "differences": []}
    tell = verdict["differences"].append
    for row in rows:
        for problem in _unbalanced(row):
            tell(f"{row['source']} -> {row['target']} {row['stream']}: {problem}")
    sinks = {row["target"] for row in rows} - {row["source"] for row in rows}
    # Who was asked to end before a first frame had flowed, ended well without any end of stream.
    well = summary["exit_code"] == 0 and not hasty and any(row["claimed"] for row in rows)
    for sink in sorted(sinks):
        lines = _lines(folder / f"{sink}.jsonl", tell)
        known = {row["stream"] for row in rows if row["target"] == sink}
        for stream in sorted(known | {line["stream"] for line in lines}):
            way = _way(rows, sink, stream)
            mine = [line for line in lines if line["stream"] == stream]
            seen = [line for line in mine if "seq" in line]
            verdict["frames"] += len(seen)
            verdict["missing"] += way[0]["claimed"] - len(seen) if way else 0
            for problem in (
                *_damaged(seen, stream),
                *_disordered(seen, way),
                *_unexplained(len(seen), way, bool(way) and way[0]["source"] in live),
                *_ends(mine, well),
            ):
                tell(f"{sink} {stream}: {problem}")
    return verdict


def _lines(path: Path, tell: Any) -> list[Line]:
    if not path.exists():  # the run ended before its sink had opened it
        return []
    lines = []
    for number, text in enumerate(path.read_text().splitlines(), 1):
        try:
            lines.append(json.loads(text))
        except ValueError:
            tell(f"{path.name}:{number}: not a whole line")
    return lines


def _way(rows: list[Line], sink: str, stream: str) -> list[Line]:
    """The rows of the edges from the source to the sink; each stage reads one."""
    way: list[Line] = []
    target = sink
    while True:
        row = next((r for r in rows if (r["target"], r["stream"]) == (target, stream)), None)
        if row is None:
            return way
        way.insert(0, row)
        target = row["source"]


def _unbalanced(row: Line) -> Iterator[str]:
    ended = row["delivered"] + sum(row["dropped"].values()) + sum(row["failed"].values())
    if row["in_flight"]:
        yield f"{row['in_flight']} in flight after the end"
    if row["claimed"] != ended + row["in_flight"]:
        yield f"claimed {row['claimed']}, ended {ended}"


def _damaged(seen: list[Line], stream: str) -> Iterator[str]:
    digest = hashlib.blake2b(stream.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    number = int.from_bytes(digest, "little")
    for line in seen:
        if not line["ok"]:
            yield f"corrupted: the pixels of frame {line['seq']} have changed"
        elif line["painter"] != number:
            yield f"corrupted: frame {line['seq']} has the pixels of another stream"
        elif line["painted"] != line["seq"]:
            yield f"corrupted: frame {line['seq']} has the pixels of frame {line['painted']}"


def _disordered(seen: list[Line], way: list[Line]) -> Iterator[str]:
    last, known = -1, set()
    for line in seen:
        seq = line["seq"]
        if seq in known:
            yield f"duplicated: frame {seq}"
        elif seq < last:
            yield f"disordered: frame {seq} after {last}"
        known.add(seq)
        last = max(last, seq)
    if last >= 0 and not (way and last < way[0]["claimed"]):
        yield f"invented: frame {last} of {way[0]['claimed'] if way else 0}"


def _unexplained(count: int, way: list[Line], live: bool) -> Iterator[str]:
    """Each hop: what was delivered went on, and so may have what somebody held at his death."""
    ons = [row["claimed"] for row in way[1:]] + [count]
    for row, on in zip(way, ons, strict=bool(way)):
        held = sum(row["failed"].get(reason, 0) for reason in HELD)
        where = f"{row['source']} -> {row['target']}"
        if on < row["delivered"]:
            yield f"lost: {where} delivered {row['delivered']}, {on} went on"
        if on > row["delivered"] + held:
            yield f"too many: {where} delivered {row['delivered']} and held {held}, {on} went on"
        if not live and set(row["dropped"]) - LOSSLESS_MAY:
            yield f"dropped although it waits: {where} {row['dropped']}"


def _ends(mine: list[Line], well: bool) -> Iterator[str]:
    ends = [i for i, line in enumerate(mine) if line.get("end")]
    if ends and any("seq" in line for line in mine[ends[0] :]):
        yield "a frame came after the end of its stream"
    if len({mine[i]["pid"] for i in ends}) < len(ends):
        yield "its end was told twice to one process"
    if well and not ends:
        yield "its end was never told"


def main(arguments: list[str]) -> int:
    """The verdict on FOLDER; `--hasty`: not all stages were there when the run was to end."""
    verdict = verify(Path(arguments[0]), hasty="--hasty" in arguments[1:])
    print(json.dumps(verdict))
    return 1 if verdict["differences"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
