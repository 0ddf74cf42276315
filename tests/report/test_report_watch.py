"""``verl-twgrpo watch``: loopback only, the page's files only, and an end that leaves nothing behind."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from verl_twgrpo.report.watch import serve

from .dumps import write_groups

GROUP = {"id": "q", "question": "?", "truth": "A", "texts": ["<answer>A</answer>"] * 2, "rewards": [2.0, 0.0]}


@pytest.fixture
def served(tmp_path):
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "index.html").write_text("the page")
    (folder / "data").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "data" / "link.txt").symlink_to(tmp_path / "secret.txt")
    with serve(folder) as address:
        yield urlsplit(address)


def get(address, path, host=None):
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=5)
    connection.putrequest("GET", path, skip_host=True)  # as it is: a client would tidy the path
    connection.putheader("Host", host or address.netloc)
    connection.endheaders()
    response = connection.getresponse()
    return response.status, response.read().decode()


def test_the_page_is_served_on_the_loopback_address_only(served):
    assert served.hostname == "127.0.0.1"
    assert get(served, "/") == (200, "the page")
    others = [info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]
    for address in {other for other in others if not other.startswith("127.")}:
        with pytest.raises(OSError):
            socket.create_connection((address, served.port), timeout=2)


@pytest.mark.parametrize(
    "path",
    [
        *("/../secret.txt", "/%2e%2e/secret.txt", "/data/../../secret.txt", "/..%2fsecret.txt", "//etc/passwd"),
        *("/data/..%5c..%5csecret.txt", "/data/link.txt", "/data/", "/%00", "/index.html/../../secret.txt"),
    ],
)
def test_no_path_outside_the_page_is_served(served, path):
    status, body = get(served, path)
    assert status == 404
    assert "secret" not in body.replace("secret.txt", "")


def test_a_page_elsewhere_cannot_read_the_run_under_its_own_name(served):
    assert get(served, "/", host=f"evil.example:{served.port}")[0] == 403
    assert get(served, "/", host=f"localhost:{served.port}")[0] == 200


@pytest.mark.slow  # a process of its own, which is interrupted as a person does it
def test_an_interrupt_ends_it_and_leaves_the_run_and_the_temporary_folder_clean(tmp_path):
    run, temporary = tmp_path / "run", tmp_path / "tmp"
    temporary.mkdir()
    write_groups(run, 1, [GROUP])
    before = sorted(run.rglob("*"))
    process = subprocess.Popen(
        [sys.executable, "-m", "verl_twgrpo.cli", "watch", str(run), "--every", "0.2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    try:
        address = urlsplit(process.stdout.readline().split()[0])
        assert get(address, "/data/version.js") == (200, "Report.version(1);\n")
        assert "step_000001" not in get(address, "/data/groups.js")[1]
        write_groups(run, 2, [GROUP])
        assert process.stdout.readline().rstrip().endswith("step 2")
        assert get(address, "/data/version.js") == (200, "Report.version(2);\n")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert said.strip() == "verl-twgrpo: interrupted; the run goes on, and its files are as they were"
    assert list(temporary.iterdir()) == []
    assert [path for path in sorted(run.rglob("*")) if "2" not in path.stem] == before


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    import argparse

    from verl_twgrpo.report import watch

    parser = argparse.ArgumentParser()
    watch.add_arguments(parser)
    with pytest.raises(ValueError, match="no such run directory"):
        watch.run(parser.parse_args([str(tmp_path / "none")]))
