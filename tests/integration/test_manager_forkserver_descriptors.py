"""What a forked proxy has open: nothing of its fork server's, and the pipe that libuv made anew at the fork."""

import json
import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path

from cloudtolocalllm.runtime.forkserver import ChildLimits, SpawnRequest


def _open_files(pid: int) -> dict[int, str]:
    folder = Path(f"/proc/{pid}/fd")
    return {int(entry.name): str(entry.readlink()) for entry in folder.iterdir()}


def test_a_proxy_shares_nothing_with_its_fork_server_but_the_standard_streams(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    command = (sys.executable, "-m", "cloudtolocalllm.cli.forkserver")
    with subprocess.Popen(
        command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, cwd="/", start_new_session=True
    ) as server:
        theirs.close()
        with ours, ours.makefile("rb") as lines:
            assert "ready" in json.loads(lines.readline())
            args = {"instance": "px-1", "key": secrets.token_hex(32), "listen": f"unix:{tmp_path}/s", "drain": 0.1}
            request = SpawnRequest("px-1", args, ChildLimits(), str(tmp_path / "record"), {"id": "px-1"})
            ours.sendall(request.to_line())
            pid = json.loads(lines.readline())["pid"]
            try:
                while not (tmp_path / "s").exists():
                    os.kill(pid, 0)  # it lives
                parent, child = _open_files(server.pid), _open_files(pid)
            finally:
                os.kill(pid, 9)
            assert json.loads(lines.readline())["status"] == -9
    inherited = {number for number, target in child.items() if number > 2 and target in parent.values()}
    assert {child[number] for number in inherited} <= {os.devnull}
    ends: dict[str, int] = {}
    for target in child.values():
        if target.startswith("pipe:"):
            ends[target] = ends.get(target, 0) + 1
    assert set(ends.values()) == {2}, "both ends of each pipe: none was closed behind libuv's back"
