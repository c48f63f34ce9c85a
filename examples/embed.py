"""A configuration, extended and run by an application: `python embed.py`."""

import sys

import ovpipe

YAML = """
version: 1
name: yard
stages:
  cam:
    kind: synthetic
    count: 5
    for_each: {gate: {}, dock: {}}
"""


def main() -> None:
    pipeline = ovpipe.Pipeline.from_yaml_text(YAML)
    pipeline.add("drawn", "annotate")
    print(pipeline.to_yaml())
    try:
        with pipeline:
            seen = sorted((frame.stream, frame.seq) for frame in pipeline.read("drawn"))
        print(len(seen), "frames of", sorted({stream for stream, _ in seen}))
    except* ovpipe.StageError as failures:  # one stage has failed, or several
        for error in failures.exceptions:
            print(error, file=sys.stderr)


if __name__ == "__main__":
    main()
