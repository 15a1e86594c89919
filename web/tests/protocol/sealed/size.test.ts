import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "vite";
import { expect, it } from "vitest";

const root = fileURLToPath(new URL("../../..", import.meta.url));

/** Builds an entry that uses what the app will use, and returns its size in bytes, compressed. */
async function gzipped(code: string): Promise<number> {
  const result = await build({
    root,
    configFile: false,
    logLevel: "silent",
    resolve: { alias: { "@": `${root}src` } },
    plugins: [
      {
        name: "entry",
        resolveId: (id) => (id === "virtual:entry" ? `${root}src/entry.ts` : undefined),
        load: (id) => (id === `${root}src/entry.ts` ? code : undefined),
      },
    ],
    build: {
      target: "es2022",
      write: false,
      modulePreload: { polyfill: false },
      rollupOptions: { input: "virtual:entry" },
    },
  });
  const outputs = Array.isArray(result) ? result : [result];
  const chunks = outputs.flatMap((each) => ("output" in each ? each.output : []));
  const text = chunks.map((chunk) => ("code" in chunk ? chunk.code : "")).join("");
  return gzipSync(text, { level: 9 }).length;
}

const client = `
  import { request, message } from "@/protocol/sealed/bhttp";
  import { createDevice, proofFields } from "@/protocol/sealed/device";
  import { ResponseReader, sealRequest } from "@/protocol/sealed/exchange";
  import { RequestSealer } from "@/protocol/sealed/ohttp";
  import { introduction, readLink, sharedSecret } from "@/protocol/sealed/pairing";
  import { readOffset, resumeFields } from "@/protocol/sealed/resume";
  import { verifyStatement } from "@/protocol/sealed/statement";
  globalThis.used = { request, message, createDevice, proofFields, sealRequest, ResponseReader, RequestSealer,
    introduction, readLink, sharedSecret, readOffset, resumeFields, verifyStatement };
`;

/** What seals, opens and proves. */
const sealing = `
  import { createDevice, proofFields } from "@/protocol/sealed/device";
  import { RequestSealer } from "@/protocol/sealed/ohttp";
  globalThis.used = { createDevice, proofFields, RequestSealer };
`;

it("takes at most 8 kB of the app's bundle for the crypto, with hpke, and 11.5 kB in all", async () => {
  const size = await gzipped(client);
  const crypto = await gzipped(sealing);
  const hpke = await gzipped(`import { sender } from "@/protocol/sealed/hpke"; globalThis.used = sender;`);
  process.stdout.write(
    `sealed client ${size} B gzip; of it sealing and proofs ${crypto}, of it hpke ${hpke}\n`,
  );
  expect(crypto).toBeGreaterThan(hpke);
  expect(crypto).toBeLessThanOrEqual(8_000);
  expect(size).toBeLessThanOrEqual(11_500);
}, 180_000);
