"""A revoked bridge is cut wherever its user has an instance, and nowhere else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from tests.support.manager_parts import Parts, running

from cloudtolocalllm.audit.auditor import Auditor
from cloudtolocalllm.auth.services import ServiceKeys, ServiceTokens, ServiceVerifier
from cloudtolocalllm.manager.http import make_app


async def test_a_users_instance_is_told() -> None:
    async with running() as parts:
        await parts.reconciler.ensure("ann")
        await parts.reconciler.ensure("bob")
        await parts.reconciler.disconnect("ann", "br-1")
        assert parts.probe.cut == [("ann", "br-1")]


async def test_a_user_without_one_needs_nothing() -> None:
    async with running() as parts:
        await parts.reconciler.disconnect("ann", "br-1")
        assert parts.probe.cut == []
        assert parts.driver.running == {}, "expected none to be made for it"


async def test_an_instance_that_does_not_do_it_is_ended() -> None:
    async with running() as parts:
        await parts.reconciler.ensure("ann")
        await parts.reconciler.ensure("bob")
        parts.driver.of("ann").answers = False
        await parts.reconciler.disconnect("ann", "br-1")
        await parts.until(lambda: [one.user for one in parts.driver.running.values()] == ["bob"])
        assert [grace for _, grace in parts.driver.stopped] == [0.0]


@asynccontextmanager
async def calling(parts: Parts, folder: Path, caller: str = "api") -> AsyncIterator[httpx.AsyncClient]:
    public = folder / "public"
    tokens = ServiceTokens(ServiceKeys(folder, caller, parts.clock, public=public), parts.clock)
    verifier = ServiceVerifier("manager", public, ("api",), parts.clock)
    app = make_app(parts.reconciler, verifier, parts.clock, Auditor(None, service="manager", clock=parts.clock))
    headers = {"authorization": f"Bearer {tokens.mint('manager')}"}
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://manager", headers=headers) as client:
        yield client


async def test_the_route_cuts(tmp_path: Path) -> None:
    async with running() as parts, calling(parts, tmp_path) as client:
        await parts.reconciler.ensure("ann")
        response = await client.post("/v1/instances/ann/disconnect", json={"bridge": "br-1"})
        assert response.status_code == 204
        assert parts.probe.cut == [("ann", "br-1")]


@pytest.mark.parametrize("body", [{}, {"bridge": ""}, {"bridge": "a/b"}, {"bridge": "x" * 65}, {"bridge": 7}, []])
async def test_a_malformed_bridge_is_refused(tmp_path: Path, body: object) -> None:
    async with running() as parts, calling(parts, tmp_path) as client:
        await parts.reconciler.ensure("ann")
        response = await client.post("/v1/instances/ann/disconnect", json=body)
        assert response.status_code == 400
        assert parts.probe.cut == []


async def test_a_stranger_may_not(tmp_path: Path) -> None:
    async with running() as parts, calling(parts, tmp_path, "proxy") as client:
        await parts.reconciler.ensure("ann")
        for headers in ({}, {"authorization": "Bearer wrong"}):
            response = await client.post("/v1/instances/ann/disconnect", json={"bridge": "br-1"}, headers=headers)
            assert response.status_code == 401
        assert parts.probe.cut == []
