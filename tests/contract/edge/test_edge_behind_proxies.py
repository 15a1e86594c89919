"""Reverse proxies in front: whom the edge believes about the client's address and scheme."""

import pytest
from tests.contract.edge.conftest import EdgeMaker

PROXY, OTHER_PROXY, STRANGER = "127.0.0.9", "127.0.0.77", "127.0.0.2"
TRUSTED = f"{PROXY}/32, 127.0.0.64/28, 2001:db8:1::/48"

FORWARDED = [
    (["192.0.2.7"], "192.0.2.7"),
    (["203.0.113.1, 192.0.2.7"], "192.0.2.7"),  # the client wrote the first one itself
    (["127.0.0.1, 192.0.2.7"], "192.0.2.7"),
    ([f"203.0.113.1, 192.0.2.7, {OTHER_PROXY}"], "192.0.2.7"),
    ([f"203.0.113.1, 192.0.2.7 ,{OTHER_PROXY},127.0.0.70"], "192.0.2.7"),
    (["203.0.113.1", "192.0.2.7"], "192.0.2.7"),  # two fields are one list
    (["2001:db8::7"], "2001:db8::7"),
    (["2001:DB8:0:0::7"], "2001:db8::7"),
    (["::ffff:192.0.2.7"], "192.0.2.7"),
    (["192.0.2.7:4711"], "192.0.2.7"),
    (["[2001:db8::7]:4711"], "2001:db8::7"),
    (["192.0.2.7, unknown"], PROXY),
    ([f"192.0.2.7, nonsense, {OTHER_PROXY}"], OTHER_PROXY),
    (["192.0.2.7, "], PROXY),
    (["192.0.2.7, <script>"], PROXY),
    ([], PROXY),
    ([", ".join(["203.0.113.9"] * 3000)], "203.0.113.9"),
    ([", ".join(["192.0.2.7", *[OTHER_PROXY] * 40])], OTHER_PROXY),  # nobody has so many proxies
]


@pytest.mark.parametrize(("fields", "address"), FORWARDED, ids=range(len(FORWARDED)))
async def test_a_trusted_proxy_names_the_client(make_edge: EdgeMaker, fields: list[str], address: str) -> None:
    async with make_edge(trusted_proxies=TRUSTED) as edge:
        if sum(map(len, fields)) > 30_000:
            fields = [fields[0][:20_000].rpartition(",")[0]]
        await edge.get("/api/x", *(f"X-Forwarded-For: {text}" for text in fields), source=PROXY)
        assert edge.api.requests[0].one("x-forwarded-for") == address


async def test_anybody_else_does_not(make_edge: EdgeMaker) -> None:
    async with make_edge(trusted_proxies=TRUSTED) as edge:
        forged = ("X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https", "X-Real-Ip: 192.0.2.7")
        await edge.get("/api/x", *forged, source=STRANGER)
        (request,) = edge.api.requests
        assert (request.one("x-forwarded-for"), request.one("x-forwarded-proto")) == (STRANGER, "http")
        assert request.one("x-real-ip") is None


@pytest.mark.parametrize(
    ("fields", "scheme"),
    [
        (["https"], "https"),
        (["HTTPS"], "https"),
        (["http"], "http"),
        (["https, http"], "http"),
        (["http, https"], "https"),
        (["http", "https"], "https"),
        (["wss"], "http"),
        (["https;"], "http"),
        ([], "http"),
    ],
)
async def test_the_scheme_is_the_nearest_proxys_word(make_edge: EdgeMaker, fields: list[str], scheme: str) -> None:
    async with make_edge(trusted_proxies=TRUSTED) as edge:
        await edge.get("/api/x", *(f"X-Forwarded-Proto: {text}" for text in fields), source=PROXY)
        assert edge.api.requests[0].one("x-forwarded-proto") == scheme


async def test_clients_behind_a_proxy_are_limited_one_by_one(make_edge: EdgeMaker) -> None:
    async with make_edge(trusted_proxies=TRUSTED, limits={"api": "1/h burst 2"}, connections=1) as edge:
        for source, names, expected in (
            (PROXY, "192.0.2.7", [200, 200, 429]),
            (OTHER_PROXY, "203.0.113.1, 192.0.2.7", [429]),  # by whichever way, and whatever it claims
            (PROXY, "192.0.2.8", [200]),
            (PROXY, "2001:db8::1", [200, 200, 429]),
            (PROXY, "2001:db8::ffff:2", [429]),  # the same network of 64 bits
            (PROXY, "2001:db8:0:1::1", [200]),
            (STRANGER, "192.0.2.9", [200, 200, 429]),
            (STRANGER, "192.0.2.10", [429]),  # a stranger's word does not count
        ):
            got = [(await edge.get("/api/x", f"X-Forwarded-For: {names}", source=source)).status for _ in expected]
            assert got == expected, (source, names)


async def test_connections_of_a_trusted_proxy_are_not_limited(make_edge: EdgeMaker) -> None:
    async with make_edge(trusted_proxies=TRUSTED, connections=1) as edge:
        held = [await edge.connect(PROXY) for _ in range(8)]
        assert (await edge.get("/healthz", source=PROXY)).status == 200
        for _, writer in held:
            writer.close()


async def test_proxies_never_learn_the_clients_address(make_edge: EdgeMaker) -> None:
    async with make_edge(trusted_proxies=TRUSTED) as edge:
        await edge.get("/v1/models", "X-Forwarded-For: 192.0.2.7", source=PROXY)
        assert "192.0.2.7" not in str(edge.proxy.requests[0].fields)
