"""`cloudtolocalllm rollout`: replaces services of a platform that Compose runs. The standard library only."""

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cloudtolocalllm
from cloudtolocalllm.ops.engine import Engine, OpsError, Programs
from cloudtolocalllm.ops.rollout import IMAGE_OF_PROXIES, Options, Rollout
from cloudtolocalllm.ops.rollout_plan import SERVICES
from cloudtolocalllm.runtime import locks

LOCK = ".rollout.lock"
CHECKOUT = Path(cloudtolocalllm.__file__).parents[2] / "deploy" / "compose"


def rollout(options: argparse.Namespace) -> int:
    """Replace what is named; return 0, 1 when it could not be, 2 when the command is wrong."""
    folder = (options.project_dir or CHECKOUT).absolute()
    if not (folder / "docker-compose.yml").is_file():
        return _fail(f"expected docker-compose.yml in {folder}; name its folder with --project-dir", 2)
    if options.service not in (*SERVICES, IMAGE_OF_PROXIES, "all"):
        return _fail(f"expected one of {', '.join((*SERVICES, IMAGE_OF_PROXIES))} or all, got another", 2)
    try:
        if options.finish:
            made = _made(folder, options)
            made.finish(made.known(options.service), options.finish)
            return 0
        with _alone(folder):
            made = _made(folder, options)
            if options.service == "all":
                made.all()
            elif options.service == IMAGE_OF_PROXIES:
                made.proxies()
            else:
                made.service(options.service)
    except OpsError as error:
        return _fail(str(error), 1)
    return 0


def _made(folder: Path, options: argparse.Namespace) -> Rollout:
    programs = Programs(folder)

    def finish(service: str, ids: Sequence[str]) -> None:
        _in_background(folder, service, ids, options.drain)

    wanted = Options(options.force, options.wait, options.at_a_time, options.start_timeout, options.drain)
    return Rollout(Engine(programs), programs, wanted, lambda line: print(line, flush=True), finish)


def _in_background(folder: Path, service: str, ids: Sequence[str], drain: int | None) -> None:
    """Have a process of its own wait for containers and remove them; it outlives this one and its terminal."""
    words = [sys.executable, "-m", "cloudtolocalllm", "rollout", service, "--project-dir", str(folder)]
    words += [] if drain is None else ["--drain", str(drain)]
    subprocess.Popen(  # noqa: S603 - our own program
        [*words, "--finish", *ids],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Have no second rollout of the same project at the same time."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.held(folder / LOCK))
        except locks.HeldError:
            raise OpsError("expected no other rollout of this platform, but one is under way; wait for it") from None
        except OSError as error:
            raise OpsError(f"cannot write {folder / LOCK}: {error.strerror}") from None
        yield


def _fail(text: str, status: int) -> int:
    sys.stderr.write(f"cloudtolocalllm rollout: {text}\n")
    return status
