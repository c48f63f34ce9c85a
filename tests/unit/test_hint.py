"""What is proposed where a name is wrong."""

from ovpipe.hint import near


def test_what_is_near_is_proposed():
    assert near("detekt", ("cam", "detect")) == "did you mean 'detect'?"
    assert near("detekt", ("cam", "detect"), "ask") == "did you mean 'detect'?"


def test_else_what_there_is():
    assert near("x", ["cam", "detect"]) == "there are: cam, detect"
    assert near("x", iter(["cam"]), "ask somebody") == "ask somebody"
    assert near("x", []) == "there are none"


def test_of_many_only_the_first():
    told = near("x", [f"cam-{i:04}" for i in range(1000)])
    assert told.startswith("there are: cam-0000, ")
    assert told.endswith(", cam-0029, ...")
