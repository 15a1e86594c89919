"""The composition root of one API process: every part, made once and joined to the others."""

import contextlib
import functools
from collections.abc import AsyncIterator
from dataclasses import dataclass

from cloudtolocalllm.api.audit import Auditor
from cloudtolocalllm.api.authorize import Authorizer
from cloudtolocalllm.api.bridge_verifier import DpopVerifier
from cloudtolocalllm.api.control import ControlHub
from cloudtolocalllm.api.identity import Identifier
from cloudtolocalllm.api.manager_client import ManagerClient
from cloudtolocalllm.api.oidc.setup import sign_in_of
from cloudtolocalllm.api.pairing import PairingDesk
from cloudtolocalllm.api.parts import Parts
from cloudtolocalllm.api.presence import Presences
from cloudtolocalllm.api.registry import Registry
from cloudtolocalllm.api.revocations import Revocations
from cloudtolocalllm.api.secrets import load_pseudonym_key, load_sealing_keys, load_signing_ring
from cloudtolocalllm.api.settings import ApiSettings
from cloudtolocalllm.api.state.open import open_bus, open_state
from cloudtolocalllm.api.status import StatusReader
from cloudtolocalllm.api.waker import Waker
from cloudtolocalllm.auth import tokens
from cloudtolocalllm.auth.dpop import Nonces
from cloudtolocalllm.auth.keys import KeyVerifier
from cloudtolocalllm.auth.services import ServiceKeys, ServiceTokens
from cloudtolocalllm.auth.sessions import Sealer
from cloudtolocalllm.runtime.clock import Clock


@dataclass(frozen=True, slots=True)
class Composition:
    """What a process serves with."""

    parts: Parts
    hub: ControlHub


@contextlib.asynccontextmanager
async def composed(config: ApiSettings, clock: Clock, auditor: Auditor) -> AsyncIterator[Composition]:
    """Make the parts; let go of the state, the manager and the provider at the end.

    Args:
        config: The settings.
        clock: Everybody's.
        auditor: Everybody's.

    Raises:
        StateError: The state's file is not usable.
        StateUnavailableError: The state does not answer, so what is revoked cannot be known.
        SecretsError: A file of keys is not usable.
        ServiceKeysError: The key pair for calls to other services is not usable.
        SettingsError: The settings do not fit together.
    """
    ring = load_signing_ring(config.secrets_dir)
    sealer = Sealer(load_sealing_keys(config.secrets_dir))
    pseudonym_key = load_pseudonym_key(config.secrets_dir)
    calls = ServiceTokens(ServiceKeys(config.service_keys_dir, "api", clock), clock)
    async with contextlib.AsyncExitStack() as stack:
        state = await open_state(config.state, config.database, clock)
        stack.push_async_callback(state.close)
        bus = open_bus(config.state)
        to_manager = functools.partial(calls.mint, "manager")
        manager = ManagerClient(config.manager, to_manager, timeout=config.manager_timeout, clock=clock)
        stack.push_async_callback(manager.close)
        revocations = Revocations(state, bus, clock)
        await revocations.load()
        presences = Presences(bus)
        replica = config.replica or tokens.random_id(tokens.ID_LENGTH)
        registry = Registry(state, presences, revocations, bus, clock, replica=replica)
        waker = Waker(bus, state, clock)
        registry.on_joined = waker.joined
        keys = KeyVerifier(ring, clock)
        identifier = Identifier(sealer, keys, revocations, clock, secure=config.secure, auditor=auditor)
        verifier = DpopVerifier(
            ring, Nonces.of_ring(ring), state, revocations, clock, public_url=config.public_url, auditor=auditor
        )
        provider = sign_in_of(
            config,
            sealer=sealer,
            state=state,
            revocations=revocations,
            pseudonym_key=pseudonym_key,
            auditor=auditor,
            clock=clock,
        )
        if provider is not None:
            stack.push_async_callback(provider[1].close)
        parts = Parts(
            state=state,
            registry=registry,
            revocations=revocations,
            ring=ring,
            pseudonym_key=pseudonym_key,
            sealer=sealer,
            identifier=identifier,
            authorizer=Authorizer(
                identifier,
                verifier,
                registry,
                manager,
                waker,
                clock,
                scheme="https" if config.secure else "http",
                limits=config.user_limits,
                auditor=auditor,
            ),
            bus=bus,
            manager=manager,
            status=StatusReader(registry, manager, clock),
            clock=clock,
            secure=config.secure,
            bridges=verifier,
            pairing=PairingDesk(state, registry, ring, clock),
            public_url=config.public_url,
            auditor=auditor,
            audit_folder=None if config.audit.folder is None else config.audit.folder.parent,
            sign_in=provider[0] if provider is not None else None,
        )
        yield Composition(
            parts, ControlHub(identifier, verifier, presences, registry, revocations, waker, bus, clock)
        )
