"""What a run of the smoke study leaves behind and reaches for: no secret, no network, the umask's permissions."""

import base64
import os
import subprocess
import sys

import pytest

from smoke_study import PLANTED, guard_network

pytestmark = pytest.mark.workflow


def forms(secret):
    """The bytes by which `secret` shows in a file: as it is, and inside anything in base64, however it is aligned."""
    text = secret.encode()
    # The first and the last four characters also hold what stands around it.
    shifted = [base64.b64encode(b"---"[:shift] + text)[4:-4] for shift in range(3)]
    return [text, *shifted]


def leaks(folder, secrets):
    """The files below `folder` that hold one of `secrets` (values by name), as (file, name)."""
    wanted = [(name, form) for name, secret in secrets.items() for form in forms(secret)]
    files = [path for path in folder.rglob("*") if path.is_file()]
    read = ((path.relative_to(folder), path.read_bytes()) for path in files)
    return {(str(path), name) for path, content in read for name, form in wanted if form in content}


def test_a_secret_is_found_in_every_form(tmp_path):
    """The search itself: plain, and in base64 of texts that it stands in at three alignments."""
    for shift in range(3):
        text = b"x" * shift + b"key=" + PLANTED["HF_TOKEN"].encode() + b" and more"
        (tmp_path / f"{shift}.txt").write_bytes(base64.b64encode(text))
    (tmp_path / "plain.log").write_text(f"token {PLANTED['HF_TOKEN']}!")
    (tmp_path / "other.log").write_text("planted-")
    found = {(name, "HF_TOKEN") for name in ("0.txt", "1.txt", "2.txt", "plain.log")}
    assert leaks(tmp_path, PLANTED) == found


def test_no_secret_is_written_down(finished):
    """Nowhere: results, logs, Snakemake's own records, what was said in the terminal."""
    assert any((finished / ".snakemake/metadata").iterdir()) and any((finished / "results/smoke/logs").iterdir())
    assert not leaks(finished, PLANTED)


def test_the_network_is_out_of_reach(tmp_path):
    """The guard itself: what is tried beyond this machine fails and is written down, what is tried on it is not."""
    guard_network(tmp_path)
    script = """
import socket
for reach in (
    lambda: socket.create_connection(("192.0.2.1", 80)),
    lambda: socket.getaddrinfo("hub.example", 443),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53)),
    lambda: socket.create_connection(("localhost", 1)),
):
    try:
        reach()
    except OSError as error:
        print(type(error).__name__)
"""
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": "."}, capture_output=True, text=True)
    assert done.stdout.split() == [*["PermissionError"] * 3, "ConnectionRefusedError"]
    tried = [f"tried {host}: script.py" for host in ("192.0.2.1", "hub.example", "192.0.2.1")]
    assert (tmp_path / "network.txt").read_text().splitlines() == ["watched: script.py", *tried]


def test_nothing_reaches_for_a_network(finished):
    lines = (finished / "network.txt").read_text().splitlines()
    watched = {line.removeprefix("watched: ").rpartition("/")[2] for line in lines}
    assert {"snakemake", "base_model.py", "sample_base.py", "train_grpo.py", "score.py", "figure_kl.py"} <= watched
    assert not [line for line in lines if not line.startswith("watched: ")]


def test_results_are_as_readable_as_the_umask_says(finished):
    mask = os.umask(0)
    os.umask(mask)
    files = [path for path in (finished / "results").rglob("*") if not path.is_symlink() and ".work" not in path.parts]
    assert {path.suffix for path in files} >= {".parquet", ".safetensors", ".json", ".html", ".log", ".tsv", ".png"}
    odd = {str(path): oct(path.stat().st_mode) for path in files if path.stat().st_mode & 0o666 != 0o666 & ~mask}
    assert not odd
