import { describe, expect, it } from "vitest";
import { askToBeLetIn, claimedIdentity, pairByLink } from "@/net/home/pairing";
import { ProblemError } from "@/net/problem";
import type { Bytes } from "@/protocol/sealed/bytes";
import { createDevice } from "@/protocol/sealed/device";
import { readLink, writeLink } from "@/protocol/sealed/pairing";
import { BRIDGE, inTheClear, newIdentity, SmallCloud, SmallHome } from "../../support/sealed-home";

async function setUp() {
  const home = await SmallHome.create();
  const cloud = new SmallCloud(home);
  const secret = crypto.getRandomValues(new Uint8Array(32));
  home.secrets.push(secret);
  const link = { bridgeId: BRIDGE, fingerprint: await home.fingerprint(), secret };
  const newcomer = { device: await createDevice(), name: "Firefox on Linux" };
  return { home, cloud, link, newcomer };
}

async function slugOf(work: Promise<unknown>): Promise<string | null> {
  const error = await work.then(
    () => null,
    (caught: unknown) => caught,
  );
  expect(error).toBeInstanceOf(ProblemError);
  return (error as ProblemError).problem.slug;
}

describe("pairing by a link", () => {
  it("lets the device in, once", async () => {
    const { home, cloud, link, newcomer } = await setUp();
    expect(await pairByLink(link, newcomer, 0, cloud)).toEqual({ state: "paired", seq: home.seq });
    expect([...home.devices.keys()]).toEqual([newcomer.device.id]);
    const second = { ...newcomer, device: await createDevice() };
    expect(await slugOf(pairByLink(link, second, 0, cloud))).toBe("home-link-used");
    expect(home.devices.size).toBe(1);
  });

  it("sends the secret nowhere", async () => {
    const { cloud, link, newcomer } = await setUp();
    await pairByLink(link, newcomer, 0, cloud);
    const secret = new TextDecoder("latin1").decode(link.secret);
    const text = writeLink(link).split(".")[3] ?? "";
    for (const { path, body } of cloud.requests) {
      const sent = path + new TextDecoder("latin1").decode(body);
      expect(sent).not.toContain(secret);
      expect(sent).not.toContain(text);
    }
  });

  it("is paired also when the answer was lost, with the same key", async () => {
    const { cloud, link, newcomer, home } = await setUp();
    cloud.interfere = ({ method, nth }) =>
      method === "POST" && nth === 1 ? (chunks: Bytes[]) => chunks.slice(0, 1) : undefined;
    await expect(pairByLink(link, newcomer, 0, cloud)).rejects.toThrow(ProblemError);
    expect(home.devices.size).toBe(1);
    expect(await pairByLink(link, newcomer, 0, cloud)).toMatchObject({ state: "paired" });
  });

  it("refuses whoever has not the link's identity, before anything is sent", async () => {
    const { home, cloud, link, newcomer } = await setUp();
    home.identity = await newIdentity();
    expect(await slugOf(pairByLink(link, newcomer, 0, cloud))).toBe("home-other-identity");
    expect(cloud.requests.map(({ method }) => method)).toEqual(["GET"]);
    expect(home.devices.size).toBe(0);
  });

  it("asks once more after new keys", async () => {
    const { home, cloud, link, newcomer } = await setUp();
    const old = await home.statement();
    await home.rotate(9);
    let asked = 0;
    cloud.statement = async () => {
      asked += 1;
      return asked === 1 ? old : await home.statement();
    };
    expect(await pairByLink(link, newcomer, 0, cloud)).toMatchObject({ state: "paired" });
  });

  it("tells a machine of another account, a clock and old keys apart", async () => {
    const { home, cloud, link, newcomer } = await setUp();
    expect(await slugOf(pairByLink(link, newcomer, home.seq + 1, cloud))).toBe("home-old-keys");
    cloud.skew = 300;
    expect(await slugOf(pairByLink({ ...link }, newcomer, 0, cloud))).toBe("date");
    cloud.skew = -300;
    expect(await slugOf(pairByLink(link, newcomer, 0, cloud))).toBe("home-clock");
    cloud.interfere = () => inTheClear("not-found", 404);
    expect(await slugOf(pairByLink(link, newcomer, 0, cloud))).toBe("home-not-yours");
    cloud.interfere = () => new TypeError("no network");
    expect(await slugOf(pairByLink(link, newcomer, 0, cloud))).toBe(null);
  });
});

describe("asking to be let in", () => {
  it("waits until somebody at home lets the device in", async () => {
    const { home, cloud, newcomer } = await setUp();
    const fingerprint = await claimedIdentity(BRIDGE, cloud);
    expect(fingerprint).toEqual(await home.fingerprint());
    const bridge = { bridgeId: BRIDGE, fingerprint };
    expect(await askToBeLetIn(bridge, newcomer, cloud)).toMatchObject({ state: "waiting" });
    expect(await askToBeLetIn(bridge, newcomer, cloud)).toMatchObject({ state: "waiting" });
    for (const [id, point] of home.waiting) home.devices.set(id, point);
    expect(await askToBeLetIn(bridge, newcomer, cloud)).toMatchObject({ state: "paired" });
  });

  it("never goes over to another identity than the words were made of", async () => {
    const { home, cloud, newcomer } = await setUp();
    const bridge = { bridgeId: BRIDGE, fingerprint: await claimedIdentity(BRIDGE, cloud) };
    await askToBeLetIn(bridge, newcomer, cloud);
    home.identity = await newIdentity();
    expect(await slugOf(askToBeLetIn(bridge, newcomer, cloud))).toBe("home-other-identity");
  });

  it("says that a removed device cannot come back", async () => {
    const { home, cloud, newcomer } = await setUp();
    home.removed.add(newcomer.device.id);
    const bridge = { bridgeId: BRIDGE, fingerprint: await claimedIdentity(BRIDGE, cloud) };
    expect(await slugOf(askToBeLetIn(bridge, newcomer, cloud))).toBe("conflict");
  });
});

it("reads back the link that it writes", async () => {
  const { link } = await setUp();
  expect(readLink(`#${writeLink(link)}`)).toEqual(link);
});
