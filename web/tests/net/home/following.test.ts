import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { BreakError, type Connect, follow, type Part } from "@/net/home/following";
import { contentOf } from "@/net/home/problems";
import { newExchange } from "@/net/home/transport";
import type { HomeWorld } from "@/net/home/world";
import { ProblemError } from "@/net/problem";

const WHOLE = Uint8Array.from({ length: 40 }, (_, index) => index);

class World implements HomeWorld {
  readonly wakes = new Set<() => void>();
  readonly sleeps: number[] = [];
  fetch = async (): Promise<Response> => {
    throw new Error("nothing here is fetched");
  };
  /** Sleeps for real time, which the tests move. */
  sleep = (ms: number, signal: AbortSignal): Promise<void> => {
    this.sleeps.push(ms);
    return new Promise((resolve) => {
      setTimeout(resolve, ms);
      signal.addEventListener("abort", () => resolve());
    });
  };
  now = () => Date.now();
  date = () => Date.now();
  random = () => 1;
  onWake = (listener: () => void) => {
    this.wakes.add(listener);
    return () => this.wakes.delete(listener);
  };
  wake(): void {
    for (const listener of [...this.wakes]) listener();
  }
}

/** A part that brings some bytes and then says nothing more. */
function part(from: number, to: number, then: "hangs" | "breaks" | "ends"): Part {
  let at = from;
  return {
    status: 200,
    headers: new Headers(),
    offset: from,
    next: () => {
      if (at < to) {
        at += 1;
        return Promise.resolve(WHOLE.slice(at - 1, at));
      }
      if (then === "ends") return Promise.resolve(null);
      if (then === "breaks") return Promise.reject(new BreakError());
      return new Promise(() => {});
    },
  };
}

const request = () => ({ method: "GET", path: "/", exchange: newExchange() });
let world: World;
let asked: number[];
const NEVER = new AbortController().signal;

function script(...connects: ((offset: number, link: AbortSignal) => Promise<Part>)[]): Connect {
  return (_, offset, link) => {
    const connect = connects[Math.min(asked.length, connects.length - 1)];
    asked.push(offset);
    if (connect === undefined) throw new Error("expected a script");
    return connect(offset, link);
  };
}

const hang = (_: number, link: AbortSignal) =>
  new Promise<Part>((_resolve, reject) => {
    link.addEventListener("abort", () => reject(new BreakError()));
  });

beforeEach(() => {
  vi.useFakeTimers();
  world = new World();
  asked = [];
});
afterEach(() => vi.useRealTimers());

/** Lets time pass until something is settled. */
async function settled<T>(work: Promise<T>, ms = 700_000): Promise<T> {
  work.catch(() => {});
  await vi.advanceTimersByTimeAsync(ms);
  return await work;
}

