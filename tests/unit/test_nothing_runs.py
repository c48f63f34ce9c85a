"""J09: nothing turns bytes into code. G01: no wall clock decides anything. By reading the source."""

import ast
from pathlib import Path

import pytest

FILES = sorted(Path("ovpipe").rglob("*.py"))

MODULES = {
    "pickle", "_pickle", "cPickle", "pickletools", "dill", "cloudpickle", "joblib", "marshal",
    "shelve", "dbm", "copyreg", "code", "codeop", "runpy", "imp", "multiprocessing", "xmlrpc",
    "jsonpickle", "torch",
}  # fmt: skip
CALLS = {
    "eval", "exec", "compile", "__import__", "np.load", "numpy.load", "np.fromfile",
    "np.genfromtxt", "np.save", "np.savez", "os.system", "os.popen", "yaml.load", "yaml.load_all",
    "yaml.unsafe_load", "yaml.full_load", "builtins.eval", "builtins.exec",
}  # fmt: skip
BY_NAME = {
    # import_module: the name must not come from a socket. Each place and where its name is from.
    "ovpipe/__init__.py": "a table in the file",
    "ovpipe/cli/__init__.py": "a table in the file",
    "ovpipe/stages/registry.py": "the configuration, by way of the supervisor's own channel",
    "ovpipe/stages/infer/custom.py": "an option of the stage, from the configuration",
}
CLOCKS = {
    "time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime", "datetime.now",
    "datetime.utcnow", "datetime.today", "datetime.datetime.now", "datetime.datetime.utcnow",
    "time.clock_gettime", "time.CLOCK_REALTIME",
}  # fmt: skip


def nodes(path):
    return ast.walk(ast.parse(path.read_text()))


def imported(path):
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def called(path):
    for node in nodes(path):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", FILES, ids=str)
def test_J09_nothing_that_runs_bytes_is_imported(path):
    for module in imported(path):
        assert module.split(".")[0] not in MODULES, module
        assert module not in {"os.system", "os.popen", "numpy.load", "builtins.eval"}, module


@pytest.mark.parametrize("path", FILES, ids=str)
def test_J09_nothing_that_runs_bytes_is_called(path):
    for name, call in called(path):
        assert name not in CALLS, f"{path}:{call.lineno}: {name}"
        given = {keyword.arg for keyword in call.keywords}
        assert not given & {"shell", "allow_pickle"}, f"{path}:{call.lineno}: {name}"
        if name.endswith("import_module"):
            assert path.as_posix() in BY_NAME, f"{path}:{call.lineno}: {name}"
        if name.startswith("msgpack.unpack"):  # no hook turns a message into an object
            assert not given & {"object_hook", "object_pairs_hook", "ext_hook", "list_hook"}


def test_J09_nothing_of_numpy_objects_travels():
    from ovpipe.transport.pool import DTYPES

    assert not any(dtype.hasobject or dtype.kind in "OVMmSU" for dtype in DTYPES)


TELLS_DATES = {
    "ovpipe/supervisor/bulletin.py",
    "ovpipe/supervisor/logbook.py",
    "ovpipe/cli/asking.py",
    "ovpipe/cli/running.py",
    "ovpipe/cli/talk.py",
    "ovpipe/stages/images.py",
    "ovpipe/stages/messenger.py",
    # Names of recordings; and how old those of another day are, judged beside the boot clock.
    "ovpipe/stages/hls.py",
    "ovpipe/stages/naming.py",
    "ovpipe/stages/retention.py",
    "ovpipe/stages/segments.py",
    "ovpipe/stages/video_writer.py",
    "ovpipe/stages/sqlite.py",  # and how old a row of another day is, where it is asked to
}


@pytest.mark.parametrize("path", [f for f in FILES if f.as_posix() not in TELLS_DATES], ids=str)
def test_G01_no_wall_clock_decides_anything(path):
    for node in nodes(path):
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in CLOCKS, f"{path}:{node.lineno}: {ast.unparse(node)}"
    assert not {"time.time", "time.time_ns", "datetime.datetime"} & set(imported(path))
