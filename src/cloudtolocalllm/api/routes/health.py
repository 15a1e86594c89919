"""Whether the process lives and can serve."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from cloudtolocalllm.api.models import Health, Readiness
from cloudtolocalllm.api.parts import Parts, parts_of

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> Health:
    """Tell that the process lives."""
    return Health(status="ok")


@router.get("/readyz", responses={503: {"model": Readiness, "description": "Not ready"}})
async def readyz(parts: Annotated[Parts, Depends(parts_of)], response: Response) -> Readiness:
    """Tell whether requests can be served: whether the manager answers."""
    reachable = await parts.manager.reachable()
    if not reachable:
        response.status_code = 503
    return Readiness(status="ready" if reachable else "not-ready", manager=reachable)