describe("an answer", () => {
  it.each(Array.from(WHOLE.keys()))("is the same after breaks at byte %i and the next", async (at) => {
    const connect = script(
      async () => part(0, at, "breaks"),
      async (offset) => part(offset, offset + 1, "breaks"),
      async (offset) => part(offset, 40, "ends"),
    );
    const response = await follow(connect, request(), NEVER, world);
    expect(await settled(contentOf(response))).toEqual(WHOLE);
    expect(asked).toEqual([0, at, at + 1]);
    expect(await response.whole).toBe(true);
    expect(world.wakes.size).toBe(0);
  });

  it("is taken up anew when its connection says nothing for long", async () => {
    const connect = script(
      async () => part(0, 10, "hangs"),
      async (offset) => part(offset, 40, "ends"),
    );
    const response = await follow(connect, request(), NEVER, world);
    const content = contentOf(response);
    await vi.advanceTimersByTimeAsync(29_000);
    expect(asked).toEqual([0]);
    expect(await settled(content, 2_000)).toEqual(WHOLE);
    expect(asked).toEqual([0, 10]);
  });

  it("is taken up at once when the page wakes", async () => {
    const connect = script(
      async () => part(0, 10, "hangs"),
      async () => Promise.reject(new BreakError()),
      async () => Promise.reject(new BreakError()),
      async () => Promise.reject(new BreakError()),
      async () => Promise.reject(new BreakError()),
      async (offset) => part(offset, 40, "ends"),
    );
    const response = await follow(connect, request(), NEVER, world);
    const content = contentOf(response);
    await vi.advanceTimersByTimeAsync(10);
    world.wake();
    await vi.advanceTimersByTimeAsync(6_000);
    // Four tries, and now a long wait.
    expect(asked).toHaveLength(5);
    world.wake();
    expect(await settled(content, 0)).toEqual(WHOLE);
  });

  it("is waited for as long as sending its question takes on a slow network", async () => {
    const slow = () =>
      new Promise<Part>((resolve) => {
        setTimeout(() => resolve(part(0, 40, "ends")), 150_000);
      });
    const content = new Uint8Array(8 * 1024 * 1024);
    const upload = { method: "PUT", path: "/", content };
    const response = await settled(follow(script(slow), upload, NEVER, world), 151_000);
    expect(await settled(contentOf(response), 0)).toEqual(WHOLE);
    const short = follow(script(slow), { method: "PUT", path: "/" }, NEVER, world);
    await expect(settled(short, 61_000)).rejects.toThrow("does not answer");
  });

  it("that never begins is asked for again by its name, and without one is an error", async () => {
    const connect = script(hang, async () => part(0, 40, "ends"));
    const response = await settled(follow(connect, request(), NEVER, world), 61_000);
    expect(await settled(contentOf(response), 0)).toEqual(WHOLE);
    asked = [];
    const nameless = follow(script(hang), { method: "GET", path: "/" }, NEVER, world);
    await expect(settled(nameless, 61_000)).rejects.toThrow(ProblemError);
    expect(asked).toEqual([0]);
  });

  it("without a name is not given up as long as it has not begun, only because the page wakes", async () => {
    let begin: (part: Part) => void = () => {};
    const slow = () =>
      new Promise<Part>((resolve) => {
        begin = resolve;
      });
    const answering = follow(script(slow), { method: "GET", path: "/" }, NEVER, world);
    world.wake();
    begin(part(0, 40, "ends"));
    expect(await settled(contentOf(await answering), 0)).toEqual(WHOLE);
  });

  it("that the home breaks off again and again is not asked for for ever", async () => {
    const connect = script(
      async () => part(0, 10, "breaks"),
      async (offset) => part(offset, offset, "breaks"),
    );
    const response = await follow(connect, request(), NEVER, world);
    await expect(settled(contentOf(response))).rejects.toThrow("broken off at home");
    expect(asked).toEqual([0, 10, 10, 10]);
  });

  it("does not begin anew in the middle: another status or another offset is not the rest", async () => {
    for (const other of [
      { ...part(0, 40, "ends"), offset: 3 },
      { ...part(0, 40, "ends"), offset: null },
      { ...part(10, 40, "ends"), status: 206 },
    ]) {
      asked = [];
      const connect = script(
        async () => part(0, 10, "breaks"),
        async () => other,
      );
      const response = await follow(connect, request(), NEVER, world);
      await expect(settled(contentOf(response))).rejects.toThrow("cannot be had");
      expect(await response.whole).toBe(false);
    }
  });

  it("waits as long as it is told to", async () => {
    const busy = { slug: "rate-limited", title: "", detail: "", status: 429, retryAfterS: 20 };
    const connect = script(
      async () => part(0, 10, "breaks"),
      async () => Promise.reject(new ProblemError(busy)),
      async (offset) => part(offset, 40, "ends"),
    );
    const response = await follow(connect, request(), NEVER, world);
    expect(await settled(contentOf(response))).toEqual(WHOLE);
    expect(world.sleeps[1]).toBe(20_000);
  });

  it("is read no faster than somebody wants it", async () => {
    let read = 0;
    const endless: Part = {
      status: 200,
      headers: new Headers(),
      offset: null,
      next: async () => {
        read += 1;
        return new Uint8Array(1);
      },
    };
    const response = await follow(
      script(async () => endless),
      request(),
      NEVER,
      world,
    );
    await vi.advanceTimersByTimeAsync(1_000);
    expect(read).toBe(0);
    await response.content.cancel();
    expect(await response.whole).toBe(false);
    expect(world.wakes.size).toBe(0);
  });

  it("ends at once for whoever leaves, also between two tries", async () => {
    const leaving = new AbortController();
    const connect = script(
      async () => part(0, 10, "breaks"),
      async () => Promise.reject(new BreakError()),
    );
    const response = await follow(connect, request(), leaving.signal, world);
    const content = contentOf(response);
    content.catch(() => {});
    await vi.advanceTimersByTimeAsync(5_000);
    const before = asked.length;
    leaving.abort(new Error("left"));
    await expect(content).rejects.toThrow("left");
    await vi.advanceTimersByTimeAsync(60_000);
    expect(asked).toHaveLength(before);
    expect(world.wakes.size).toBe(0);
  });
});
