import { describe, expect, it } from "vitest";
import { decodeSession } from "@/net/api";
import { backoffMs } from "@/net/backoff";
import { isPassing, problemFrom } from "@/net/problem";
import { decodeStatus } from "@/net/status";

describe("decodeStatus", () => {
  const document = {
    state: "ready",
    bridges: [
      {
        id: "b1",
        name: "tower",
        connected: true,
        since: "2026-01-02T03:04:05Z",
        last_seen: 1_767_323_045,
        version: "0.1.0",
        engines: [{ id: "e1", kind: "ollama", state: "up" }],
      },
    ],
    proxy: null,
  };

  it("reads a document", () => {
    const status = decodeStatus(document);
    expect(status.state).toBe("ready");
    expect(status.bridges[0]).toMatchObject({ name: "tower", connected: true, lastSeen: 1_767_323_045_000 });
    expect(status.bridges[0]?.engines).toEqual([{ id: "e1", kind: "ollama", state: "up" }]);
  });

  it("reads ISO times, a missing name, and an engine of a later kind", () => {
    const bridge = {
      id: "b1",
      connected: false,
      last_seen: "1970-01-01T00:00:01Z",
      engines: [{ id: "e", kind: "new", state: "up" }],
    };
    const status = decodeStatus({ state: "bridge-offline", bridges: [bridge] });
    expect(status.bridges[0]).toMatchObject({ name: "b1", lastSeen: 1_000, engines: [{ kind: "other" }] });
  });

  it.each([
    null,
    [],
    {},
    { state: "ready" },
    { state: "asleep", bridges: [] },
    { state: "ready", bridges: [{}] },
  ])("refuses %j", (value) => {
    expect(() => decodeStatus(value)).toThrow(/^expected .*, got /);
  });
});

describe("decodeSession", () => {
  it("is signed in only if the server says so plainly", () => {
    expect(decodeSession({ signed_in: true, user: "owner", expires: 10 })).toEqual({
      signedIn: true,
      user: "owner",
      expires: 10_000,
      name: null,
      email: null,
      admin: false,
      providers: [],
      byLink: true,
    });
    expect(decodeSession({ signed_in: "true" }).signedIn).toBe(false);
  });

  it("is an admin only if signed in, and if the server says so plainly", () => {
    expect(decodeSession({ signed_in: true, admin: true }).admin).toBe(true);
    expect(decodeSession({ signed_in: true, admin: 1 }).admin).toBe(false);
    expect(decodeSession({ signed_in: false, admin: true }).admin).toBe(false);
  });

  it("names the providers, without those whose id fits into no address", () => {
    const providers = [{ id: "oidc", name: "Example" }, { id: "../x" }, { id: "sso" }];
    expect(decodeSession({ signed_in: false, sign_in: "oidc", providers })).toMatchObject({
      byLink: false,
      providers: [
        { id: "oidc", name: "Example" },
        { id: "sso", name: "sso" },
      ],
    });
  });
});

describe("problemFrom", () => {
  it("reads a problem document", () => {
    const text = JSON.stringify({
      type: "urn:c2l:problem:engine-error",
      title: "T",
      detail: "D",
      status: 502,
    });
    expect(problemFrom(502, text)).toEqual({ slug: "engine-error", title: "T", detail: "D", status: 502 });
  });

  it("reads the message of an engine's own error", () => {
    expect(problemFrom(400, '{"error":{"message":"too long"}}')).toMatchObject({
      slug: null,
      detail: "too long",
    });
    expect(problemFrom(404, '{"error":"model not found"}')).toMatchObject({ detail: "model not found" });
  });

  it.each(["", "<html>", "[]", "null"])("makes a problem of %j too", (text) => {
    expect(problemFrom(502, text)).toMatchObject({ slug: null, status: 502 });
  });

  it("tells passing problems from lasting ones", () => {
    const slug = (name: string, status: number) => isPassing({ slug: name, title: "", detail: "", status });
    expect(slug("bridge-offline", 503)).toBe(true);
    expect(slug("no-bridge-paired", 503)).toBe(false);
    expect(slug("engine-error", 502)).toBe(false);
    expect(isPassing(problemFrom(502, "<html>"))).toBe(true);
    expect(isPassing(problemFrom(404, "<html>"))).toBe(false);
  });
});

describe("backoffMs", () => {
  const bounds = { firstMs: 500, mostMs: 15_000 };

  it("doubles within its bounds, with jitter", () => {
    expect([0, 1, 2, 3].map((attempt) => backoffMs(attempt, bounds, 1))).toEqual([500, 1_000, 2_000, 4_000]);
    expect(backoffMs(0, bounds, 0)).toBe(250);
    expect(backoffMs(10_000, bounds, 1)).toBe(15_000);
  });
});
