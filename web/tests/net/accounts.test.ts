import { describe, expect, it } from "vitest";
import { decodeAudit, decodeOverview, isPseudonym } from "@/net/admin";
import { signInAddress } from "@/net/api";
import { retryAfterOf, segment } from "@/net/call";
import { decodeKey, encodeKeyRequest } from "@/net/keys";
import { isLoopback, isProviderAddress } from "@/net/loopback";
import { decodePairingRequest, normalCode } from "@/net/pairing";

describe("isLoopback", () => {
  it.each([
    "http://127.0.0.1:4711/callback?code=a&state=b",
    "http://localhost/callback",
    "http://[::1]:8000/callback",
  ])("takes %s", (address) => {
    expect(isLoopback(address)).toBe(true);
  });

  it.each([
    "https://127.0.0.1:4711/callback",
    "http://127.0.0.1.example.com/callback",
    "http://127.0.0.1@example.com/",
    "http://user@127.0.0.1/",
    "http://:secret@localhost/",
    "http://example.com/#http://127.0.0.1",
    "http://localhost.example.com/",
    "http://0.0.0.0/",
    "javascript:alert(1)",
    "file:///etc/passwd",
    "//127.0.0.1/",
    "/callback",
    "",
  ])("refuses %s", (address) => {
    expect(isLoopback(address)).toBe(false);
  });
});

describe("isProviderAddress", () => {
  it("takes https, and http only on this computer", () => {
    expect(isProviderAddress("https://login.example.com/logout?x=y")).toBe(true);
    expect(isProviderAddress("http://127.0.0.1:9000/logout")).toBe(true);
    expect(isProviderAddress("http://login.example.com/logout")).toBe(false);
    expect(isProviderAddress("javascript:alert(1)")).toBe(false);
    expect(isProviderAddress("data:text/html,x")).toBe(false);
    expect(isProviderAddress("https://a:b@login.example.com/")).toBe(false);
  });
});

describe("normalCode", () => {
  it.each(["BCDF-GHJK", "bcdfghjk", " bcdf ghjk ", "bcdf\u2013ghjk", "b-c-d-f-g-h-j-k"])(
    "reads %j",
    (typed) => {
      expect(normalCode(typed)).toBe("BCDF-GHJK");
    },
  );

  it.each(["", "BCDF-GHJ", "BCDF-GHJKL", "BCDF/GHJK", "../../x", "BCDF-GHJÄ"])("refuses %j", (typed) => {
    expect(normalCode(typed)).toBeNull();
  });
});

describe("decodePairingRequest", () => {
  const document = {
    name: "tower",
    address: "203.0.113.7",
    requested: 10,
    expires: 310,
    version: "0.1.0",
    kind: "device",
  };

  it("reads a document", () => {
    expect(decodePairingRequest(document)).toEqual({ ...document, requested: 10_000, expires: 310_000 });
  });

  it("says what it does not know", () => {
    const bare = { ...document, address: "", version: "", requested: undefined };
    expect(decodePairingRequest(bare)).toMatchObject({
      address: "unknown",
      version: "unknown",
      requested: null,
    });
  });

  it.each([null, {}, { ...document, name: 1 }, { ...document, kind: "other" }])("refuses %j", (value) => {
    expect(() => decodePairingRequest(value)).toThrow(/^expected /);
  });
});

describe("keys", () => {
  it("reads a list, with members that are missing or null as no limit", () => {
    const bare = { id: "a", name: "Laptop", created: 1, expires: 2, last_used: null, routes: null };
    const limited = {
      ...bare,
      id: "b",
      last_used: 3,
      routes: ["/v1/"],
      models: ["qwen*"],
      requests_per_minute: 5,
      tokens_per_day: 6,
      bridge: "b1",
      revoked: true,
    };
    const [first, second] = [bare, limited].map(decodeKey);
    expect(first).toMatchObject({ created: 1_000, lastUsed: null, routes: [], models: [], revoked: false });
    expect(second).toMatchObject({
      lastUsed: 3_000,
      routes: ["/v1/"],
      models: ["qwen*"],
      requestsPerMinute: 5,
      tokensPerDay: 6,
      bridge: "b1",
      revoked: true,
    });
  });

  it.each([null, {}, { id: 1 }, { id: "a", routes: [1] }, { id: "a", models: "x" }])(
    "refuses %j",
    (value) => {
      expect(() => decodeKey(value)).toThrow(/^expected /);
    },
  );

  it("sends only the limits that there are", () => {
    const none = { routes: [], models: [], requestsPerMinute: null, tokensPerDay: null, bridge: null };
    expect(encodeKeyRequest({ name: "n", days: 30, ...none })).toEqual({ name: "n", days: 30 });
    expect(
      encodeKeyRequest({ name: "n", days: 7, ...none, routes: ["/v1/"], requestsPerMinute: 1, bridge: "b" }),
    ).toEqual({ name: "n", days: 7, routes: ["/v1/"], requests_per_minute: 1, bridge: "b" });
  });
});

describe("admin documents", () => {
  it("reads an overview, with figures that are not known", () => {
    expect(decodeOverview({ bridges_connected: 2, instances: null, version: "1", sign_up: "open" })).toEqual({
      bridgesConnected: 2,
      instances: null,
      usersActive: null,
      version: "1",
      signUp: "open",
      provider: null,
    });
  });

  it("reads events, and refuses what is none", () => {
    expect(decodeAudit({ events: [{ time: 1, event: "session.signed-in", user: "u_a" }] })).toEqual([
      { time: 1_000, event: "session.signed-in", outcome: "", user: "u_a", reason: null },
    ]);
    expect(() => decodeAudit({ events: [{}] })).toThrow(/^expected /);
  });

  it("tells pseudonyms from anything that would lead elsewhere", () => {
    expect(isPseudonym("u_guq5pi4vzry6glg2sssi")).toBe(true);
    for (const other of ["", "..", "a/b", "a b", "a".repeat(65)]) expect(isPseudonym(other)).toBe(false);
  });
});

describe("addresses of calls", () => {
  it("keeps an id within its segment", () => {
    expect(segment("BCDF-GHJK")).toBe("BCDF-GHJK");
    for (const id of ["..", ".", "../../auth/keys", "a?b", "a#b"]) {
      const { pathname, search, hash } = new URL(`/x/${segment(id)}/y`, "https://own.invalid");
      expect(pathname).toMatch(/^\/x\/[^/]+\/y$/);
      expect(search + hash).toBe("");
    }
  });

  it("brings the way back along to the provider", () => {
    const address = signInAddress({ id: "oidc", name: "Example" }, "/pair?code=BCDF-GHJK&x=1");
    expect(address).toBe("/api/auth/oidc/start?return_to=%2Fpair%3Fcode%3DBCDF-GHJK%26x%3D1");
  });

  it.each([
    [null, null],
    ["", null],
    ["-1", null],
    ["Wed, 21 Oct 2026 07:28:00 GMT", null],
    ["0", 1],
    ["30", 30],
    ["999999999", 3_600],
  ])("reads Retry-After %j as %j", (field, seconds) => {
    expect(retryAfterOf(field)).toBe(seconds);
  });
});
