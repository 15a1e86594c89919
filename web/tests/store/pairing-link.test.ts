import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { toBase64Url } from "@/protocol/sealed/bytes";

const FRAGMENT = `c2l1.br_1.${toBase64Url(new Uint8Array(32))}.${toBase64Url(new Uint8Array(32).fill(7))}`;

class Session {
  readonly kept = new Map<string, string>();
  getItem = (key: string) => this.kept.get(key) ?? null;
  setItem = (key: string, value: string) => void this.kept.set(key, value);
  removeItem = (key: string) => void this.kept.delete(key);
}

let session: Session;
let opened: string[];
let meta: string | null;

/** A page that is opened at an address, as far as these modules look at it. */
function openAt(address: string): void {
  const url = new URL(address);
  const listeners = new Map<string, () => void>();
  const place = {
    href: url.href,
    origin: url.origin,
    pathname: url.pathname,
    search: url.search,
    hash: url.hash,
  };
  const move = (_: unknown, __: string, to: string) => {
    const next = new URL(to, place.href);
    Object.assign(place, { href: next.href, pathname: next.pathname, search: next.search, hash: next.hash });
  };
  const addEventListener = (type: string, listener: () => void) => void listeners.set(type, listener);
  vi.stubGlobal("location", place);
  vi.stubGlobal("history", { pushState: move, replaceState: move });
  vi.stubGlobal("window", { addEventListener, location: place });
  vi.stubGlobal("document", { querySelector: () => (meta === null ? null : { getAttribute: () => meta }) });
  vi.stubGlobal("sessionStorage", session);
  vi.stubGlobal("isSecureContext", true);
  vi.stubGlobal("navigator", { userAgent: "Firefox/130.0 Linux" });
  const open = (name: string) => {
    opened.push(name);
    throw new DOMException("not here", "SecurityError");
  };
  vi.stubGlobal("indexedDB", { open });
}

const modules = async () => ({
  ...(await import("@/store/pairing-link")),
  ...(await import("@/net/home/served")),
});

beforeEach(() => {
  vi.resetModules();
  session = new Session();
  opened = [];
  meta = null;
});
afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

describe("a pairing link", () => {
  it("leaves the address at once and is kept in the tab", async () => {
    openAt(`https://app.example.org/pair#${FRAGMENT}`);
    const { followPairingLinks, usePairingLink } = await modules();
    followPairingLinks();
    expect(location.href).toBe("https://app.example.org/pair");
    expect(usePairingLink.getState().taken).toMatchObject({ withSignIn: false, link: { bridgeId: "br_1" } });
    expect(JSON.parse([...session.kept.values()][0] ?? "")).toMatchObject({ fragment: FRAGMENT });
  });

  it("is kept for ten minutes and no longer", async () => {
    for (const [minutes, there] of [
      [9, true],
      [11, false],
    ] as const) {
      vi.resetModules();
      vi.useFakeTimers({ now: 1_000_000_000_000 });
      openAt(`https://app.example.org/pair#${FRAGMENT}`);
      (await modules()).followPairingLinks();
      vi.setSystemTime(1_000_000_000_000 + minutes * 60_000);
      vi.resetModules();
      openAt("https://app.example.org/");
      const { followPairingLinks, usePairingLink } = await modules();
      followPairingLinks();
      expect(usePairingLink.getState().taken !== null).toBe(there);
      expect(session.kept.size).toBe(there ? 1 : 0);
    }
  });

  it.each(["not json", "{}", '{"fragment":1,"at":0}'])("that was stored as %j is none", async (stored) => {
    session.kept.set("c2l.pairing-link.v1", stored);
    openAt("https://app.example.org/");
    const { followPairingLinks, usePairingLink } = await modules();
    followPairingLinks();
    expect(usePairingLink.getState().taken).toBe(null);
    expect(session.kept.size).toBe(0);
  });

  it("of another page's fragment is left alone", async () => {
    openAt(`https://app.example.org/settings#${FRAGMENT}`);
    const { followPairingLinks, usePairingLink } = await modules();
    followPairingLinks();
    expect(usePairingLink.getState().taken).toBe(null);
  });
});

describe("pairing without a question", () => {
  it.each([
    // Only what came with a sign-in link, on a page of this computer.
    ["http://127.0.0.1:8080/sign-in#token=t&pair=", true],
    ["http://localhost:8080/sign-in#token=t&pair=", true],
    ["https://app.example.org/sign-in#token=t&pair=", false],
    ["http://192.168.1.2:8080/sign-in#token=t&pair=", false],
    ["http://127.0.0.1:8080/sign-in#pair=", false],
    ["http://127.0.0.1:8080/pair#", false],
  ])("%s: %s", async (address, quietly) => {
    openAt(address + FRAGMENT);
    const { followPairingLinks, goOnWithLink } = await modules();
    followPairingLinks();
    await goOnWithLink("u_1");
    expect(opened.length > 0).toBe(quietly);
  });

  it("that fails asks", async () => {
    openAt(`http://127.0.0.1:8080/sign-in#token=t&pair=${FRAGMENT}`);
    const { followPairingLinks, goOnWithLink, usePairingLink } = await modules();
    followPairingLinks();
    await goOnWithLink("u_1");
    expect(location.href).toBe("http://127.0.0.1:8080/pair");
    expect(usePairingLink.getState().taken).not.toBe(null);
  });
});

describe("a page that the home itself serves", () => {
  it.each([
    ["http://127.0.0.1:9000/", "direct", true],
    ["http://localhost:9000/", "direct", true],
    ["http://127.0.0.1:9000/", null, false],
    ["http://127.0.0.1:9000/", "other", false],
    ["https://app.example.org/", "direct", false],
    ["http://192.168.1.2:9000/", "direct", false],
  ])("%s says %s: %s", async (address, said, direct) => {
    meta = said;
    openAt(address);
    expect((await modules()).isServedByHome()).toBe(direct);
  });
});
