"""Detections of a pipeline in an application: `python hello.py config.yaml stage`."""

import sys

import ovpipe


def main(config: str, stage: str) -> None:
    with ovpipe.Pipeline.from_yaml(config) as pipeline:
        for frame in pipeline.read(stage):
            names = ", ".join(found.label for found in frame.detections or ())
            print(f"{frame.stream} {frame.seq}: {names or 'nothing'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
