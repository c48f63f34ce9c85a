"""The page's process as the supervisor sees it: what it is told, and when it is started again."""

import itertools
import json
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ovpipe.errors import PreflightError
from ovpipe.spec import HttpSpec
from ovpipe.supervisor.page import Page
from tests.support.page import TOKEN, graph
from tests.support.processes import wait_for

OF = replace(graph(), http=HttpSpec("127.0.0.1", 0, TOKEN))


def program(folder, text):
    """An interpreter that does something else."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_one_that_dies_at_once_is_tried_ever_more_rarely(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", program(tmp_path, "echo of its own >&2; exit 3"))
    said, now, starts = [], 0.0, []
    with Page(OF, tmp_path, said.append) as page:
        for _ in range(12):
            starts.append(now)
            page.look(now)
            wait_for(lambda: page._process.poll() is not None, "its death")
            page.look(now)
            assert page._process is None
            page.look(page._due_s - 0.01)
            assert page._process is None  # not yet
            now = page._due_s
    delays = [b - a for a, b in itertools.pairwise(starts)]
    assert delays[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert delays[-1] == pytest.approx(30.0)
    assert said[0].startswith("page: http://127.0.0.1:")
    assert said[1:3] == [
        "page: of its own",
        "page: its process ended (3); the run goes on; another one in 0.1 s",
    ]


def test_one_that_lived_is_soon_started_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", program(tmp_path, "exit 3"))
    with Page(OF, tmp_path, lambda text: None) as page:
        for _ in range(3):
            page.look(page._due_s)
            wait_for(lambda: page._process.poll() is not None, "its death")
            page.look(page._due_s)
        assert page._delay_s > 0.5
        page.look(page._due_s)
        wait_for(lambda: page._process.poll() is not None, "its death")
        page.look(page._began_s + 31)
        assert page._due_s == pytest.approx(page._began_s + 31.1)


def test_what_it_is_told_has_no_option_and_no_argument_a_secret(tmp_path, monkeypatch):
    told, called = tmp_path / "told", tmp_path / "called"
    script = f"echo $* > {called}.new; env >> {called}.new; cat > {told}; mv {called}.new {called}"
    monkeypatch.setattr(sys, "executable", program(tmp_path, script))
    with Page(OF, tmp_path, lambda text: None) as page:
        page.look(0.0)
        wait_for(called.exists, "what it was called with")
    assert TOKEN not in called.read_text()
    values = json.loads(told.read_text())
    assert values["token"] == TOKEN
    assert values["folder"] == str(tmp_path)
    assert "hunter2" not in told.read_text()
    assert all(w["options"] == {} for s in values["graph"]["stages"] for w in s["workers"])


def test_its_address_is_free_afterwards_and_refused_before(tmp_path):
    said = []
    with Page(OF, tmp_path, said.append) as page:
        port = int(said[0].rpartition(":")[2].strip("/"))
        other = Page(replace(OF, http=HttpSpec("127.0.0.1", port)), tmp_path, said.append)
        with pytest.raises(
            PreflightError, match=f"cannot listen on 127.0.0.1:{port}: Address already"
        ):
            other.__enter__()
        page.close()
        page.close()
    socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "203.0.113.7"])
def test_an_address_that_is_not_of_this_machine(host, tmp_path):
    page = Page(replace(OF, http=HttpSpec(host, 0, TOKEN)), tmp_path, print)
    with pytest.raises(PreflightError, match=f"the page cannot listen on {host}:0"):
        page.__enter__()


def test_without_http_nothing_is_done(tmp_path):
    said = []
    with Page(graph(), Path("/nowhere"), said.append) as page:
        page.look(0.0)
        assert page._process is None
    assert said == []
