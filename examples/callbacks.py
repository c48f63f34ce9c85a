"""A function for each frame, and a look at how it goes: `python callbacks.py`."""

import ovpipe


def main() -> None:
    found = []
    pipeline = ovpipe.Pipeline("counted")
    pipeline.add("clip", "synthetic", {"count": 20})
    pipeline.add("drawn", "annotate")
    pipeline.on_frame("clip", lambda frame: found.append(frame.seq))
    pipeline.on_frame("drawn", lambda frame: None)
    with pipeline:
        pipeline.run()  # until the streams end; raises what a stage or a callback failed with
    (edge,) = pipeline.stats().edge("clip", "drawn")
    print(f"{len(found)} called, {edge.claimed} = {edge.delivered} delivered + {edge.in_flight}")


if __name__ == "__main__":
    main()
