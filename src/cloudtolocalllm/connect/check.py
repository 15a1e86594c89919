"""Asks every home once, and tells how it is."""

import asyncio
from dataclasses import dataclass
from typing import Final

from cloudtolocalllm.connect import lists
from cloudtolocalllm.connect.errors import Fault, HomeError
from cloudtolocalllm.connect.home_client import InnerRequest, whole
from cloudtolocalllm.connect.household import HomeState
from cloudtolocalllm.connect.refusals import is_problem, read_problem
from cloudtolocalllm.contracts.problems import Problem

TIMEOUT: Final = 20.0
"""Seconds for each home."""
_TARGET: Final = "/v1/models"
"""The one list that every engine has."""


@dataclass(frozen=True, slots=True)
class Finding:
    """How one home is."""

    name: str
    good: bool
    detail: str


async def check(states: list[HomeState]) -> list[Finding]:
    """Ask every home for its models, all at once."""
    return list(await asyncio.gather(*(_check(state) for state in states)))


async def _check(state: HomeState) -> Finding:
    try:
        async with asyncio.timeout(TIMEOUT):
            return await _ask(state)
    except HomeError as error:
        return Finding(state.home.name, False, error.detail)
    except TimeoutError:
        return Finding(state.home.name, False, "It gave no answer in time.")


async def _ask(state: HomeState) -> Finding:
    try:
        answer = await state.client.ask(InnerRequest("GET", _TARGET))
    except HomeError as error:
        if error.fault is not Fault.STALE_KEY:
            raise
        answer = await state.client.ask(InnerRequest("GET", _TARGET))
    try:
        head, content = await whole(answer)
    finally:
        answer.close()
    name = state.home.name
    if head.status == 200:
        models = lists.entries(content, "data") or []
        return Finding(name, True, f"answers, sealed; {len(models)} model{'' if len(models) == 1 else 's'}")
    said = read_problem(content).detail if is_problem(head.fields) else ""
    if head.status == Problem.UNAUTHENTICATED.value.status:
        return Finding(name, False, f"{said} This computer is not paired there any more; pair it again.".strip())
    return Finding(name, False, said or f"It answers with status {head.status}.")
