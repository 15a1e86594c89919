import asyncio
import gc

import pytest

from cloudtolocalllm.runtime.tasks import TaskSet


async def forever() -> None:
    await asyncio.Event().wait()


async def test_tasks_are_kept_and_forgotten() -> None:
    tasks = TaskSet()
    done = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0)
        gc.collect()
        done.set()

    tasks.start(work(), "work")
    assert len(tasks) == 1
    await asyncio.wait_for(done.wait(), 5)
    await asyncio.sleep(0)
    assert len(tasks) == 0


async def test_a_failure_is_logged_with_the_tasks_name(caplog: pytest.LogCaptureFixture) -> None:
    tasks = TaskSet()

    async def fail() -> None:
        raise RuntimeError("broken")

    task = tasks.start(fail(), "failing")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    (record,) = caplog.records
    assert record.__dict__["task"] == "failing"
    assert "broken" in caplog.text


async def test_close_cancels_and_waits() -> None:
    tasks = TaskSet()
    ended = []

    async def work() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    tasks.start(work(), "work")
    await asyncio.sleep(0)
    await tasks.close()
    assert ended == [True]
    assert len(tasks) == 0


async def test_the_limit_holds() -> None:
    tasks = TaskSet(limit=1)
    tasks.start(forever(), "one")
    with pytest.raises(RuntimeError, match="at most 1 tasks"):
        tasks.start(forever(), "two")  # and the coroutine is closed: no warning that it was never awaited
    await tasks.close()
