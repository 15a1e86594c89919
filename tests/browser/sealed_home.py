"""A scripted home that is asked sealed: it pairs whoever brings its link, and answers with a test's documents."""

import json
import secrets
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from playwright.sync_api import Page, expect

from cloudtolocalllm.contracts.problems import CONTENT_TYPE, Problem, problem_content
from cloudtolocalllm.sealed import ohttp, pairing, statement
from cloudtolocalllm.sealed.bhttp import Content, RequestHead, ResponseHead
from cloudtolocalllm.sealed.exchange import RequestReader, ResponseWriter
from cloudtolocalllm.sealed.fingerprint import fingerprint
from cloudtolocalllm.sealed.key_ring import KeyRing
from cloudtolocalllm.sealed.ohttp import RequestOpener
from cloudtolocalllm.sealed.pairing import PairingLink

Clear = tuple[int, str, bytes]
"""Status, media type and content, as the cloud passes them on."""


class SealedHome:
    """One home. Who asks is not looked at: that the page proves it is for the tests with the real gateway."""

    def __init__(self, bridge_id: str) -> None:
        self.bridge_id = bridge_id
        self.offline = False
        """The cloud says that it is not connected."""
        self.documents: dict[tuple[str, str], Any] = {
            ("GET", "/c2l/home"): {
                "version": "0.1.0", "epoch": "e", "newest": 0, "notice": "", "used_bytes": 0, "quota_bytes": 1,
            },
            ("GET", "/c2l/changes/events"): {"epoch": "e", "changes": [], "newest": 0},
            ("GET", "/c2l/conversations"): {"conversations": [], "next": None},
            ("GET", "/c2l/runs"): {"runs": []},
            ("GET", "/c2l/devices"): {"devices": [], "own": None},
            ("GET", "/c2l/models"): {"models": [], "pulls": []},
        }  # fmt: skip
        """What is answered, by method and path; anything else is not found."""
        self.asked: list[tuple[str, str]] = []
        """Method and path of what was opened."""
        self._identity = Ed25519PrivateKey.generate()
        self._ring = KeyRing.new(secrets.token_bytes(32), time.time())
        self._secret = secrets.token_bytes(32)

    @property
    def path(self) -> str:
        return f"/e2e/{self.bridge_id}"

    @property
    def fragment(self) -> str:
        """Of a link that pairs, any number of times."""
        pinned = fingerprint(self._identity.public_key().public_bytes_raw())
        return PairingLink(self.bridge_id, pinned, self._secret).fragment

    def pair(self, page: Page, url: str) -> None:
        """Pair the browser of somebody who is signed in at this address."""
        page.goto(f"{url}/pair#{self.fragment}")
        page.get_by_role("button", name="Pair this browser").click()
        expect(page.get_by_role("heading", name="This browser is paired")).to_be_visible()

    def answer(self, method: str, media_type: str, content: bytes) -> Clear:
        """Answer what the cloud passes on."""
        if self.offline:
            problem = Problem.BRIDGE_OFFLINE
            return problem.value.status, CONTENT_TYPE, problem_content(problem, "Wake the machine.")
        if method == "GET":
            claims = statement.state_keys(self._ring, self.bridge_id, time.time())
            return 200, "application/c2l-keys+jwt", statement.sign(claims, self._identity).encode()
        pairs = media_type == pairing.REQUEST_TYPE
        given: dict[str, Any] = {"secrets": lambda _: self._secret} if pairs else {}
        opener = RequestOpener(lambda key_id: self._ring.private_key(key_id, time.time()), **given)
        reader = RequestReader(opener)
        events = reader.receive_data(content) + reader.end()
        (head,) = [event for event in events if isinstance(event, RequestHead)]
        body = b"".join(event.data for event in events if isinstance(event, Content))
        status, document = self._document(head, body)
        kind = b"application/json" if status < 400 else CONTENT_TYPE.encode()
        writer = ResponseWriter(opener.response(secrets.token_bytes(16)))
        data = writer.start(ResponseHead(status, ((b"content-type", kind),)))
        data += writer.write(document, 0) + writer.finish()
        return 200, pairing.RESPONSE_TYPE if pairs else ohttp.RESPONSE_TYPE, data

    def _document(self, head: RequestHead, body: bytes) -> tuple[int, bytes]:
        asked = head.method.decode(), head.path.decode().partition("?")[0]
        self.asked.append(asked)
        if asked == ("POST", "/c2l/devices"):
            said = pairing.read_introduction(body)
            return 201, json.dumps({"id": said.device_id, "paired": True}).encode()
        found = self.documents.get(asked)
        if found is None:
            return 404, problem_content(Problem.NOT_FOUND, "There is nothing like it.")
        return 200, json.dumps(found() if callable(found) else found).encode()
